"""What every route is given: the gateway, and who calls."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from gateway.auth import Principal, token_of
from gateway.routes.problems import ProblemError
from gateway.runtime import Gateway
from gateway.session_rows import SessionInfo


def gateway(request: Request) -> Gateway:
    running: Gateway = request.app.state.gateway
    return running


def principal(request: Request) -> Principal:
    """Raises ProblemError (401)."""
    running: Gateway = request.app.state.gateway
    token = token_of(request.headers.get("authorization", ""), request.query_params.get("token", ""))
    found = running.tokens.principal(token) if token else None
    if found is None:
        what = "The access token is wrong." if token else "The request has no access token."
        hint = "Send the header `Authorization: Bearer TOKEN`; `omniops serve` prints the token at start."
        raise ProblemError(401, "unauthorized", what, hint)
    return found


GatewayOf = Annotated[Gateway, Depends(gateway)]
Caller = Annotated[Principal, Depends(principal)]


def check_tenant(running: Gateway, caller: Principal, tenant: str) -> None:
    """Raises ProblemError: 403 for a tenant that is not the caller's, whether or not it exists; 404 for none."""
    if not caller.may_reach(tenant):
        raise ProblemError(403, "forbidden", f"This token does not reach tenant {tenant[:64]!r}.")
    if tenant not in running.settings.tenants:
        known = ", ".join(sorted(running.settings.tenants)) or "none"
        hint = f"Configured: {known}. Add [tenants.{tenant[:64]}] to the configuration and start the gateway again."
        raise ProblemError(404, "unknown_tenant", f"There is no tenant {tenant[:64]!r}.", hint)


def reach(running: Gateway, caller: Principal, tenant: str | None) -> str | None:
    """The tenant whose things a list shows; None for all. Raises ProblemError (403)."""
    if tenant is not None and not caller.may_reach(tenant):
        raise ProblemError(403, "forbidden", f"This token does not reach tenant {tenant[:64]!r}.")
    return tenant or caller.tenant


async def session_of(running: GatewayOf, caller: Caller, session: Annotated[str, Path(max_length=64)]) -> SessionInfo:
    """The session of the path, if the caller reaches it. Raises SessionNotFound."""
    return await running.sessions.get(session, caller.tenant)


SessionOf = Annotated[SessionInfo, Depends(session_of)]
