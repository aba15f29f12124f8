"""What every request passes first: its id, its place among those under way, and what is told of it afterwards.

ASGI, around the whole application. What is logged, counted and traced is the route's template, never the address:
addresses have tokens in them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from gateway.operations.request_ids import HEADER, request_id
from gateway.routes.problems import Problem, respond
from gateway.tracing import Span, span, tracing_by

if TYPE_CHECKING:
    from gateway.runtime import Gateway

log = structlog.get_logger(__name__)

#: Answered whatever the load: who watches the gateway is to see it.
WATCHED = frozenset({"/healthz", "/readyz", "/metrics"})
#: Begin nothing new.
_LOOKS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
#: Headers by which a client's span is the parent of ours.
_TRACE = frozenset({b"traceparent", b"tracestate"})
#: In the address of an event stream or websocket these are what it is about; all others are not logged.
_ABOUT = ("session", "kernel", "cell", "tenant", "approval")


@dataclass
class Entrance:
    """Of one gateway."""

    app: ASGIApp
    gateway: Gateway
    requests: int = 0
    sockets: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        secrets = b" ".join((headers.get(b"authorization", b""), scope["query_string"], scope.get("raw_path") or b""))
        id = request_id(headers.get(HEADER, b""), secrets)
        clear_contextvars()
        bind_contextvars(request_id=id)
        serve = self._http if scope["type"] == "http" else self._websocket
        await serve(scope, receive, _with_header(send, id))

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        watched = scope["path"] in WATCHED
        refusal = None if watched else self._refusal(scope)
        if refusal is not None:
            await respond(refusal)(scope, receive, send)
            return
        begun, status = time.monotonic(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        metrics = self.gateway.metrics
        self.requests += not watched
        metrics.under_way.set(self.requests)
        try:
            with tracing_by(None if watched else self.gateway.tracer), self._span(scope) as made:
                try:
                    await self.app(scope, receive, told)
                finally:
                    made.named(f"{scope['method']} {route_of(scope)}".strip())
                    made.set(http__route=route_of(scope), http__response__status_code=status)
                    if status >= 500:
                        made.failed()
        finally:
            self.requests -= not watched
            metrics.under_way.set(self.requests)
            took, route = time.monotonic() - begun, route_of(scope)
            metrics.request(scope["method"], route, status, took)
            tell = log.debug if watched else log.info
            tell(
                "request", method=scope["method"], route=route, status=status, ms=round(took * 1000, 1), **about(scope)
            )

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings, metrics = self.gateway.settings.server, self.gateway.metrics
        refusal = self._stopping()
        if refusal is None and self.sockets >= settings.websockets:
            metrics.refused.labels("busy").inc()
            refusal = _busy(f"{self.sockets} websockets are open (server.websockets).")
        if refusal is not None:
            await _deny(respond(refusal), scope, receive, send)
            return
        begun, code = time.monotonic(), 0

        async def told(message: Message) -> None:
            nonlocal code
            if message["type"] == "websocket.close":
                code = int(message.get("code") or 1000)
            await send(message)

        async def heard() -> Message:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = code or int(message.get("code") or 1005)
            return message

        self.sockets += 1
        metrics.websockets.set(self.sockets)
        try:
            with tracing_by(self.gateway.tracer):
                await self.app(scope, heard, told)
        finally:
            self.sockets -= 1
            metrics.websockets.set(self.sockets)
            metrics.closed.labels(_code(code)).inc()
            seconds = round(time.monotonic() - begun, 3)
            log.info("websocket ended", route=route_of(scope), code=code, seconds=seconds, **about(scope))

    @contextmanager
    def _span(self, scope: Scope) -> Iterator[Span]:
        carrier = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _TRACE}
        with span(scope["method"], kind="server", carrier=carrier) as made:
            made.set(http__request__method=scope["method"], omniops__request=get_contextvars().get("request_id", ""))
            if made.trace:
                bind_contextvars(trace_id=made.trace)
            yield made

    # -- who may come in --

    def _refusal(self, scope: Scope) -> Problem | None:
        stopping = None if scope["method"] in _LOOKS or scope["path"].endswith("/interrupt") else self._stopping()
        most = self.gateway.settings.server.requests
        if stopping is None and self.requests >= most:
            self.gateway.metrics.refused.labels("busy").inc()
            return _busy(f"{self.requests} requests are under way (server.requests).")
        return stopping

    def _stopping(self) -> Problem | None:
        if not self.gateway.drain.begun:
            return None
        self.gateway.metrics.refused.labels("stopping").inc()
        hint = "Send it again in a moment: to another gateway, or to the one that starts here."
        return Problem(status=503, code="stopping", message="The gateway is stopping: it takes no new work.", hint=hint)


def route_of(scope: Scope) -> str:
    """The template that the request's address fitted; "" for none."""
    path = getattr(scope.get("route"), "path_format", None) or getattr(scope.get("route"), "path", "")
    return str(path)


def about(scope: Scope) -> dict[str, str]:
    """What a request is about, by its address: ids that have passed a route's own checks, or failed them."""
    found: dict[str, Any] = scope.get("path_params") or {}
    return {name: str(found[name])[:64] for name in _ABOUT if name in found and str(found[name]).isprintable()}


def _busy(why: str) -> Problem:
    hint = "Send it again after Retry-After seconds; or raise the limit, or add a gateway."
    return Problem(status=503, code="busy", message=f"The gateway has all that it can do: {why}", hint=hint)


def _code(code: int) -> str:
    """As a label: clients may send any number."""
    return str(code) if 1000 <= code <= 1015 else "none" if code == 0 else "other"


def _with_header(send: Send, id: str) -> Callable[[Message], Awaitable[None]]:
    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
            message["headers"] = [*message.get("headers", ()), (HEADER, id.encode())]
        await send(message)

    return sending


async def _deny(response: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a handshake as a request."""

    async def denied(message: Message) -> None:
        await send({**message, "type": message["type"].replace("http.", "websocket.http.", 1)})

    await response({**scope, "type": "http", "method": "GET"}, receive, denied)
