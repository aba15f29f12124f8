"""`/v1/chat/completions` and `/v1/models` as OpenAI has them: a tenant's agent for existing chat front ends."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response

from gateway.acts import act
from gateway.agent.types import TurnResult
from gateway.auth import Principal
from gateway.completions.answers import Completion, Head, Model, Models, completion_of, finish_of
from gateway.completions.conversations import Conversations, Scope, untrusted
from gateway.completions.errors import OpenAiErrors, refuse
from gateway.completions.requests import Asked, BadRequest, CompletionRequest, conversation_id, read_request
from gateway.completions.stream import CompletionStream, failed
from gateway.peers.bring import Brought, other_owner
from gateway.routes.access import Caller, GatewayOf
from gateway.routes.events import Events
from gateway.routes.problems import Problem, ProblemError, problem_of
from gateway.runtime import Gateway
from gateway.session_rows import SessionInfo

_DAY_S = 86_400

router = APIRouter(tags=["chat completions"])

#: The turn has been paid for, and may have changed something: clients must not send it again by themselves.
_NO_RETRY = {"X-Should-Retry": "false"}


def _described(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {
        status: {"model": OpenAiErrors, "description": HTTPStatus(status).phrase}
        for status in sorted({*statuses, 400, 401, 403, 413, 422, 500})
    }


@router.get("/v1/models", responses=_described())
@act("about")
async def list_models(running: GatewayOf, caller: Caller) -> Models:
    """The agents that the key reaches: one per tenant."""
    return Models(data=[_model(running, name) for name in sorted(running.settings.tenants) if caller.may_reach(name)])


@router.get("/v1/models/{model}", responses=_described(404))
@act("about")
async def get_model(running: GatewayOf, caller: Caller, model: Annotated[str, Path(max_length=256)]) -> Model:
    """One agent."""
    return _model(running, _tenant(running, caller, model))


@router.post(
    "/v1/chat/completions",
    response_model=Completion,
    responses={
        **_described(404, 429, 502, 503),
        200: {"model": Completion, "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    },
)
@act("chat")
async def complete(
    running: GatewayOf,
    caller: Caller,
    request: Request,
    body: CompletionRequest,
    x_omniops_customer: Annotated[
        int | None, Header(ge=1, le=2**62, description="The store's id of a customer who is verified already.")
    ] = None,
) -> Response:
    """Put the last message to a tenant's agent; the conversation goes on where the gateway's own record of it ends.

    A client that goes away ends the turn. The header `X-Omniops-Session` names the session, whose transcript has all.
    """
    try:
        asked = read_request(body)
    except BadRequest as error:
        return refuse(Problem(status=400, code=error.code, message=str(error)), error.param)
    tenant = _tenant(running, caller, body.model)
    running.chat.require()
    scope = Scope(tenant, caller.name, body.user or "", x_omniops_customer)
    conversations = Conversations(running.database, running.settings.chat_api.remember_days * _DAY_S)
    session, before = await _session(running, conversations, scope, _conversation(running, request, body), asked)
    if await other_owner(running, session.id) is not None:
        return Brought(running, session.id, caller, await request.body())
    events, head = Events(running.settings.server.unread_mb * 2**20), Head.new(body.model)
    task = await running.chat.start(session, asked.message, events.send, before=before)
    headers = {"X-Omniops-Session": session.id}

    async def ended(said: str) -> None:
        await conversations.note(session.id, asked.before, asked.message, said)

    if asked.streams:
        return CompletionStream(
            task,
            events,
            head,
            live=running.settings.chat_api.live_words,
            tells_usage=asked.tells_usage,
            heartbeat_s=running.settings.server.heartbeat_s,
            ended=ended,
            headers=headers,
        )
    try:
        result = await _unless_gone(request, task)
        finish = finish_of(result)
        if finish is None:
            raise failed(result)
        completion = completion_of(head, result, finish)
        await ended(completion.choices[0].message.content)
    except Exception as error:  # noqa: BLE001 - the boundary: it is logged, and told under a reference
        return refuse(problem_of(error), headers=headers | _NO_RETRY)
    return Response(completion.model_dump_json(), media_type="application/json", headers=headers)


async def _session(
    running: Gateway, conversations: Conversations, scope: Scope, id: str, asked: Asked
) -> tuple[SessionInfo, str]:
    """The conversation's session, and what the model is told of a history that is not on record."""
    known = await conversations.find(scope, id, asked.before)
    if known is not None:
        return await running.sessions.get(known, scope.tenant), ""
    title = asked.message.strip().partition("\n")[0][:80]
    made = await running.sessions.create(
        scope.tenant, scope.principal, "agent", title, customer=scope.customer, kernel=False
    )
    if await conversations.begin(scope, id, made.id):
        return made, untrusted(asked.before, running.settings.chat_api.history_chars)
    await running.sessions.end(made.id)  # another request was quicker
    known = await conversations.find(scope, id, asked.before)
    if known is None:
        raise ProblemError(409, "conversation_ended", "The conversation has ended meanwhile.", "Send it again.")
    return await running.sessions.get(known, scope.tenant), ""


def _conversation(running: Gateway, request: Request, body: CompletionRequest) -> str:
    """The front end's id of the conversation. Who may shape the body alone cannot name what a header names."""
    for name in running.settings.chat_api.conversation_headers:
        if found := conversation_id(request.headers.get(name, "")):
            return f"header:{found}"
    named = (body.metadata or {}).get("conversation")
    found = conversation_id(named) if isinstance(named, str) else ""
    return f"metadata:{found}" if found else ""


def _tenant(running: Gateway, caller: Principal, model: str) -> str:
    """Raises ProblemError (404), whether it is another's or nobody's."""
    if model in running.settings.tenants and caller.may_reach(model):
        return model
    what = f"The model {model[:64]!r} does not exist, or this key does not reach it."
    raise ProblemError(404, "model_not_found", what, "GET /v1/models lists those that it reaches.")


def _model(running: Gateway, tenant: str) -> Model:
    return Model(id=tenant, created=int(running.started.timestamp()))


async def _unless_gone(request: Request, task: asyncio.Task[TurnResult]) -> TurnResult:
    """The turn's result; a client that goes away ends the turn."""
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
        return await task
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
