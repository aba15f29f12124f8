"""What every route is given: the gateway, and who calls."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from gateway.approvals.desk import Person
from gateway.auth import Principal, token_of
from gateway.routes.problems import ProblemError
from gateway.runtime import Gateway
from gateway.session_rows import SessionInfo
from gateway.types import Role


def gateway(request: Request) -> Gateway:
    running: Gateway = request.app.state.gateway
    return running


def principal(request: Request) -> Principal:
    """Whoever works with sessions. Raises ProblemError (401; 403 for a token that is for approvals alone)."""
    found = anybody(request)
    if found.approves is not None:
        raise ProblemError(403, "forbidden", "This token is for approvals alone.", "See GET /v1/approvals.")
    return found


def anybody(request: Request) -> Principal:
    """Raises ProblemError (401)."""
    running: Gateway = request.app.state.gateway
    token = token_of(request.headers.get("authorization", ""), request.query_params.get("token", ""))
    found = running.tokens.principal(token) if token else None
    if found is None:
        what = "The access token is wrong." if token else "The request has no access token."
        hint = "Send the header `Authorization: Bearer TOKEN`; `omniops serve` prints the token at start."
        raise ProblemError(401, "unauthorized", what, hint)
    return found


def person(request: Request) -> Person:
    """The caller, as the desk of approvals takes them. Raises ProblemError (401)."""
    running, caller = gateway(request), anybody(request)
    if caller.approves is not None:
        return Person(caller.name, caller.approves or None, decides=True)
    if caller.tenant is not None:
        decides = running.settings.approvals.tenant_tokens
        return Person(caller.name, frozenset({caller.tenant}), decides=decides, narrow=True)
    return Person(caller.name, None, decides=True)


GatewayOf = Annotated[Gateway, Depends(gateway)]
Caller = Annotated[Principal, Depends(principal)]
Decider = Annotated[Person, Depends(person)]


def check_tenant(running: Gateway, caller: Principal, tenant: str) -> None:
    """Raises ProblemError: 403 for a tenant that is not the caller's, whether or not it exists; 404 for none."""
    if not caller.may_reach(tenant):
        raise ProblemError(403, "forbidden", f"This token does not reach tenant {tenant[:64]!r}.")
    if tenant not in running.settings.tenants:
        known = ", ".join(sorted(running.settings.tenants)) or "none"
        hint = f"Configured: {known}. Add [tenants.{tenant[:64]}] to the configuration and start the gateway again."
        raise ProblemError(404, "unknown_tenant", f"There is no tenant {tenant[:64]!r}.", hint)


def check_role(caller: Principal, role: Role) -> None:
    """Raises ProblemError: 403 for a session that may run the shop, with a token that reaches one tenant only."""
    if role == "operator" and caller.tenant is not None:
        hint = "Ask for it with the server's own token, or for role `agent` or `analyst`."
        raise ProblemError(403, "forbidden", "This token opens no session of role 'operator'.", hint)


def reach(running: Gateway, caller: Principal, tenant: str | None) -> str | None:
    """The tenant whose things a list shows; None for all. Raises ProblemError (403)."""
    if tenant is not None and not caller.may_reach(tenant):
        raise ProblemError(403, "forbidden", f"This token does not reach tenant {tenant[:64]!r}.")
    return tenant or caller.tenant


def check_decider(person: Person, tenant: str | None) -> None:
    """Raises ProblemError: 403 where a list is asked for of a tenant that the person does not reach."""
    if tenant is not None and person.tenants is not None and tenant not in person.tenants:
        raise ProblemError(403, "forbidden", f"This token does not reach tenant {tenant[:64]!r}.")


async def session_of(running: GatewayOf, caller: Caller, session: Annotated[str, Path(max_length=64)]) -> SessionInfo:
    """The session of the path, if the caller reaches it. Raises SessionNotFound, ProblemError (403)."""
    found = await running.sessions.get(session, caller.tenant)
    check_role(caller, found.role)
    return found


SessionOf = Annotated[SessionInfo, Depends(session_of)]
