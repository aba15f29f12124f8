"""One reply of the model, put together from the chunks of its stream."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.agent.types import ToolCall
from gateway.tokens import Usage

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall

OnText = Callable[[str], Awaitable[None]]


class BadChunk(ValueError):
    """The endpoint sent something that is no chunk of a chat completion."""


@dataclass(frozen=True)
class Reply:
    """What the model said. `finish` is the API's finish_reason, or "" when the stream broke off before one came."""

    text: str
    calls: tuple[ToolCall, ...]
    finish: str
    usage: Usage | None


@dataclass
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass
class _Draft:
    text: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    finish: str = ""
    usage: Usage | None = None
    chars: int = 0

    def add(self, chunk: ChatCompletionChunk) -> str:
        """Take in one chunk; the text that it adds."""
        if chunk.usage is not None:
            details = chunk.usage.prompt_tokens_details
            cached = details.cached_tokens if details is not None else 0
            self.usage = Usage(int(chunk.usage.prompt_tokens), int(cached or 0), int(chunk.usage.completion_tokens))
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self.finish = choice.finish_reason or self.finish
        for part in choice.delta.tool_calls or ():
            self._add_call(part)
        # a refusal is an answer in words
        text = choice.delta.content or choice.delta.refusal or ""
        if text:
            self.text.append(text)
            self.chars += len(text)
        return text

    def _add_call(self, part: ChoiceDeltaToolCall) -> None:
        # some endpoints send whole calls without an index
        index = part.index if isinstance(part.index, int) else len(self.calls)
        call = self.calls.setdefault(index, _Call())
        call.id = part.id or call.id
        self.chars += 1
        if part.function is not None:
            name, arguments = part.function.name or "", part.function.arguments or ""
            call.name += name
            call.arguments.append(arguments)
            self.chars += len(name) + len(arguments)

    def reply(self) -> Reply:
        calls = tuple(ToolCall(call.id, call.name, "".join(call.arguments)) for _, call in sorted(self.calls.items()))
        return Reply("".join(self.text), calls, self.finish, self.usage)


async def read_reply(chunks: AsyncIterable[ChatCompletionChunk], *, max_chars: int, on_text: OnText) -> Reply:
    """Read a stream to its end, or until it exceeds `max_chars`: then the reply's finish is "length".

    Raises BadChunk for a chunk that is none, for the SDK does not validate them.
    """
    draft = _Draft()
    async for chunk in chunks:
        try:
            text = draft.add(chunk)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise BadChunk(str(error)) from error
        if text:
            await on_text(text)
        if draft.chars > max_chars:
            draft.finish = "length"
            break
    return draft.reply()
