"""For people: calls that wait for a decision, the decision, and taking back what was done."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import StreamingResponse

from gateway.acts import act
from gateway.approvals.desk import Person
from gateway.auth import Principal
from gateway.routes.access import Caller, Decider, GatewayOf, check_decider
from gateway.routes.approval_models import Approval, Decision, Denial, State, Write
from gateway.routes.events import EventResponse, Events
from gateway.routes.problems import described
from gateway.runtime import Gateway
from gateway.types import Event

router = APIRouter(tags=["approvals"])

Id = Annotated[str, Path(max_length=64)]
Limit = Annotated[int, Query(ge=1, le=1000)]
CallId = Annotated[int, Path(ge=1, le=2**62)]


@router.get("/v1/approvals", responses=described(403))
@act("approvals.look")
async def list_approvals(
    running: GatewayOf,
    person: Decider,
    state: State | None = None,
    tenant: str | None = None,
    session: str | None = None,
    limit: Limit = 100,
) -> list[Approval]:
    """Requests for approval, the newest first. `state=pending`: those that wait."""
    check_decider(person, tenant)
    found = await running.desk.find(person, tenant=tenant, session=session, state=state, limit=limit)
    return [Approval.of(each) for each in found]


@router.get(
    "/v1/approvals/events",
    response_class=StreamingResponse,
    responses={**described(403), 200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
@act("approvals.look")
async def events(running: GatewayOf, caller: Caller, person: Decider) -> EventResponse:
    """Requests as they come and as they are decided, here or at another gateway; first those that wait.

    Each is an `approval` event with the request, as `GET /v1/approvals/{id}` has it. Ends when the client goes away.
    """
    stream = Events(running.settings.server.unread_mb * 2**20)
    task = asyncio.create_task(_watch(running, caller, person, stream))
    return EventResponse(task, stream, heartbeat_s=running.settings.server.heartbeat_s, owned=True)


@router.get("/v1/approvals/{approval}", responses=described(404))
@act("approvals.look")
async def show(running: GatewayOf, person: Decider, approval: Id) -> Approval:
    """One request: what each of its calls would do, and what was decided."""
    return Approval.of(await running.desk.get(person, approval))


@router.post("/v1/approvals/{approval}/approve", responses=described(403, 404, 409))
@act("approvals.decide")
async def approve(running: GatewayOf, person: Decider, approval: Id, body: Decision | None = None) -> Approval:
    """Let the calls go out, all or those that are named; the others are refused by the same decision.

    Nothing happens, and the answer says why, where somebody has decided before (409), the request has expired (409), or
    the session that asks is the caller's own (403).
    """
    said = body or Decision()
    done = await running.desk.approve(person, approval, calls=said.calls, note=said.note)
    await running.audit.note_if_possible(person.name, done.tenant, "approval.approve", approval)
    return Approval.of(done)


@router.post("/v1/approvals/{approval}/deny", responses=described(403, 404, 409))
@act("approvals.decide")
async def deny(running: GatewayOf, person: Decider, approval: Id, body: Denial | None = None) -> Approval:
    """Refuse all calls of the request: each raises `ApprovalDenied` in its cell, with the note."""
    done = await running.desk.deny(person, approval, note=(body or Denial()).note)
    await running.audit.note_if_possible(person.name, done.tenant, "approval.deny", approval)
    return Approval.of(done)


@router.get("/v1/calls", responses=described(403))
@act("approvals.look")
async def list_writes(
    running: GatewayOf, person: Decider, tenant: str | None = None, session: str | None = None, limit: Limit = 100
) -> list[Write]:
    """Writes that sessions have made, the newest first."""
    check_decider(person, tenant)
    return [Write.of(each) for each in await running.reverts.find(person, tenant=tenant, session=session, limit=limit)]


@router.post("/v1/calls/{call}/revert", responses=described(403, 404, 409, 502))
@act("approvals.decide")
async def revert(running: GatewayOf, person: Decider, call: CallId) -> Write:
    """Take back what a call has done, by the tool that undoes it; once, whoever else asks for it."""
    done = await running.reverts.revert(person, call)
    await running.audit.note_if_possible(person.name, done.tenant, "call.revert", f"{call} ({done.tool})")
    return Write.of(done)


async def _watch(running: Gateway, caller: Principal, person: Person, stream: Events) -> None:
    """By looking: a decision may come from any gateway. Ends when the caller's token does."""
    known: dict[str, str] = {}
    while await running.identity.still(caller):
        waiting = {each.id: each for each in await running.desk.find(person, state="pending", limit=1000)}
        for id in [id for id in known if id not in waiting]:
            del known[id]
            await _tell(stream, Approval.of(await running.desk.get(person, id)))
        for id in reversed(waiting):
            if id not in known:
                known[id] = "pending"
                await _tell(stream, Approval.of(waiting[id]))
        await asyncio.sleep(running.settings.approvals.look_s)


async def _tell(stream: Events, approval: Approval) -> None:
    await stream.send(Event("approval", approval.model_dump(mode="json")))
