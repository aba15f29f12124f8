"""A turn as server-sent chunks, ended by `[DONE]`, with signs of life while the agent works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.agent.types import TurnResult
from gateway.completions.answers import Head, Spoken, chunk, finish_of, text_of, usage_chunk
from gateway.completions.errors import error_of
from gateway.routes.events import HEADERS, Events
from gateway.routes.problems import Problem, ProblemError, problem_of
from gateway.types import Event

_DONE = b"data: [DONE]\n\n"

#: Told the words that the client was sent, when the turn has ended well, before the client knows that it has.
Ended = Callable[[str], Awaitable[None]]


class CompletionStream(StreamingResponse):
    """The turn of `task`, whose events go to `events`. A client that goes away ends the turn."""

    media_type = "text/event-stream"

    def __init__(
        self,
        task: asyncio.Task[TurnResult],
        events: Events,
        head: Head,
        *,
        live: bool,
        tells_usage: bool,
        heartbeat_s: float,
        ended: Ended,
        headers: dict[str, str],
    ) -> None:
        super().__init__(self._stream(), headers={**HEADERS, **headers})
        self._task = task
        self._events = events
        self._head = head
        self._spoken = Spoken(live=live)
        self._tells_usage = tells_usage
        self._heartbeat_s = heartbeat_s
        self._ended = ended
        task.add_done_callback(lambda _: events.end())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._task.cancel()

    async def _stream(self) -> AsyncIterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})
        async for event in self._events.told(self._heartbeat_s):
            if event is None:
                yield KEEPALIVE_COMMENT
            elif text := self._text(event):
                yield self._chunk({"content": text})
        try:
            result = await self._task
            finish = finish_of(result)
            if finish is None:
                raise failed(result)
            if rest := self._spoken.answer(text_of(result)):
                yield self._chunk({"content": rest})
            await self._ended(self._spoken.said)
        except Exception as error:  # noqa: BLE001 - the boundary: it is logged, and told under a reference
            _, told = error_of(problem_of(error))
            yield _wire(told.model_dump())
            return
        yield _wire(chunk(self._head, {}, finish, tells_usage=self._tells_usage))
        if self._tells_usage:
            yield _wire(usage_chunk(self._head, result.tokens))
        yield _DONE

    def _text(self, event: Event) -> str:
        data = event.data
        if event.kind == "text":
            return self._spoken.words(data["step"], data["attempt"], data["text"])
        return self._spoken.answer(data["text"]) if event.kind == "answer" else ""

    def _chunk(self, delta: dict[str, str]) -> bytes:
        return _wire(chunk(self._head, delta, None, tells_usage=self._tells_usage))


def failed(result: TurnResult) -> ProblemError:
    """A turn without an answer, as an error. It has been paid for, and may have changed something."""
    problem = Problem(status=502, code=f"turn_{result.reason}", message=result.message or "The turn was cancelled.")
    return ProblemError(problem.status, problem.code, problem.message)


def _wire(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
