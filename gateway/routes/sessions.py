"""Sessions and their cells."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Path, Query, Response
from starlette.responses import StreamingResponse

from gateway.acts import SESSIONS, act
from gateway.routes.access import Caller, GatewayOf, SessionOf, check_role, check_tenant, note_end, reach
from gateway.routes.events import EventResponse, Events
from gateway.routes.models import Cancelled, Cell, CellState, FoundCell, Interrupted, NewCell, NewSession, Session
from gateway.routes.problems import described
from gateway.runtime import Gateway
from gateway.session_rows import AskedUnder
from gateway.types import CellRun, Event

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

Accept = Annotated[str, Header(description="`text/event-stream` for outputs as they come, else JSON at the end.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Of the caller's own making. The same key with the same body gives the same session, once more, "
        "whichever gateway is asked; with another body it is refused.",
    ),
]
CellId = Annotated[str, Path(max_length=64, description="As whoever ran it named it, or as it was answered.")]
After = Annotated[
    str | None, Header(alias="Last-Event-ID", pattern=r"^\d{1,18}$", description="The id of the last event had.")
]


@router.post("", status_code=201, responses=described(403, 404, 503, 507))
@act("sessions.run")
async def create(running: GatewayOf, caller: Caller, body: NewSession, response: Response, key: Key = None) -> Session:
    """Start a session: a kernel of its own, bound to the tenant.

    With an `Idempotency-Key` it may be sent again after a lost answer: there will be one session. A request that failed
    uses up no key.
    """
    check_tenant(running, caller, body.tenant)
    check_role(caller, body.role)
    digest = hashlib.sha256(msgspec.json.encode(body.model_dump(), order="sorted")).hexdigest()
    info = await running.sessions.create(
        body.tenant,
        caller.name,
        body.role,
        body.title,
        customer=body.customer,
        profile=body.profile,
        under=AskedUnder(caller.name, key, digest) if key is not None else None,
    )
    response.headers["Location"] = f"/v1/sessions/{info.id}"
    return Session.of(info)


@router.get("", responses=described(403))
@act("sessions.look")
async def list_sessions(
    running: GatewayOf,
    caller: Caller,
    tenant: Annotated[str | None, Query(max_length=64, description="Of this tenant alone.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[
        str | None, Query(max_length=64, pattern=r"^\w*$", description="Id of the last session of the page before.")
    ] = None,
) -> list[Session]:
    """Sessions, the newest first. A page that is shorter than `limit` is the last one."""
    roles = SESSIONS[caller.role]
    found = await running.sessions.list(reach(running, caller, tenant), limit, after, roles)
    return [Session.of(info) for info in found]


@router.get("/{session}", responses=described(404))
@act("sessions.look")
async def get(found: SessionOf) -> Session:
    """One session."""
    return Session.of(found)


@router.delete("/{session}", status_code=204, responses=described(404))
@act("sessions.end")
async def end(running: GatewayOf, caller: Caller, found: SessionOf) -> None:
    """End the session, what runs in it, and its kernel. Its transcript stays."""
    await running.chat.forget(found.id)
    await running.sessions.end(found.id)
    await note_end(running, caller, found)


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
    events = Events(running.settings.server.unread_mb * 2**20)
    task = asyncio.create_task(_run(running, found.id, body, events))
    if "text/event-stream" in accept:
        return EventResponse(task, events, heartbeat_s=running.settings.server.heartbeat_s, owned=False)
    return Cell.of(await task)


@router.get(
    "/{session}/cells/{cell}/events",
    response_class=StreamingResponse,
    responses={**described(404), 200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
@act("sessions.look")
async def follow_cell(running: GatewayOf, found: SessionOf, cell: CellId, after: After = None) -> EventResponse:
    """The events of a cell that runs, waits or is over, as `POST .../cells` streams them.

    For a client that lost its stream: with the id of the last event that it had in `Last-Event-ID` it gets what comes
    after that one; without, all of them. A cell that is not known was never begun: run it, under the same id.
    """
    await running.sessions.known(found.id, cell)
    events = Events(running.settings.server.unread_mb * 2**20)
    task = asyncio.create_task(_follow(running, found.id, cell, int(after or 0), events))
    return EventResponse(task, events, heartbeat_s=running.settings.server.heartbeat_s, owned=True)


@router.post("/{session}/cells/{cell}/cancel", responses=described(404))
@act("sessions.end")
async def cancel_cell(running: GatewayOf, found: SessionOf, cell: CellId) -> Cancelled:
    """Give a cell up. One that waits never runs; one that runs is interrupted. Safe to ask again."""
    gone = await running.sessions.cancel(found.id, cell)
    return Cancelled(cell=cell, was=gone.was, ended=gone.ended)


@router.get("/{session}/cells", responses=described(404))
@act("sessions.look")
async def list_cells(running: GatewayOf, found: SessionOf) -> list[CellState]:
    """The session's cells, in order; one may be running."""
    return [CellState.of(row) for row in await running.sessions.cells(found.id)]


@router.get("/{session}/cells/{cell}", responses=described(404))
@act("sessions.look")
async def get_cell(running: GatewayOf, found: SessionOf, cell: CellId) -> FoundCell:
    """One cell and its result: for a client that lost its stream, also by the end of a gateway."""
    row, node = await running.sessions.cell(found.id, cell)
    return FoundCell(**CellState.of(row).model_dump(), result=None if node is None else Cell.noted(node))


async def _run(running: Gateway, session: str, body: NewCell, events: Events) -> CellRun:
    run = await running.sessions.run_cell(
        session, body.code, cell_id=body.cell_id, deadline_s=body.deadline_s, sink=events.send
    )
    await events.send(Event("cell", Cell.of(run).model_dump()))
    return run


async def _follow(running: Gateway, session: str, cell: str, after: int, events: Events) -> None:
    node = await running.sessions.follow(session, cell, events.send, after)
    await events.send(Event("cell", Cell.noted(node).model_dump()))


@router.post("/{session}/interrupt", responses=described(404, 409))
@act("sessions.end")
async def interrupt(running: GatewayOf, found: SessionOf) -> Interrupted:
    """Interrupt the cell that runs, as Ctrl-C would."""
    return Interrupted(interrupted=await running.sessions.interrupt(found.id))


@router.post("/{session}/restart", responses=described(403, 404, 409, 503, 507))
@act("sessions.run")
async def restart(running: GatewayOf, found: SessionOf) -> Session:
    """Give the session a new kernel with an empty namespace. What runs ends; what waits is refused.

    Its transcript goes on and says so; what the cells before changed stays changed.
    """
    await running.sessions.requests.restart(found.id)
    return Session.of(await running.sessions.get(found.id))


@router.post("/{session}/restore", responses=described(403, 404, 409, 503))
@act("sessions.run")
async def restore(running: GatewayOf, found: SessionOf) -> list[Cell]:
    """Give the session a new kernel and run its finished cells again; the journal answers their tool calls."""
    return [Cell.of(run) for run in await running.sessions.restore(found.id)]
