"""The gateway's HTTP interface, as the MCP server asks it: over the network, or inside the gateway's own process.

All that an MCP client does goes through the same routes, with the client's own key, as what everybody else does: their
walls are its walls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError
from starlette.types import ASGIApp, Message

from gateway.types import Event

_CONNECT_S = 5.0


class ApiError(Exception):
    """The gateway refused, or cannot be reached. The message is for people; `code` is the problem's."""

    def __init__(self, message: str, code: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Api:
    """What one caller asks of a gateway."""

    def __init__(self, http: httpx.AsyncClient, token: str) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}

    async def get(self, path: str, params: Mapping[str, str | int | None] | None = None) -> Any:
        """The JSON answer. Raises ApiError."""
        return (await self._ask("GET", path, params=params)).json()

    async def text(self, path: str, params: Mapping[str, str | int | None], most: int) -> str:
        """The answer as text, of at most so many bytes. Raises ApiError."""
        with _problems():
            async with self._http.stream("GET", path, params=_given(params), headers=self._headers) as response:
                await _check(response)
                parts, size = [], 0
                async for part in response.aiter_bytes():
                    size += len(part)
                    if size > most:
                        raise ApiError(f"It is larger than {most:,} bytes: fetch it over HTTP.", "too_large", 413)
                    parts.append(part)
        return b"".join(parts).decode(errors="replace")

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON answer. Raises ApiError."""
        return (await self._ask("POST", path, json=body)).json()

    async def delete(self, path: str) -> None:
        """Raises ApiError."""
        await self._ask("DELETE", path)

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Event]:
        """The events of a request, as they come. Raises ApiError."""
        headers = self._headers | {"Accept": "text/event-stream"}
        with _problems():
            async with self._http.stream("POST", path, json=body, headers=headers) as response:
                await _check(response)
                async for event in EventSource(response).aiter_sse():
                    if not event.data:  # a sign of life, which has the id of the event before it
                        continue
                    yield Event(event.event, event.json())  # type: ignore[arg-type]

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | None] | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        with _problems():
            response = await self._http.request(
                method, path, params=_given(params or {}), json=json, headers=self._headers
            )
            await _check(response)
            return response


@asynccontextmanager
async def inside(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this process."""
    async with httpx.AsyncClient(transport=_Inside(app), base_url="http://gateway", timeout=None) as http:  # noqa: S113 - cells have deadlines
        yield http


@asynccontextmanager
async def over_network(url: str, *, silence_s: float) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway elsewhere; `silence_s`: its longest silence. Raises ApiError."""
    timeout = httpx.Timeout(silence_s, connect=_CONNECT_S)
    try:
        made = httpx.AsyncClient(base_url=url, timeout=timeout, trust_env=False)
    except httpx.InvalidURL:
        raise ApiError(f"{url!r} is no address of a gateway. Wanted: http://HOST:PORT") from None
    async with made as http:
        yield http


class _Inside(httpx.AsyncBaseTransport):
    """Requests to an ASGI application, answers as they come: httpx's own transport hands them over at their end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        body = b"".join([part async for part in request.stream])
        answer = _Answer(self._app, request, body)
        return await answer.begin()


class _Answer(httpx.AsyncByteStream):
    """The application at work on one request; its task ends with the answer, or when nobody reads on."""

    def __init__(self, app: ASGIApp, request: httpx.Request, body: bytes) -> None:
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(key.lower(), value) for key, value in request.headers.raw],
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "root_path": "",
            "server": (request.url.host, request.url.port),
            "client": None,
        }
        self._app = app
        self._request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._gone = asyncio.Event()
        #: At most one part waits: who does not read holds the application up.
        self._parts: asyncio.Queue[Message] = asyncio.Queue(1)
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> httpx.Response:
        self._task = asyncio.create_task(self._run())
        try:
            start = await self._next()
        except BaseException:
            await self.aclose()
            raise
        return httpx.Response(start["status"], headers=start["headers"], stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._next()
            more = message.get("more_body", False)
            if body := message.get("body", b""):
                yield body

    async def aclose(self) -> None:
        self._gone.set()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        await self._app(self._scope, self._receive, self._parts.put)

    async def _receive(self) -> Message:
        if self._request:
            return self._request.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _next(self) -> Message:
        assert self._task is not None
        part = asyncio.ensure_future(self._parts.get())
        try:
            await asyncio.wait({part, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if part.done():
                return part.result()
            if not self._parts.empty():
                return self._parts.get_nowait()
        finally:
            part.cancel()
        raise httpx.RemoteProtocolError("the gateway broke off")


class _problems:
    """What goes wrong on the way, in words for people."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case httpx.ConnectError():
                raise ApiError("No gateway answers there. Start one: omniops serve", "unreachable") from None
            case httpx.TimeoutException():
                raise ApiError("The gateway was silent for too long.", "unreachable") from None
            case httpx.HTTPError() | SSEError():
                raise ApiError(f"The connection to the gateway failed: {error}", "unreachable") from None
            case ValueError():
                raise ApiError("What answers there is no omniops gateway.", "unreachable") from None


async def _check(response: httpx.Response) -> None:
    if not response.is_error:
        return
    await response.aread()
    try:
        problem = response.json()
        told = " ".join(str(problem[name]) for name in ("message", "hint") if problem.get(name))
        code = str(problem["code"])
    except (ValueError, KeyError, TypeError, AttributeError):
        told, code = f"The gateway answered {response.status_code}.", ""
    raise ApiError(told, code, response.status_code)


def _given(params: Mapping[str, str | int | None]) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}
