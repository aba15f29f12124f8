"""What every route is given: the gateway, and who calls."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path
from fastapi.requests import HTTPConnection

from gateway.acts import SESSIONS, Act, may
from gateway.approvals.desk import Person
from gateway.auth import Principal
from gateway.routes.guard import refusal
from gateway.routes.problems import ProblemError
from gateway.runtime import Gateway
from gateway.session_rows import SessionInfo
from gateway.types import Role


async def gateway(request: HTTPConnection) -> Gateway:
    running: Gateway = request.app.state.gateway
    return running


async def principal(request: HTTPConnection) -> Principal:
    """Who calls, as the guard has found out."""
    found: Principal = request.state.principal
    return found


async def person(request: HTTPConnection) -> Person:
    """The caller, as the desk of approvals takes them."""
    running, caller = await gateway(request), await principal(request)
    tenants = caller.approves or None if caller.role == "approver" else _only(caller)
    narrow = caller.role == "tenant"
    decides = running.settings.approvals.tenant_tokens if narrow else may(caller.role, "approvals.decide")
    return Person(caller.name, tenants, decides=decides, narrow=narrow)


def _only(caller: Principal) -> frozenset[str] | None:
    return None if caller.tenant is None else frozenset({caller.tenant})


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
    """Raises ProblemError: 403 for a session of a role that the caller's role does not reach."""
    if role not in SESSIONS[caller.role]:
        reached = ", ".join(f"`{each}`" for each in sorted(SESSIONS[caller.role]))
        hint = f"This one: {reached}. For others, use the server's own token or a key of another role."
        raise ProblemError(403, "forbidden", f"This token opens no session of role {role!r}.", hint)


def check_act(caller: Principal, act: Act) -> None:
    """For what a route does beside its own act. Raises ProblemError (403)."""
    if not may(caller.role, act):
        raise refusal(caller, act)


def check_everyone(caller: Principal) -> None:
    """Raises ProblemError: 403 for what concerns all tenants, with a token that reaches one."""
    if caller.tenant is not None:
        hint = "Use the server's own token, or a key of role admin for all tenants."
        raise ProblemError(403, "forbidden", "This concerns all tenants, and this token reaches one only.", hint)


def reach(running: Gateway, caller: Principal, tenant: str | None) -> str | None:
    """The tenant whose things a list shows; None for all. Raises ProblemError (403)."""
    if tenant is not None and not caller.may_reach(tenant):
        raise ProblemError(403, "forbidden", f"This token does not reach tenant {tenant[:64]!r}.")
    return tenant or caller.tenant


def check_decider(person: Person, tenant: str | None) -> None:
    """Raises ProblemError: 403 where a list is asked for of a tenant that the person does not reach."""
    if tenant is not None and person.tenants is not None and tenant not in person.tenants:
        raise ProblemError(403, "forbidden", f"This token does not reach tenant {tenant[:64]!r}.")


async def note_end(running: Gateway, caller: Principal, session: SessionInfo) -> None:
    """That a session was ended is in the audit where it was somebody else's."""
    if session.principal != caller.name:
        await running.audit.note_if_possible(caller.name, session.tenant, "session.end", session.id)


async def session_of(running: GatewayOf, caller: Caller, session: Annotated[str, Path(max_length=64)]) -> SessionInfo:
    """The session of the path, if the caller reaches it. Raises SessionNotFound, ProblemError (403)."""
    found = await running.sessions.get(session, caller.tenant)
    check_role(caller, found.role)
    return found


SessionOf = Annotated[SessionInfo, Depends(session_of)]
