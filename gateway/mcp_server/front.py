"""`/mcp`: the MCP server over streamable HTTP, inside the gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.auth import Principal, token_of
from gateway.settings import McpServerSettings

if TYPE_CHECKING:
    import httpx
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from gateway.mcp_server.server import Client, Context


class FrontClosed(Exception):
    """The gateway is stopping."""


class McpFront:
    """The first request starts what stands behind it: its packages take their time to load."""

    def __init__(self, settings: McpServerSettings, max_request_mb: int) -> None:
        self._settings = settings
        self._max_request = max_request_mb * 2**20
        self._starting = asyncio.Lock()
        self._manager: StreamableHTTPSessionManager | None = None
        self._task: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._on_close: Callable[[], None] = lambda: None

    async def answer(self, app: ASGIApp, caller: Principal) -> Response:
        """What answers a request of the caller's. `app`: what the tools ask. Raises FrontClosed."""
        return _Answer(await self._started(app), caller)

    async def close(self) -> None:
        """End every connection; cells that run go on."""
        self._on_close()
        self._over.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _started(self, app: ASGIApp) -> StreamableHTTPSessionManager:
        async with self._starting:
            if self._over.is_set():
                raise FrontClosed
            if self._manager is None:
                ready: asyncio.Future[StreamableHTTPSessionManager] = asyncio.get_running_loop().create_future()
                self._task = asyncio.create_task(self._run(app, ready))
                self._manager = await asyncio.shield(ready)
            return self._manager

    async def _run(self, app: ASGIApp, ready: asyncio.Future[StreamableHTTPSessionManager]) -> None:
        """In a task of its own: what begins here has to end here."""
        try:
            from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
            from mcp.server.transport_security import TransportSecuritySettings

            from gateway.mcp_server.api import inside
            from gateway.mcp_server.server import make_server

            settings = self._settings
            async with contextlib.AsyncExitStack() as stack:
                http = await stack.enter_async_context(inside(app))
                server, cells = make_server(lambda ctx: _client(ctx, http), settings)
                self._on_close = cells.close
                manager = StreamableHTTPSessionManager(
                    server,
                    security_settings=TransportSecuritySettings(
                        allowed_hosts=list(settings.hosts), allowed_origins=list(settings.origins)
                    ),
                    session_idle_timeout=settings.idle_s,
                    max_sessions=settings.max_sessions,
                    max_request_body_size=self._max_request,
                )
                await stack.enter_async_context(manager.run())
                ready.set_result(manager)
                await self._over.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)


class _Answer(Response):
    """The protocol's own answer to the request that it is returned for."""

    def __init__(self, manager: StreamableHTTPSessionManager, caller: Principal) -> None:
        super().__init__()
        self._manager = manager
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
        from mcp.server.auth.provider import AccessToken

        # a connection is found again by its id with the same key only
        user = AuthenticatedUser(AccessToken(token="", client_id=self._caller.name, scopes=[]))
        await self._manager.handle_request({**scope, "user": user}, receive, send)


def _client(ctx: Context, http: httpx.AsyncClient) -> Client:
    from gateway.mcp_server.api import Api
    from gateway.mcp_server.server import Client

    request = ctx.request
    assert isinstance(request, Request)
    token = token_of(request.headers.get("authorization", ""), "")
    return Client(Api(http, token), request.headers.get("mcp-session-id", ""))
