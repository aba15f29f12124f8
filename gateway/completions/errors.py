"""Errors as OpenAI's clients read them, on the routes that they ask, whoever refuses: route, limit, missing key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.routes.problems import MEDIA_TYPE, Problem, problem_of

#: The routes that OpenAI's clients ask.
PATHS = ("/v1/chat/completions", "/v1/models")

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {"unauthorized": "invalid_api_key"}


class OpenAiError(BaseModel):
    message: str = Field(description="For people: what failed, and what to do.")
    type: str
    param: str | None = Field(None, description="The parameter at fault.")
    code: str | None = Field(None, description="For programs: does not change.")


class OpenAiErrors(BaseModel):
    """An error, as OpenAI's clients read it."""

    error: OpenAiError


def error_of(problem: Problem, param: str | None = None) -> tuple[int, OpenAiErrors]:
    """The status and the body that stand for a problem."""
    status = 400 if problem.status == 422 else problem.status
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    message = " ".join(part for part in (problem.message, problem.hint) if part)
    code = _CODES.get(problem.code, problem.code)
    return status, OpenAiErrors(error=OpenAiError(message=message, type=kind, param=param, code=code))


def refuse(problem: Problem, param: str | None = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    status, body = error_of(problem, param)
    return JSONResponse(body.model_dump(), status, headers=dict(headers or {}))


class OpenAiErrorFormat:
    """ASGI middleware: on `PATHS` a problem becomes an error of OpenAI's, its headers kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_theirs(scope["path"]):
            await self._app(scope, receive, send)
            return
        translating = _Translation(send)
        try:
            await self._app(scope, receive, translating.send)
        except Exception as error:
            if translating.begun:
                raise
            await refuse(problem_of(error))(scope, receive, send)


class _Translation:
    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self._start: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            if _header(message, b"content-type").startswith(MEDIA_TYPE.encode()):
                self._start = message
                return
        if self._start is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        _, body = error_of(Problem.model_validate_json(self._body))
        status = 400 if start["status"] == 422 else start["status"]
        content = json.dumps(body.model_dump()).encode()
        kept = [(k, v) for k, v in start["headers"] if k.lower() not in (b"content-type", b"content-length")]
        headers = [*kept, (b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await self._send({**start, "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})


def _is_theirs(path: str) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in PATHS)


def _header(message: Message, name: bytes) -> bytes:
    headers: list[tuple[bytes, Any]] = message["headers"]
    return next((value for key, value in headers if key.lower() == name), b"")
