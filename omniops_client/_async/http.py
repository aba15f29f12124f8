"""Requests over one pool of connections, sent again where that helps and does no harm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx
from httpx_sse import EventSource, ServerSentEvent
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from omniops_client import core
from omniops_client.core import EVENT_STREAM, Options
from omniops_client.errors import error_of
from omniops_client.requests import Request

T = TypeVar("T")


class AsyncHttp:
    def __init__(self, options: Options, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Raises BadAnswer: the address or the token cannot be."""
        self.options = options
        with core.problems(options.url):
            self._http = httpx.AsyncClient(
                base_url=options.url,
                headers=options.headers(),
                timeout=options.timeout(),
                transport=transport,
                trust_env=False,
            )

    async def close(self) -> None:
        await self._http.aclose()

    async def call(self, request: Request[T]) -> T:
        """The answer. Raises OmniopsError."""
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(1 + self.options.retries),
            wait=core.wait,
            retry=retry_if_exception(lambda error: core.may_repeat(error, request.repeatable)),
            reraise=True,
        ):
            with attempt:
                return await self._once(request)
        raise AssertionError("unreachable: tenacity returns or raises")

    async def _once(self, request: Request[T]) -> T:
        url, timeout = self.options.url, self.options.timeout(request.silence_s)
        with core.problems(url):
            answer = await self._http.request(request.method, request.path, timeout=timeout, **core.content_of(request))
        return core.read(request, answer.status_code, answer.headers, answer.content, url)

    async def upload(self, request: Request[T], content: bytes | AsyncIterator[bytes]) -> T:
        """Send a body as it comes, once. Raises OmniopsError."""
        url, told = self.options.url, core.content_of(request)
        told["content"] = content
        with core.problems(url):
            answer = await self._http.request(request.method, request.path, **told)
        return core.read(request, answer.status_code, answer.headers, answer.content, url)

    async def download(self, request: Request[bytes]) -> AsyncIterator[bytes]:
        """An answer by pieces. Raises OmniopsError."""
        url, told = self.options.url, core.content_of(request)
        with core.problems(url):
            async with self._http.stream(request.method, request.path, **told) as answer:
                if answer.status_code >= 300:
                    core.read(request, answer.status_code, answer.headers, await answer.aread(), url)
                async for piece in answer.aiter_bytes():
                    yield piece

    @asynccontextmanager
    async def events(
        self, request: Request[T], silence_s: float | None = 60.0
    ) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
        """The events of one attempt. Raises OmniopsError, also while they are read."""
        url, told = self.options.url, core.content_of(request)
        told["headers"] |= {"Accept": EVENT_STREAM, "Cache-Control": "no-store"}
        timeout = self.options.timeout(silence_s)
        with core.problems(url):
            async with self._http.stream(request.method, request.path, timeout=timeout, **told) as answer:
                if answer.status_code >= 300:
                    retry_after = answer.headers.get("retry-after", "")
                    raise error_of(answer.status_code, await answer.aread(), url=url, retry_after=retry_after)
                yield _told(EventSource(answer).aiter_sse())


async def _told(events: AsyncIterator[ServerSentEvent]) -> AsyncIterator[ServerSentEvent]:
    """Without those that say nothing: httpx-sse makes one of each sign of life that comes after an event with an id."""
    async for event in events:
        if event.data:
            yield event
