"""What a chat front end sends, as far as it is used: other parameters are tolerated, those that would change what comes
back are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

#: Longest message of a customer, characters.
MAX_MESSAGE = 100_000

_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
#: What front ends send for a conversation's id where there is none yet.
_NO_ID = re.compile(r"(?:new|null|none|undefined|local(?::.*)?|\{\{.*\}\})\Z", re.IGNORECASE | re.DOTALL)


class BadRequest(Exception):
    """A request that cannot be served. `param`: the parameter at fault; `code` is for programs."""

    def __init__(self, message: str, param: str | None, code: str) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ChatMessage(BaseModel):
    """One message; `content` is a text or parts of it."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(max_length=64)
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = None


class CompletionRequest(BaseModel):
    """As OpenAI describes it. Parameters that are not here change nothing."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(description="A tenant, as GET /v1/models lists them.", max_length=256)
    messages: list[ChatMessage] = Field(
        description="The last one, of role `user`, is the customer's. Those before it only serve to recognise the "
        "conversation: the agent goes by its own record.",
        min_length=1,
        max_length=10_000,
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="The front end's user: conversations of others are not theirs.")
    metadata: dict[str, Any] | None = Field(
        None, description="`conversation`: the front end's id of it, where no header names one."
    )
    n: int | None = Field(None, description="1.")
    tools: list[Any] | None = Field(None, description="None: the agent has tools of its own.")
    functions: list[Any] | None = Field(None, description="None, as tools.")
    response_format: dict[str, Any] | None = Field(None, description="Text.")
    modalities: list[str] | None = Field(None, description="Text.")
    logprobs: bool | None = Field(None, description="False.")


@dataclass(frozen=True)
class Line:
    """What one side said, as the front end has it."""

    role: str
    text: str


@dataclass(frozen=True)
class Asked:
    """A request, read: the customer's message, and what the front end says was said before."""

    message: str
    before: tuple[Line, ...]
    streams: bool
    tells_usage: bool


def read_request(body: CompletionRequest) -> Asked:
    """Raises BadRequest: it wants what the agent does not do, or says nothing."""
    _refuse_unsupported(body)
    lines = [Line(each.role, _text(each, position)) for position, each in enumerate(body.messages)]
    last = lines[-1]
    if last.role != "user":
        raise BadRequest("The last message must be the customer's: of role 'user'.", "messages", "invalid_messages")
    if not last.text.strip():
        raise BadRequest("The last message is empty.", "messages", "invalid_messages")
    if len(last.text) > MAX_MESSAGE:
        raise BadRequest(
            f"The last message has more than {MAX_MESSAGE:,} characters.", "messages", "context_length_exceeded"
        )
    before = tuple(line for line in lines[:-1] if line.role in ("user", "assistant") and line.text.strip())
    options = body.stream_options
    return Asked(last.text, before, bool(body.stream), bool(options and options.include_usage))


def conversation_id(named: str) -> str:
    """The id that a front end gives a conversation; "" for what stands for none."""
    named = named.strip()
    return "" if _NO_ID.match(named) else named


def _refuse_unsupported(body: CompletionRequest) -> None:
    kind = (body.response_format or {}).get("type", "text")
    wanted = {
        "n": body.n is not None and body.n != 1,
        "tools": bool(body.tools),
        "functions": bool(body.functions),
        "logprobs": bool(body.logprobs),
        "response_format": kind != "text",
        "modalities": bool(body.modalities) and body.modalities != ["text"],
    }
    told = {
        "n": "The agent gives one answer: n must be 1.",
        "tools": "The agent uses tools of its own, and takes none from the client.",
        "functions": "The agent uses tools of its own, and takes none from the client.",
        "logprobs": "The agent tells no log probabilities.",
        "response_format": "The agent answers in plain text only.",
        "modalities": "The agent answers in plain text only.",
    }
    for name, refused in wanted.items():
        if refused:
            raise BadRequest(told[name], name, "unsupported_parameter")


def _text(message: ChatMessage, position: int) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    texts = []
    for part in message.content:
        kind = part.get("type")
        text = part.get("text", part.get("refusal"))
        if kind not in _TEXT_PARTS or not isinstance(text, str):
            if message.role != "user":
                continue
            what = str(kind)[:40]
            said = f"messages[{position}] has a part of type {what!r}: the agent reads text only."
            raise BadRequest(said, f"messages[{position}].content", "unsupported_content")
        texts.append(text)
    return "\n".join(texts)
