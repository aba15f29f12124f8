"""A turn of the agent as OpenAI's chat completion: whole, or in chunks."""

from __future__ import annotations

import secrets
import time
from typing import Any, Literal

from pydantic import BaseModel, Field

from gateway.agent.types import TurnResult
from gateway.tokens import TurnTokens
from gateway.transcripts.clean import clean_text

Finish = Literal["stop", "length"]

#: Ends without an answer that are no failures: the turn used up what it may.
_LIMITS = ("max_steps", "max_tokens", "max_seconds", "max_dollars")


class PromptDetails(BaseModel):
    cached_tokens: int
    audio_tokens: int = 0


class CompletionDetails(BaseModel):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(BaseModel):
    """Of all requests to the model in the turn, as its endpoint reports them; where it does not, as we count them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails = CompletionDetails()

    @classmethod
    def of(cls, tokens: TurnTokens) -> CompletionUsage:
        told = [request.reported or request for request in tokens.requests]
        sent, got = sum(each.input for each in told), sum(each.output for each in told)
        cached = PromptDetails(cached_tokens=sum(each.cached for each in told))
        return cls(prompt_tokens=sent, completion_tokens=got, total_tokens=sent + got, prompt_tokens_details=cached)


class AssistantMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None
    annotations: list[Any] = Field(default_factory=list)


class Choice(BaseModel):
    index: Literal[0] = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Finish = Field(
        description="`length`: the turn used up what it may, and the content says what. A call that waits for a "
        "person's approval ends with `stop`, and the content says so."
    )


class Completion(BaseModel):
    """The agent's answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    service_tier: str | None = "default"
    system_fingerprint: str | None = None


class Model(BaseModel):
    """An agent: a tenant's."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "omniops"


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Head(BaseModel):
    """What all chunks of one completion have in common."""

    id: str
    created: int
    model: str

    @classmethod
    def new(cls, model: str) -> Head:
        return cls(id=f"chatcmpl-{secrets.token_hex(12)}", created=int(time.time()), model=model)


def finish_of(result: TurnResult) -> Finish | None:
    """None: the turn failed, `result.message` says why."""
    if result.reason in ("answered", "paused"):
        return "stop"
    return "length" if result.reason in _LIMITS else None


def text_of(result: TurnResult) -> str:
    """What the customer is told: the answer, or that there is none."""
    return clean_text(result.answer or result.message)


def completion_of(head: Head, result: TurnResult, finish: Finish) -> Completion:
    choice = Choice(message=AssistantMessage(content=text_of(result)), finish_reason=finish)
    usage = CompletionUsage.of(result.tokens)
    return Completion(**head.model_dump(), choices=[choice], usage=usage)


def chunk(head: Head, delta: dict[str, str], finish: Finish | None, *, tells_usage: bool) -> dict[str, Any]:
    """One chunk as OpenAI sends it; with `tells_usage` all but the last say that the usage comes later."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _chunk(head, [choice]) | ({"usage": None} if tells_usage else {})


def usage_chunk(head: Head, tokens: TurnTokens) -> dict[str, Any]:
    return _chunk(head, []) | {"usage": CompletionUsage.of(tokens).model_dump()}


def _chunk(head: Head, choices: list[dict[str, Any]]) -> dict[str, Any]:
    more = {"object": "chat.completion.chunk", "service_tier": "default", "system_fingerprint": None}
    return {**head.model_dump(), **more, "choices": choices}


class Spoken:
    """The words of a turn as they go to the client. What was sent cannot be taken back: what is new follows it."""

    def __init__(self, *, live: bool) -> None:
        """`live`: words go out as the model writes them."""
        self._live = live
        self._place = (0, 0)
        self._part = ""
        self._answered = ""
        #: All that was sent.
        self.said = ""

    def words(self, step: int, attempt: int, text: str) -> str:
        """What of the model's words is to be sent now."""
        if not self._live:
            return ""
        text = clean_text(text)
        if self._place != (step, attempt):
            self._place, self._part = (step, attempt), ""
        before, self._part = self._part, self._part + text
        if not self._part.strip():
            return ""  # blanks before a call are nothing to show
        return self._send(text if before.strip() else self._part, apart=not before.strip())

    def answer(self, text: str) -> str:
        """What is left to be sent of the answer."""
        text = clean_text(text)
        if text.strip() in (self._part.strip(), self._answered):
            return ""
        self._answered = text.strip()
        return self._send(text, apart=True)

    def _send(self, text: str, *, apart: bool) -> str:
        sent = f"\n\n{text}" if apart and self.said else text
        self.said += sent
        return sent
