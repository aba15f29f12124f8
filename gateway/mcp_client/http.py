"""The HTTP transports: streamable HTTP, and the SSE that came before it where an endpoint knows no better.

The SDK turns a refusal into one and the same error; what the endpoint really answered is noted on the way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from gateway.settings import McpSettings

from .problems import NeedsLogin, Unusable
from .transports import Http

#: An open stream without any event is opened again after this time, in seconds.
_STREAM_S = 300.0


@dataclass
class Answers:
    """What an endpoint answered, to a call or while a connection was made: its last refusal."""

    status: int = 0
    retry_after: str = ""

    def problem(self) -> Unusable | None:
        """What the refusal means, if there was one."""
        if self.status == 401:
            return NeedsLogin("it wants a login (401)")
        if self.status == 403:
            return NeedsLogin("it refuses this login (403)")
        if self.status == 429:
            problem = Unusable("it asks to wait (429)")
            problem.retry_s = self._retry_s
            return problem
        if self.status:
            return Unusable(f"it answers with status {self.status}")
        return None

    @property
    def _retry_s(self) -> float:
        """In seconds; where it names a date, or nothing, the usual pause has to do."""
        return float(self.retry_after) if self.retry_after.isascii() and self.retry_after.isdigit() else 0.0

    @property
    def unknown_method(self) -> bool:
        """As an endpoint answers that has only SSE, by the specification's section on backwards compatibility."""
        return self.status in (400, 404, 405, 406, 415)


#: Where the answers to requests are noted that this task, or one started by it, sends.
answers_here: ContextVar[Answers] = ContextVar("answers_here")


async def _note(response: httpx2.Response) -> None:
    answers = answers_here.get(None)
    if answers is None or (response.request.method == "GET" and response.status_code == 405):
        return  # 405: an endpoint that has nothing to tell unasked
    answers.status = response.status_code if response.status_code >= 400 else 0
    answers.retry_after = response.headers.get("retry-after", "")[:20] if answers.status else ""


@asynccontextmanager
async def http_transport(config: Http, settings: McpSettings) -> AsyncIterator[TransportStreams]:
    """Streamable HTTP."""
    most = settings.message_mb * 1024 * 1024
    async with (
        _client(config, settings) as client,
        streamable_http_client(config.url, http_client=client, max_sse_event_size=most) as streams,
    ):
        yield streams


@asynccontextmanager
async def sse_transport(config: Http, settings: McpSettings) -> AsyncIterator[TransportStreams]:
    """HTTP with SSE, as of the protocol's version 2024-11-05."""

    def client(
        headers: dict[str, str] | None = None, timeout: httpx2.Timeout | None = None, auth: httpx2.Auth | None = None
    ) -> httpx2.AsyncClient:
        return _client(config, settings)

    async with sse_client(config.url, httpx_client_factory=client) as streams:
        yield streams


def _client(config: Http, settings: McpSettings) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        headers=dict(config.headers),
        timeout=httpx2.Timeout(settings.connect_s, read=_STREAM_S),
        event_hooks={"response": [_note]},
        transport=_Bounded(settings.message_mb * 1024 * 1024),
    )


class _Bounded(httpx2.AsyncHTTPTransport):
    """Answers over `most` bytes end with an error. Streams of events are bounded event by event instead."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _BoundedStream(response.stream, self._most)
        return response


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._most:
                raise httpx2.StreamError("a message over the limit (mcp.message_mb)")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
