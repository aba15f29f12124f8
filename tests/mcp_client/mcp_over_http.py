"""MCP servers on loopback, in the test's own event loop: over streamable HTTP, over SSE, and behind a moody front."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from awkward_server import server
from mcp.server.sse import SseServerTransport
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route


@dataclass
class Front:
    """What stands before a server: answers in its place while `status` is set, and notes what it was sent."""

    url: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    #: (method, headers) of every request.
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@asynccontextmanager
async def over_http(folder: Path, mode: str = "", *, json: bool = False) -> AsyncIterator[Front]:
    """Streamable HTTP at `/mcp`; with `json`, answers are JSON instead of events."""
    app = server(folder, mode).streamable_http_app(json_response=json)
    async with _served(app) as front:
        front.url += "/mcp"
        yield front


@asynccontextmanager
async def over_sse(folder: Path) -> AsyncIterator[Front]:
    """As servers did before 2025: events at `/sse`, and nothing may be posted there."""
    made, transport = server(folder), SseServerTransport("/messages/")

    async def events(request: Any) -> Response:
        async with transport.connect_sse(request.scope, request.receive, request._send) as (read, write):
            await made.run(read, write, made.create_initialization_options())
        return Response()

    routes = [Route("/sse", events, methods=["GET"]), Mount("/messages/", app=transport.handle_post_message)]
    async with _served(Starlette(routes=routes)) as front:
        front.url += "/sse"
        yield front


@asynccontextmanager
async def _served(app: Any) -> AsyncIterator[Front]:
    front = Front()

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = {key.decode(): value.decode() for key, value in scope["headers"]}
            front.seen.append((scope["method"], headers))
            if front.status:
                await Response(status_code=front.status, headers=front.headers)(scope, receive, send)
                return
        await app(scope, receive, send)

    listener = socket.create_server(("127.0.0.1", 0))
    front.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(asgi, log_level="critical", lifespan="on", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    try:
        while not running.started:
            await asyncio.sleep(0.01)
        yield front
    finally:
        running.should_exit = True
        await task
        listener.close()
