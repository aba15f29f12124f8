"""A model's endpoint for tests: a real HTTP server on loopback that plays a script, one entry a request."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Play = Callable[[Request], Awaitable[Response]]

KEY = "sk-test-5f2c9a7e41d84b63"


class Endpoint:
    """`script` is played in order; its last entry again and again."""

    def __init__(self) -> None:
        self.script: list[Play] = []
        self.requests: list[dict[str, Any]] = []
        self.authorization: list[str] = []
        self.url = ""

    async def serve(self, request: Request) -> Response:
        self.requests.append(await request.json())
        self.authorization.append(request.headers.get("authorization", ""))
        play = self.script[min(len(self.requests), len(self.script)) - 1]
        return await play(request)


class Server:
    """The HTTP server; `current` is the endpoint of the test that runs."""

    def __init__(self) -> None:
        self.url = ""
        self.current = Endpoint()

    async def serve(self, request: Request) -> Response:
        return await self.current.serve(request)


@contextmanager
def serving() -> Iterator[Server]:
    double = Server()
    app = Starlette(routes=[Route("/v1/chat/completions", double.serve, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        double.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield double
        finally:
            server.should_exit = True
            thread.join()


def chunk(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
    body = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "double",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(body | extra).encode() + b"\n\n"


def usage(prompt: int, cached: int, completion: int) -> bytes:
    said = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return chunk({}, usage=said, choices=[])


DONE = b"data: [DONE]\n\n"


def stream(*parts: bytes) -> Play:
    """The parts, and [DONE] after them."""

    async def play(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for part in (*parts, DONE):
                yield part

        return StreamingResponse(body(), media_type="text/event-stream")

    return play


def says(text: str, finish: str = "stop") -> Play:
    pieces = [text[i : i + 7] for i in range(0, len(text), 7)]
    return stream(*(chunk({"content": piece}) for piece in pieces), chunk({}, finish))


def calls(*made: tuple[str, str], finish: str = "tool_calls", text: str = "") -> Play:
    """Function calls (name, arguments as text), the arguments in two pieces each as endpoints send them."""
    parts = [chunk({"content": text})] if text else []
    for index, (name, arguments) in enumerate(made):
        half = len(arguments) // 2
        head = {"index": index, "id": f"id_{index}", "type": "function"}
        parts.append(chunk({"tool_calls": [{**head, "function": {"name": name, "arguments": arguments[:half]}}]}))
        parts.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[half:]}}]}))
    return stream(*parts, chunk({}, finish))


def runs(*codes: str) -> Play:
    return calls(*(("run_cell", json.dumps({"code": code})) for code in codes))


def fails(status: int, message: str = "the double fails", code: str = "", **headers: str) -> Play:
    async def play(request: Request) -> Response:
        error = {"message": message, "type": "error", "code": code or None}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return JSONResponse({"error": error}, status_code=status, headers=named)

    return play


async def never_answers(request: Request) -> Response:
    while not await request.is_disconnected():
        await asyncio.sleep(0.01)
    return Response()


def trickles(piece: bytes) -> Play:
    """A stream that is never silent for long, and never ends."""

    async def play(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            while not await request.is_disconnected():
                yield piece
                await asyncio.sleep(0.01)

        return StreamingResponse(body(), media_type="text/event-stream")

    return play


def breaks_off(*parts: bytes) -> Play:
    """The connection dies in the middle of the body."""

    async def play(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for part in parts:
                yield part
            raise ConnectionResetError("the double hangs up")

        return StreamingResponse(body(), media_type="text/event-stream")

    return play


def floods(delta: dict[str, Any], times: int) -> Play:
    piece = chunk(delta)

    async def play(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(times):
                yield piece

        return StreamingResponse(body(), media_type="text/event-stream")

    return play


def raw(body: bytes, media_type: str = "text/event-stream") -> Play:
    async def play(request: Request) -> Response:
        return Response(body, media_type=media_type)

    return play
