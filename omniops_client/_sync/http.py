# Made of omniops_client/_async by `make client`. Do not change it here.
"""Requests over one pool of connections, sent again where that helps and does no harm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
from httpx_sse import EventSource, ServerSentEvent
from tenacity import Retrying, retry_if_exception, stop_after_attempt

from omniops_client import core
from omniops_client.core import EVENT_STREAM, Options
from omniops_client.errors import error_of
from omniops_client.requests import Request

T = TypeVar("T")


class Http:
    def __init__(self, options: Options, transport: httpx.BaseTransport | None = None) -> None:
        """Raises BadAnswer: the address or the token cannot be."""
        self.options = options
        with core.problems(options.url):
            self._http = httpx.Client(
                base_url=options.url,
                headers=options.headers(),
                timeout=options.timeout(),
                transport=transport,
                trust_env=False,
            )

    def close(self) -> None:
        self._http.close()

    def call(self, request: Request[T]) -> T:
        """The answer. Raises OmniopsError."""
        for attempt in Retrying(
            stop=stop_after_attempt(1 + self.options.retries),
            wait=core.wait,
            retry=retry_if_exception(lambda error: core.may_repeat(error, request.repeatable)),
            reraise=True,
        ):
            with attempt:
                return self._once(request)
        raise AssertionError("unreachable: tenacity returns or raises")

    def _once(self, request: Request[T]) -> T:
        url, timeout = self.options.url, self.options.timeout(request.silence_s)
        with core.problems(url):
            answer = self._http.request(request.method, request.path, timeout=timeout, **core.content_of(request))
        return core.read(request, answer.status_code, answer.headers, answer.content, url)

    def upload(self, request: Request[T], content: bytes | Iterator[bytes]) -> T:
        """Send a body as it comes, once. Raises OmniopsError."""
        url, told = self.options.url, core.content_of(request)
        told["content"] = content
        with core.problems(url):
            answer = self._http.request(request.method, request.path, **told)
        return core.read(request, answer.status_code, answer.headers, answer.content, url)

    def download(self, request: Request[bytes]) -> Iterator[bytes]:
        """An answer by pieces. Raises OmniopsError."""
        url, told = self.options.url, core.content_of(request)
        with core.problems(url):
            with self._http.stream(request.method, request.path, **told) as answer:
                if answer.status_code >= 300:
                    core.read(request, answer.status_code, answer.headers, answer.read(), url)
                for piece in answer.iter_bytes():
                    yield piece

    @contextmanager
    def events(self, request: Request[T], silence_s: float | None = 60.0) -> Iterator[Iterator[ServerSentEvent]]:
        """The events of one attempt. Raises OmniopsError, also while they are read."""
        url, told = self.options.url, core.content_of(request)
        told["headers"] |= {"Accept": EVENT_STREAM, "Cache-Control": "no-store"}
        timeout = self.options.timeout(silence_s)
        with core.problems(url):
            with self._http.stream(request.method, request.path, timeout=timeout, **told) as answer:
                if answer.status_code >= 300:
                    retry_after = answer.headers.get("retry-after", "")
                    raise error_of(answer.status_code, answer.read(), url=url, retry_after=retry_after)
                yield _told(EventSource(answer).iter_sse())


def _told(events: Iterator[ServerSentEvent]) -> Iterator[ServerSentEvent]:
    """Without those that say nothing: httpx-sse makes one of each sign of life that comes after an event with an id."""
    for event in events:
        if event.data:
            yield event
