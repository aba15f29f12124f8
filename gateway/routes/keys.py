"""API keys and the audit, for those who administer the gateway or one tenant of it. A key's text is told once."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from gateway.acts import KeyRole, act
from gateway.auth import Principal
from gateway.identity.keys import Key as KeyRow
from gateway.identity.keys import KeyProblem, NewKey
from gateway.routes.access import Caller, GatewayOf, check_everyone, check_tenant, reach
from gateway.routes.problems import ProblemError, described

router = APIRouter(tags=["identity"])

#: Who sits at the keyboard, as they say: several may use one token.
_PERSON = r"^[\w .@-]*$"
_TEXT = r"^[^\x00]*$"
#: A hundred years.
_LONGEST_S = 100 * 366 * 86_400
Id = Annotated[str, Path(max_length=64, pattern=_TEXT, description="The part between `omk_` and the secret.")]
Person = Annotated[str, Query(max_length=64, pattern=_PERSON, description="Who does it; kept with the token's name.")]


class WantedKey(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: KeyRole
    label: str = Field(min_length=1, max_length=100, description="Whose it is, what for.")
    tenant: str | None = Field(None, max_length=64, description="The only one that it reaches. None: all.")
    expires_s: float | None = Field(None, gt=0, le=_LONGEST_S, description="Seconds until it ends. None: never.")
    by: str = Field("", max_length=64, pattern=_PERSON, description="Who makes it; kept with the token's name.")


class Key(BaseModel):
    id: str
    tenant: str | None = Field(description="None: all.")
    role: KeyRole
    label: str
    created: datetime
    created_by: str
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None = Field(description="To `identity.last_use_s`.")

    @classmethod
    def of(cls, key: KeyRow) -> Self:
        return cls(**asdict(key))


class MadeKey(Key):
    key: str = Field(description="The whole key, `omk_ID_SECRET`: it is told now and never again.")

    @classmethod
    def told(cls, made: NewKey) -> Self:
        return cls(**asdict(made.key), key=made.text)


class Keys(BaseModel):
    keys: list[Key]


class AuditEntry(BaseModel):
    at: datetime
    principal: str = Field(description="Whose token, and who used it, as they say.")
    role: str
    tenant: str = Field(description="Empty for what concerns them all.")
    action: str
    subject: str
    source: str = Field(description="The client's address, or `command line`.")
    outcome: str = Field(description="`done`, or the code of the refusal.")


class AuditEntries(BaseModel):
    entries: list[AuditEntry]


@router.post("/v1/keys", status_code=201, responses=described(403, 404))
@act("keys")
async def create_key(running: GatewayOf, caller: Caller, body: WantedKey) -> MadeKey:
    """Make a key. Who reaches one tenant makes keys of that tenant."""
    if body.tenant is None:
        check_everyone(caller)
    else:
        check_tenant(running, caller, body.tenant)
    expires = None if body.expires_s is None else datetime.now(UTC) + timedelta(seconds=body.expires_s)
    try:
        made = await running.identity.keys.create(
            role=body.role, tenant=body.tenant, label=body.label, by=_who(caller, body.by), expires=expires
        )
    except KeyProblem as error:
        raise ProblemError(422, "bad_key", str(error)) from None
    return MadeKey.told(made)


@router.get("/v1/keys", responses=described(403))
@act("keys")
async def list_keys(
    running: GatewayOf,
    caller: Caller,
    tenant: Annotated[str | None, Query(max_length=64, pattern=_TEXT)] = None,
) -> Keys:
    """All keys, without their secrets, the newest first; last those that were revoked."""
    found = await running.identity.keys.list(reach(running, caller, tenant))
    return Keys(keys=[Key.of(each) for each in found])


@router.post("/v1/keys/{key}/rotate", responses=described(403, 404))
@act("keys")
async def rotate_key(
    running: GatewayOf,
    caller: Caller,
    key: Id,
    overlap_s: Annotated[
        float | None,
        Query(ge=0, le=_LONGEST_S, description="How long the secret of before counts. None: `identity.overlap_s`."),
    ] = None,
    by: Person = "",
) -> MadeKey:
    """Give a key another secret. Its name stays, and with it whose sessions are whose."""
    overlap = running.settings.identity.overlap_s if overlap_s is None else overlap_s
    try:
        made = await running.identity.keys.rotate(key, tenant=caller.tenant, by=_who(caller, by), overlap_s=overlap)
    except KeyProblem as error:
        raise ProblemError(404, "unknown_key", str(error)) from None
    running.identity.book.forget()
    return MadeKey.told(made)


@router.delete("/v1/keys/{key}", responses=described(403, 404))
@act("keys")
async def revoke_key(running: GatewayOf, caller: Caller, key: Id, by: Person = "") -> Key:
    """End a key for good, at once, here and at every gateway. Connections that it opened are closed."""
    try:
        revoked = await running.identity.keys.revoke(key, tenant=caller.tenant, by=_who(caller, by))
    except KeyProblem as error:
        raise ProblemError(404, "unknown_key", str(error)) from None
    running.identity.book.forget()
    return Key.of(revoked)


@router.get("/v1/audit", responses=described(403))
@act("audit")
async def list_audit(
    running: GatewayOf,
    caller: Caller,
    tenant: Annotated[str | None, Query(max_length=64, pattern=_TEXT)] = None,
    action: Annotated[
        str | None, Query(max_length=64, pattern=_TEXT, description="One, or how several begin, such as `key.`.")
    ] = None,
    since: Annotated[AwareDatetime | None, Query(description="At this time or after.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Before this time.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AuditEntries:
    """Administrative acts, the newest first: who, when, what, for which tenant, from where, and what came of it."""
    found = await running.audit.find(
        tenant=reach(running, caller, tenant), action=action, since=since, until=until, limit=limit
    )
    return AuditEntries(entries=[AuditEntry(**asdict(each)) for each in found])


def _who(caller: Principal, person: str) -> str:
    return f"{caller.name} ({person})" if person else caller.name
