"""Before each route: whether the caller may do what it does. A route that declares nothing is refused to everybody.

An application whose routes do not all declare their act is not made.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import FastAPI
from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute, APIWebSocketRoute, iter_route_contexts

from gateway.acts import ACTS, Act, act_of, may
from gateway.auth import Principal
from gateway.peers.passes import CALLER
from gateway.routes.problems import ProblemError


async def enforce(connection: HTTPConnection) -> None:
    """Every route's first dependency, websockets' too. Raises ProblemError (401, 403)."""
    wanted = act_of(connection.scope.get("endpoint"))
    if wanted == "public":
        return
    # another gateway that brings the request has let the caller in, else the door has
    caller: Principal | None = connection.scope.get(CALLER) or getattr(connection.state, "principal", None)
    if caller is None:
        raise ProblemError(401, "unauthorized", "The request has no access token.")
    if wanted is None or not may(caller.role, wanted):
        raise refusal(caller, wanted)
    connection.state.principal = caller


def refusal(caller: Principal, wanted: Act | None) -> ProblemError:
    """What a caller is told who may not."""
    if caller.role == "approver":
        return ProblemError(403, "forbidden", "This token is for approvals alone.", "See GET /v1/approvals.")
    what = f"Role {caller.role!r} may not do this ({wanted or 'nobody may'})."
    return ProblemError(403, "forbidden", what, "docs/identity.md has the table of roles.")


def declared(app: FastAPI) -> Iterator[tuple[str, Act | None]]:
    """Every route, websockets' too, as `METHODS PATH`, and its act."""
    for each in iter_route_contexts(app.routes):
        methods = "|".join(sorted(each.methods or ())) or "WEBSOCKET"
        ours = isinstance(each.original_route, APIRoute | APIWebSocketRoute)  # the others are not guarded
        yield f"{methods} {each.path}", act_of(each.endpoint) if ours else None


def check_declared(app: FastAPI) -> None:
    """Raises TypeError, naming each route that declares no act."""
    silent = [route for route, found in declared(app) if found is None]
    if silent:
        raise TypeError(
            f"These routes do not say what they do: {', '.join(silent)}. Put `@act(...)` of gateway.acts under the "
            f"decorator of each, and add plain routes by it, no mounts; there are: {', '.join(ACTS)}."
        )
