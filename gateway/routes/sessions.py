"""Sessions and their cells."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from gateway.acts import SESSIONS, act
from gateway.routes.access import Caller, GatewayOf, SessionOf, check_role, check_tenant, reach
from gateway.routes.events import EventResponse, Events
from gateway.routes.models import Cell, CellState, FoundCell, Interrupted, NewCell, NewSession, Session
from gateway.routes.problems import described
from gateway.runtime import Gateway
from gateway.types import CellRun, Event

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

Accept = Annotated[str, Header(description="`text/event-stream` for outputs as they come, else JSON at the end.")]


@router.post("", status_code=201, responses=described(403, 404, 503, 507))
@act("sessions.run")
async def create(running: GatewayOf, caller: Caller, body: NewSession, response: Response) -> Session:
    """Start a session: a kernel of its own, bound to the tenant."""
    check_tenant(running, caller, body.tenant)
    check_role(caller, body.role)
    info = await running.sessions.create(
        body.tenant, caller.name, body.role, body.title, customer=body.customer, profile=body.profile
    )
    response.headers["Location"] = f"/v1/sessions/{info.id}"
    return Session.of(info)


@router.get("", responses=described(403))
@act("sessions.look")
async def list_sessions(
    running: GatewayOf, caller: Caller, tenant: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[Session]:
    """Sessions, the newest first."""
    found = await running.sessions.list(reach(running, caller, tenant), limit)
    return [Session.of(info) for info in found if info.role in SESSIONS[caller.role]]


@router.get("/{session}", responses=described(404))
@act("sessions.look")
async def get(found: SessionOf) -> Session:
    """One session."""
    return Session.of(found)


@router.delete("/{session}", status_code=204, responses=described(404))
@act("sessions.end")
async def end(running: GatewayOf, found: SessionOf) -> None:
    """End the session, what runs in it, and its kernel. Its transcript stays."""
    await running.chat.forget(found.id)
    await running.sessions.end(found.id)


@router.post(
    "/{session}/cells",
    response_model=Cell,
    responses={
        **described(403, 404, 409, 429, 503, 507),
        200: {"model": Cell, "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    },
)
@act("sessions.run")
async def run_cell(running: GatewayOf, found: SessionOf, body: NewCell, accept: Accept = "") -> Cell | EventResponse:
    """Run a cell, after those that are under way.

    As an event stream: `output` events with the text that the cell shows, then one `cell` event, which is the JSON
    answer; or an `error` event. A client that goes away does not end the cell: its deadline does. The id of a cell that
    runs joins it, with its outputs from the first on.
    """
    events = Events()
    task = asyncio.create_task(_run(running, found.id, body, events))
    if "text/event-stream" in accept:
        return EventResponse(task, events, heartbeat_s=running.settings.server.heartbeat_s, owned=False)
    return Cell.of(await task)


@router.get("/{session}/cells", responses=described(404))
@act("sessions.look")
async def list_cells(running: GatewayOf, found: SessionOf) -> list[CellState]:
    """The session's cells, in order; one may be running."""
    return [CellState.of(row) for row in await running.sessions.cells(found.id)]


@router.get("/{session}/cells/{cell}", responses=described(404))
@act("sessions.look")
async def get_cell(running: GatewayOf, found: SessionOf, cell: Annotated[str, Path(max_length=64)]) -> FoundCell:
    """One cell and its result: for a client that lost its stream, also by the end of a gateway."""
    row, node = await running.sessions.cell(found.id, cell)
    return FoundCell(**CellState.of(row).model_dump(), result=None if node is None else Cell.noted(node))


async def _run(running: Gateway, session: str, body: NewCell, events: Events) -> CellRun:
    run = await running.sessions.run_cell(
        session, body.code, cell_id=body.cell_id, deadline_s=body.deadline_s, sink=events.send
    )
    await events.send(Event("cell", Cell.of(run).model_dump()))
    return run


@router.post("/{session}/interrupt", responses=described(404, 409))
@act("sessions.end")
async def interrupt(running: GatewayOf, found: SessionOf) -> Interrupted:
    """Interrupt the cell that runs, as Ctrl-C would."""
    return Interrupted(interrupted=await running.sessions.interrupt(found.id))


@router.post("/{session}/restore", responses=described(403, 404, 409, 503))
@act("sessions.run")
async def restore(running: GatewayOf, found: SessionOf) -> list[Cell]:
    """Give the session a new kernel and run its finished cells again; the journal answers their tool calls."""
    return [Cell.of(run) for run in await running.sessions.restore(found.id)]
