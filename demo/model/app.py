"""The scripted model as an OpenAI-compatible endpoint: `/v1/chat/completions`, streamed or not, and `/v1/models`.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import hmac
import itertools
import time
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import bpe_openai
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from demo.model.player import Do, Say, reply
from demo.model.script import Script

MODEL = "scripted"

#: Characters of one streamed piece.
_PIECE = 40
#: The tokenizer refuses single texts over about 500 kB.
_COUNTED_AT_ONCE = 100_000


def create_app(scripts: Mapping[str, Script], key: str) -> Starlette:
    """An endpoint that plays these scripts (by message) for whoever has the key."""
    numbers = itertools.count(1)

    async def completions(request: Request) -> Response:
        refused = _refused(request, key)
        if refused is not None:
            return refused
        try:
            body = orjson.loads(await request.body())
            messages, tools = body["messages"], body.get("tools") or []
            said = reply(scripts, messages, tools)
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            return _error(400, f"This is no chat completion request: {error}", "invalid_request_error")
        head = {
            "id": f"chatcmpl-scripted-{next(numbers)}",
            "created": int(time.time()),
            "model": body.get("model", MODEL),
        }
        usage = _usage(messages, tools, said)
        if body.get("stream"):
            wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return StreamingResponse(
                _events(head, said, usage if wants_usage else None), media_type="text/event-stream"
            )
        choice = {"index": 0, "message": _message(said), "finish_reason": _finish(said), "logprobs": None}
        return _json({**head, "object": "chat.completion", "choices": [choice], "usage": usage})

    async def models(request: Request) -> Response:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "demo"}
        return _refused(request, key) or _json({"object": "list", "data": [model]})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/models", models, methods=["GET"]),
        ]
    )


def _refused(request: Request, key: str) -> Response | None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if hmac.compare_digest(given.encode(), key.encode()):
        return None
    return _error(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key")


def _error(status: int, message: str, kind: str, code: str | None = None) -> Response:
    return _json({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def _json(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


def _finish(said: Say | Do) -> str:
    return "stop" if isinstance(said, Say) else "tool_calls"


def _call(said: Do, arguments: str) -> dict[str, Any]:
    return {
        "id": f"call_scripted_{said.position}",
        "type": "function",
        "function": {"name": said.function, "arguments": arguments},
    }


def _message(said: Say | Do) -> dict[str, Any]:
    if isinstance(said, Say):
        return {"role": "assistant", "content": said.text, "refusal": None}
    call = _call(said, orjson.dumps(said.arguments).decode())
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}


def _events(head: Mapping[str, Any], said: Say | Do, usage: Mapping[str, int] | None) -> Iterator[bytes]:
    def event(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _event({**head, "object": "chat.completion.chunk", "choices": [choice]})

    if isinstance(said, Say):
        yield event({"role": "assistant", "content": ""})
        for piece in _pieces(said.text):
            yield event({"content": piece})
    else:
        yield event({"role": "assistant", "content": None, "tool_calls": [{"index": 0, **_call(said, "")}]})
        for piece in _pieces(orjson.dumps(said.arguments).decode()):
            yield event({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    yield event({}, _finish(said))
    if usage is not None:
        yield _event({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _pieces(text: str, size: int = _PIECE) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def _usage(messages: object, tools: object, said: Say | Do) -> dict[str, int]:
    """Tokens of the request's and the reply's JSON: near what a provider counts, and its own count all the same."""
    prompt, completion = _tokens(messages) + _tokens(tools), _tokens(_message(said))
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _tokens(value: object) -> int:
    text = orjson.dumps(value).decode()
    return sum(len(_tokenizer().encode_ordinary(piece)) for piece in _pieces(text, _COUNTED_AT_ONCE))


@cache
def _tokenizer() -> bpe_openai.Encoding:
    return bpe_openai.get_encoding("o200k_base")
