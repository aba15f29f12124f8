"""Administrative acts that did not happen are in the audit, too: who tried, and why it was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fastapi.requests import HTTPConnection

from gateway.acts import ADMINISTRATIVE, act_of

if TYPE_CHECKING:
    from gateway.auth import Principal
    from gateway.runtime import Gateway

#: Nobody known, too fast, or a request that cannot be read: no act was tried.
_NO_ACT = {401, 422, 429}


class _Refused(Protocol):
    status: int
    code: str


async def note_refusal(connection: HTTPConnection, problem: _Refused) -> None:
    """Add the entry, where the request was for an administrative act and its caller is known."""
    act = act_of(connection.scope.get("endpoint"))
    caller: Principal | None = getattr(connection.state, "principal", None)
    if caller is None or act not in ADMINISTRATIVE or problem.status in _NO_ACT or connection.scope["type"] != "http":
        return
    running: Gateway = connection.app.state.gateway
    tenant = str(connection.path_params.get("tenant", "") or caller.tenant or "")
    what = f"{connection.scope['method']} {connection.url.path}"
    await running.audit.note_if_possible(caller.name, tenant, act, what, problem.code)
