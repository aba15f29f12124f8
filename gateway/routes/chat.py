"""The agent, for a chat back end."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.acts import act
from gateway.routes.access import Caller, GatewayOf, check_role, check_tenant
from gateway.routes.events import EventResponse, Events
from gateway.routes.models import Answer, NewMessage
from gateway.routes.problems import ProblemError, described
from gateway.routes.sessions import Accept
from gateway.types import Event

router = APIRouter(prefix="/v1/chat", tags=["chat"])


@router.post(
    "",
    response_model=Answer,
    responses={
        **described(403, 404, 409, 429, 503),
        200: {"model": Answer, "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    },
)
@act("chat")
async def chat(running: GatewayOf, caller: Caller, body: NewMessage, accept: Accept = "") -> Answer | EventResponse:
    """Put a customer's message to the agent.

    As an event stream: first `session`, with the id that continues the conversation; then what the agent does, as it
    does it (`text`, `step`, `output`, `call`, `cell`, `fallback`, `error`); then `answer`, where there is one, and
    `end` with the reason, the tokens used, and the tokens that the same tool calls would have cost directly. A client
    that goes away ends the turn.
    """
    check_tenant(running, caller, body.tenant)
    running.chat.require()
    if body.session is not None and body.customer is not None:
        raise ProblemError(422, "bad_request", "customer is for new conversations: a session's customer is pinned.")
    if body.session is None:
        title = body.message.strip().partition("\n")[0][:80]
        session = await running.sessions.create(
            body.tenant, caller.name, "agent", title, customer=body.customer, kernel=False
        )
    else:
        session = await running.sessions.get(body.session, body.tenant)
        check_role(caller, session.role)
    events = Events(running.settings.server.unread_mb * 2**20)
    await events.send(Event("session", {"session": session.id}))
    task = await running.chat.start(session, body.message, events.send, body.mode)
    if "text/event-stream" in accept:
        return EventResponse(task, events, heartbeat_s=running.settings.server.heartbeat_s, owned=True)
    result = await task
    return Answer(
        session=session.id,
        reason=result.reason,
        answer=result.answer,
        message=result.message,
        mode=result.mode,
        seconds=result.seconds,
    )
