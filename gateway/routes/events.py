"""Server-sent events of one task (a cell, a turn), with signs of life in between.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.routes.problems import problem_of
from gateway.transcripts.clean import clean_json
from gateway.types import Event

#: Of every such stream.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Events:
    """What a task tells while it runs. `send` is an EventSink that never waits.

    Texts that a client does not read are held up to `most` characters; then further ones are left out, and the next
    that is sent says so. What ends the stream has the whole all the same.
    """

    def __init__(self, most: int) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._most = most
        self._waiting = self._left_out = 0

    async def send(self, event: Event) -> None:
        size = _size(event)
        if size and self._waiting + size > self._most:
            self._left_out += size
            return
        if self._left_out:
            text = f"\n[{self._left_out:,} characters were not read in time]\n"
            self._left_out = 0
            self._queue.put_nowait(Event("output", {"text": text}))
        self._waiting += size
        self._queue.put_nowait(event)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def next(self, patience_s: float) -> Event | None:
        """None at the end. Raises TimeoutError."""
        async with asyncio.timeout(patience_s):
            event = await self._queue.get()
        self._waiting -= _size(event) if event is not None else 0
        return event

    async def told(self, heartbeat_s: float) -> AsyncIterator[Event | None]:
        """All of them until the end; None for each time that nothing came for so long, seconds."""
        while True:
            try:
                event = await self.next(heartbeat_s)
            except TimeoutError:
                yield None
                continue
            if event is None:
                return
            yield event


class EventResponse(StreamingResponse):
    """The events of `task`, until it is done; its failure is an "error" event.

    A client that goes away ends the response; with `owned` the task is cancelled then, else it goes on.
    """

    media_type = "text/event-stream"

    def __init__(self, task: asyncio.Task[Any], events: Events, *, heartbeat_s: float, owned: bool) -> None:
        super().__init__(self._stream(), headers=HEADERS)
        self._task = task
        self._events = events
        self._heartbeat_s = heartbeat_s
        self._owned = owned
        task.add_done_callback(lambda _: events.end())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._owned:
                self._task.cancel()

    async def _stream(self) -> AsyncIterator[bytes]:
        async for event in self._events.told(self._heartbeat_s):
            yield KEEPALIVE_COMMENT if event is None else _wire(event)
        error = None if self._task.cancelled() else self._task.exception()
        if isinstance(error, Exception):
            yield _wire(Event("error", problem_of(error).model_dump()))


def _size(event: Event) -> int:
    """Characters of a text that may be left out; 0 for what may not."""
    return len(event.data.get("text", "")) if event.kind in ("output", "text") else 0


def _wire(event: Event) -> bytes:
    data = msgspec.json.encode(clean_json(event.data)).decode()
    return format_sse_event(event=event.kind, data_str=data, id=event.id or None)
