"""Tenants' credentials, for those who run the gateway: set, list, delete, encrypt anew. No answer holds a value."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.acts import act
from gateway.auth import Principal
from gateway.credentials.keys import KeysError
from gateway.credentials.sealing import SealError
from gateway.credentials.store import BadCredential, check_name
from gateway.routes.access import Caller, GatewayOf, check_everyone, check_tenant, reach
from gateway.routes.problems import ProblemError, described
from gateway.runtime import Gateway
from gateway.tenant_check import check_tenant as find_problems

router = APIRouter(tags=["credentials"])

#: Who sits at the keyboard, as they say: every operator has the same token.
_PERSON = r"^[\w .@-]*$"
Tenant = Annotated[str, Path(max_length=64)]
Name = Annotated[str, Path(max_length=64, description="Such as woocommerce_secret.")]
Person = Annotated[str, Query(max_length=64, pattern=_PERSON, description="Who does it; kept with the token's name.")]


class NewCredential(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    value: SecretStr = Field(description="6 to 16,384 characters.")
    by: str = Field("", max_length=64, pattern=_PERSON, description="Who does it; kept with the token's name.")


class Credential(BaseModel):
    name: str
    key_id: str = Field(description="The key that it is encrypted with.")
    changed: datetime
    changed_by: str


class Credentials(BaseModel):
    credentials: list[Credential]


class Deleted(BaseModel):
    deleted: bool = Field(description="False: there was none.")


class Rotated(BaseModel):
    credentials: int = Field(description="How many were encrypted anew.")
    key_id: str


class Finding(BaseModel):
    what: str
    state: Literal["works", "fails", "absent"]
    told: str = Field(description="For people: what was found, and what to do.")


class Findings(BaseModel):
    findings: list[Finding]


class Act(BaseModel):
    at: datetime
    principal: str
    tenant: str = Field(description="Empty for what concerns them all.")
    action: str
    subject: str


class Acts(BaseModel):
    acts: list[Act]


@router.put("/v1/tenants/{tenant}/credentials/{name}", responses=described(403, 404, 409))
@act("credentials")
async def set_credential(
    running: GatewayOf, caller: Caller, tenant: Tenant, name: Name, body: NewCredential
) -> Credential:
    """Keep a value, over the one of before. It counts from the next call on."""
    check_tenant(running, caller, tenant)
    try:
        await running.vault.put(tenant, name, body.value.get_secret_value(), _who(caller, body.by))
    except BadCredential as error:
        raise ProblemError(422, "bad_credential", str(error)) from None
    except KeysError as error:
        raise _no_key(error) from None
    found = next((c for c in await _listed(running, tenant) if c.name == name), None)
    if found is None:
        raise ProblemError(409, "deleted", f"Somebody deleted {name} at the same time.")
    return found


@router.get("/v1/tenants/{tenant}/credentials", responses=described(403, 404))
@act("credentials")
async def list_credentials(running: GatewayOf, caller: Caller, tenant: Tenant) -> Credentials:
    """What there is, without values."""
    check_tenant(running, caller, tenant)
    return Credentials(credentials=await _listed(running, tenant))


@router.delete("/v1/tenants/{tenant}/credentials/{name}", responses=described(403, 404))
@act("credentials")
async def delete_credential(running: GatewayOf, caller: Caller, tenant: Tenant, name: Name, by: Person = "") -> Deleted:
    """Delete a value for good. Calls that need it are refused from then on."""
    check_tenant(running, caller, tenant)
    try:
        check_name(name)
    except BadCredential as error:
        raise ProblemError(422, "bad_credential", str(error)) from None
    return Deleted(deleted=await running.vault.delete(tenant, name, _who(caller, by)))


@router.post("/v1/credentials/rotate", responses=described(403, 409))
@act("credentials")
async def rotate_key(running: GatewayOf, caller: Caller, by: Person = "") -> Rotated:
    """Encrypt the credentials of all tenants with a new key: one made now, or the first one of the settings."""
    check_everyone(caller)
    try:
        count, key_id = await running.vault.rotate(_who(caller, by))
    except (KeysError, SealError) as error:
        raise _no_key(error) from None
    return Rotated(credentials=count, key_id=key_id)


@router.post("/v1/tenants/{tenant}/check", responses=described(403, 404))
@act("credentials")
async def check_connections(running: GatewayOf, caller: Caller, tenant: Tenant) -> Findings:
    """Ask the tenant's store and tables for something small, with its credentials."""
    check_tenant(running, caller, tenant)
    found = [
        Finding(what=each.what, state=each.state, told=running.scrubber.text(each.told))
        async for each in find_problems(running.contexts, tenant)
    ]
    return Findings(findings=found)


@router.get("/v1/administration", responses=described(403))
@act("audit")
async def list_acts(
    running: GatewayOf,
    caller: Caller,
    tenant: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Acts:
    """What people did to the gateway's credentials, the newest first."""
    of = reach(running, caller, tenant)
    rows = await running.database.fetch(
        "SELECT at, principal, tenant, action, subject FROM administration"
        " WHERE %(tenant)s::text IS NULL OR tenant = %(tenant)s ORDER BY id DESC LIMIT %(limit)s",
        {"tenant": of, "limit": limit},
    )
    return Acts(acts=[Act(**row) for row in rows])


async def _listed(running: Gateway, tenant: str) -> list[Credential]:
    entries = await running.vault.entries(tenant)
    return [Credential(name=e.name, key_id=e.key_id, changed=e.changed, changed_by=e.changed_by) for e in entries]


def _who(caller: Principal, person: str) -> str:
    return f"{caller.name} ({person})" if person else caller.name


def _no_key(error: Exception) -> ProblemError:
    return ProblemError(409, "no_key", str(error))
