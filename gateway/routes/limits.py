"""The largest request body, and its time, held while it is read: a declared length is believed only where it is too
large."""

from __future__ import annotations

import asyncio
import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.routes.problems import problem_of, respond

_FILE = re.compile(r"/v1/sessions/[^/]+/files/.")


class BodyLimit:
    """ASGI middleware. A body that turns out too large while it is read raises HTTPException (413) in its reader,
    one that comes too slowly 408."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_file_bytes: int, time_s: float) -> None:
        """`max_file_bytes`: of a file that is put into a session's work folder, which is not held."""
        self._app = app
        self._max_bytes = max_bytes
        self._max_file_bytes = max_file_bytes
        self._time_s = time_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_file = scope["method"] == "PUT" and _FILE.match(scope["path"])
        most = self._max_file_bytes if is_file else self._max_bytes
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) > most:
            await respond(problem_of(_too_large(most)))(scope, receive, send)
            return
        got, ended = 0, False
        deadline = asyncio.get_running_loop().time() + self._time_s

        async def bounded() -> Message:
            nonlocal got, ended
            if ended:  # from here on it waits for the client to go away
                return await receive()
            try:
                # a file may take its time, as long as more of it comes
                async with asyncio.timeout_at(deadline) if not is_file else asyncio.timeout(self._time_s):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"The request's body did not come within {self._time_s:g} s.") from None
            ended = not message.get("more_body", False)
            got += len(message.get("body", b"")) if message["type"] == "http.request" else 0
            if got > most:
                raise _too_large(most)
            return message

        await self._app(scope, bounded, send)


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"The request's body is larger than {most:,} bytes.")
