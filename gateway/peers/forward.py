"""A request brought to the gateway that has its session, and the answer back: HTTP, event streams, websockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
import structlog
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from gateway.auth import Principal

from .body import Body
from .owners import Owner
from .passes import HEADER, Passes

log = structlog.get_logger(__name__)

#: Of one connection, not of the request (RFC 9110, 7.6.1); and what is the client's own business with this gateway.
_HOP = {"connection", "keep-alive", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade"}
_NOT_PASSED = _HOP | {"proxy-authorization", "host", "authorization", "cookie", "content-length"}
_NOT_BACK = _HOP | {"set-cookie", "date", "server"}
#: Close codes that say that none came; and the one of a service that is started again.
_NONE = (1005, 1006)
_RESTART, _GONE = 1012, "the gateway that has the kernel is gone; connect again"

Gone = Callable[[], Awaitable[None]]


class Unreachable(Exception):
    """The other gateway cannot be connected to; nothing of the request was sent."""


def target_of(scope: Scope) -> str:
    """Path and query of a request, as a pass names it: without the client's token."""
    path = scope.get("raw_path") or scope["path"].encode()
    text = path.decode("latin-1").partition("?")[0]
    if text.startswith("/token/"):  # for clients that can say their token nowhere else
        text = "/" + text.removeprefix("/token/").partition("/")[2]
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    query = urlencode([(name, value) for name, value in pairs if name != "token"])
    return f"{text}?{query}" if query else text


class Forwarder:
    """Brings requests to other gateways."""

    def __init__(self, passes: Passes, connect_s: float) -> None:
        self._passes = passes
        self._connect_s = connect_s
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        timeout = httpx.Timeout(None, connect=connect_s)
        self._http = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False, follow_redirects=False)

    async def close(self) -> None:
        await self._http.aclose()

    async def http(
        self, owner: Owner, caller: Principal, scope: Scope, body: Body, receive: Receive, send: Send, gone: Gone
    ) -> None:
        """One request to its end, or to the client's. `gone`: returns when the other gateway's lease is over.

        Raises:
            Unreachable: there is no answer, and will be none: what the gateway does with the request is refused.
            ClientGone: in the middle of the body.
        """
        target, method = target_of(scope), scope["method"]
        headers = [(name, value) for name, value in scope["headers"] if _passes_on(name)]
        headers.append((HEADER.encode(), self._passes.make(caller, owner.gateway, method, target).encode()))
        request = self._http.build_request(method, owner.url + target, headers=headers, content=body.content)
        asking = asyncio.create_task(self._http.send(request, stream=True))
        await _first(asking, _disconnected(receive, body), gone())
        if not asking.done():
            await _ended(asking)
            raise Unreachable("it does not answer")
        try:
            response = asking.result()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(str(error)) from error
        try:
            answering = asyncio.create_task(_send_on(response, send))
            await _first(answering, _disconnected(receive, body), gone())
            if not answering.done():
                await _ended(answering)
            elif (broken := answering.exception()) is not None:
                raise broken  # what was sent cannot be taken back: the connection breaks, as the other one did
        finally:
            await response.aclose()

    async def websocket(
        self, owner: Owner, caller: Principal, scope: Scope, receive: Receive, send: Send, gone: Gone
    ) -> None:
        """One connection to its end. Raises Unreachable."""
        target = target_of(scope)
        url = owner.url.replace("http", "ws", 1) + target
        offered = [Subprotocol(each) for each in scope.get("subprotocols", ())]
        try:
            upstream = await connect(
                url,
                additional_headers={HEADER: self._passes.make(caller, owner.gateway, "GET", target)},
                subprotocols=offered or None,
                max_size=None,
                compression=None,
                ping_interval=None,
                open_timeout=self._connect_s,
                user_agent_header=None,
                proxy=None,
            )
        except InvalidStatus as error:
            await _deny(error, receive, send)
            return
        except (OSError, TimeoutError, InvalidHandshake) as error:
            raise Unreachable(str(error)) from error
        try:
            await receive()  # websocket.connect
            await send({"type": "websocket.accept", "subprotocol": upstream.subprotocol, "headers": []})
            back = asyncio.create_task(_down(upstream, send))
            await _first(back, _up(upstream, receive), gone())
            if not back.done():
                await _ended(back)
                with contextlib.suppress(RuntimeError, OSError):
                    await send({"type": "websocket.close", "code": _RESTART, "reason": _GONE})
        finally:
            await upstream.close()


async def _first(work: asyncio.Task[Any], *others: Awaitable[None]) -> None:
    """Wait for the first of them to end; the others than `work` are over then."""
    beside = [asyncio.ensure_future(each) for each in others]
    try:
        await asyncio.wait((work, *beside), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in beside:
            each.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


async def _ended(work: asyncio.Task[Any]) -> None:
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def _passes_on(name: bytes) -> bool:
    text = name.decode("latin-1").lower()
    return text not in _NOT_PASSED and text != HEADER and not text.startswith("x-forwarded")


async def _send_on(response: httpx.Response, send: Send) -> None:
    headers = [(name, value) for name, value in response.headers.raw if name.decode("latin-1").lower() not in _NOT_BACK]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    async for chunk in response.aiter_raw():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive, body: Body) -> None:
    await body.gone_on()  # until then it is the body that comes
    while (await receive())["type"] != "http.disconnect":
        continue


async def _up(upstream: ClientConnection, receive: Receive) -> None:
    """What the client sends; a close with its code."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or 1000
            await upstream.close(1000 if code in _NONE else code)
            return
        data = message.get("text")
        with contextlib.suppress(ConnectionClosed):
            await upstream.send(message["bytes"] if data is None else data)


async def _down(upstream: ClientConnection, send: Send) -> None:
    """What the gateway there sends; a close with its code and reason."""
    code, reason = _RESTART, _GONE
    try:
        while True:
            data = await upstream.recv()
            kind = "text" if isinstance(data, str) else "bytes"
            await send({"type": "websocket.send", kind: data})
    except ConnectionClosed as closed:
        if closed.rcvd is not None:
            code, reason = closed.rcvd.code, closed.rcvd.reason
    with contextlib.suppress(RuntimeError, OSError):
        await send({"type": "websocket.close", "code": code, "reason": reason})


async def _deny(error: InvalidStatus, receive: Receive, send: Send) -> None:
    await receive()
    answer = error.response
    headers = [
        (name.lower().encode(), value.encode())
        for name, value in answer.headers.raw_items()
        if name.lower() == "content-type"
    ]
    start: Message = {"type": "websocket.http.response.start", "status": answer.status_code, "headers": headers}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": bytes(answer.body or b""), "more_body": False})
