"""Tokens of real request payloads, and the ledger of what a conversation cost.

Text is counted with o200k_base (`bpe-openai`, equal to tiktoken's). Around it, a chat request has framing that OpenAI
documents only for parts (cookbook, "How to count tokens with tiktoken"); the same rules hold for both ways of acting:

- message: 3, plus its role, name and content; the request's reply is primed with 3 more;
- functions: 7 each, 3 for a parameter list, 3 a parameter, `name:description` and `name:type:description` as text,
  -3 and 3 an item for enums, 12 at the end. Nested objects, which the cookbook leaves out, are counted by the same
  rule; the schema's JSON would come to more, so tool definitions are rather too small here than too large;
- function call in an assistant message: 3, its name and its arguments as text. Call ids are not counted.

Of a request, system message and functions are `definitions`, tool messages `results`, the rest `turns`; what the model
wrote is `output`. Cached is the common prefix with the conversation's previous request, whole messages, by OpenAI's
rule: from 1,024 tokens on, in steps of 128.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from gateway.settings import ModelSettings

if TYPE_CHECKING:
    from bpe_openai import Encoding

_MESSAGE = 3
_PRIMING = 3
_CALL = 3
_FUNCTION, _FUNCTIONS_END = 7, 12
_PARAMETERS, _PARAMETER = 3, 3
_ENUM, _ENUM_ITEM = -3, 3
_CACHE_MINIMUM, _CACHE_STEP = 1024, 128

#: The tokenizer refuses inputs over about 500 kB and holds the interpreter's lock while it counts one.
_PIECE_CHARS = 100_000
#: More new text than this is counted in a thread: some 4 ms of work.
_THREAD_CHARS = 50_000


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens."""

    input: float
    cached: float
    output: float

    @classmethod
    def from_settings(cls, settings: ModelSettings) -> Prices:
        return cls(settings.price_input, settings.price_cached, settings.price_output)


@dataclass(frozen=True)
class Usage:
    """What the endpoint itself reported for one request; `cached` is a part of `input`."""

    input: int
    cached: int
    output: int


@dataclass(frozen=True)
class RequestTokens:
    """One request, counted by us; `reported` beside it where the endpoint says."""

    definitions: int
    results: int
    turns: int
    cached: int
    output: int = 0
    reported: Usage | None = None

    @property
    def input(self) -> int:
        return self.definitions + self.results + self.turns

    @property
    def spent(self) -> int:
        """Input and output, ours or the endpoint's figure, whichever is larger: what limits go by."""
        own = self.input + self.output
        return own if self.reported is None else max(own, self.reported.input + self.reported.output)

    def dollars(self, prices: Prices, *, caching: bool = True) -> float:
        """Cost by our own count."""
        cached = self.cached if caching else 0
        return _dollars(prices, self.input, cached, self.output)

    def dollars_at_most(self, prices: Prices) -> float:
        """Cost by whichever figure is larger, without a cache that the endpoint has not reported: what limits go by."""
        own = self.dollars(prices, caching=False)
        said = self.reported
        return own if said is None else max(own, _dollars(prices, said.input, said.cached, said.output))


@dataclass(frozen=True)
class TurnTokens:
    """The requests of one turn, or of any stretch of a conversation."""

    requests: tuple[RequestTokens, ...] = ()

    @property
    def definitions(self) -> int:
        return sum(request.definitions for request in self.requests)

    @property
    def results(self) -> int:
        return sum(request.results for request in self.requests)

    @property
    def turns(self) -> int:
        return sum(request.turns for request in self.requests)

    @property
    def cached(self) -> int:
        return sum(request.cached for request in self.requests)

    @property
    def input(self) -> int:
        return sum(request.input for request in self.requests)

    @property
    def output(self) -> int:
        return sum(request.output for request in self.requests)

    @property
    def spent(self) -> int:
        return sum(request.spent for request in self.requests)

    def dollars(self, prices: Prices, *, caching: bool = True) -> float:
        return sum(request.dollars(prices, caching=caching) for request in self.requests)

    def dollars_at_most(self, prices: Prices) -> float:
        return sum(request.dollars_at_most(prices) for request in self.requests)

    def as_dict(self, prices: Prices) -> dict[str, Any]:
        """For events, transcripts and result files."""
        return {
            "requests": len(self.requests),
            "input": self.input,
            "definitions": self.definitions,
            "results": self.results,
            "turns": self.turns,
            "cached": self.cached,
            "output": self.output,
            "dollars": round(self.dollars(prices), 6),
            "dollars_uncached": round(self.dollars(prices, caching=False), 6),
        }


@dataclass(frozen=True)
class Counted:
    """A request that was counted and not yet sent."""

    tokens: RequestTokens
    tools: tuple[Mapping[str, Any], ...] = ()
    tools_tokens: int = 0
    #: Each message with its tokens.
    messages: tuple[tuple[Mapping[str, Any], int], ...] = ()


class Ledger:
    """The requests of one conversation, in order. Keep it as long as the conversation: it knows what is cached.

    Messages must not be changed once they were counted. Counts of messages that the previous request had in the same
    place are reused, so that a request costs no more than its new messages.
    """

    def __init__(self) -> None:
        self.requests: list[RequestTokens] = []
        self._last = Counted(RequestTokens(0, 0, 0, 0))

    async def count(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Counted:
        """Count a request that is about to be sent. Nothing is entered until `record`."""
        same = self._same_prefix(messages)
        counts = [count for _, count in self._last.messages[:same]]
        counts += await _in_thread_if_long(_count_messages, messages[same:])
        if self._last.tools == tuple(tools):
            tools_tokens = self._last.tools_tokens
            cached = _cacheable(tools_tokens + sum(counts[:same]))
        else:
            tools_tokens = count_tools(tools)
            cached = 0
        parts = {"definitions": tools_tokens, "results": 0, "turns": _PRIMING}
        for message, count in zip(messages, counts, strict=True):
            parts[_part(message)] += count
        tokens = RequestTokens(parts["definitions"], parts["results"], parts["turns"], cached)
        return Counted(tokens, tuple(tools), tools_tokens, tuple(zip(messages, counts, strict=True)))

    async def record(
        self, sent: Counted, reply: Mapping[str, Any] | None, reported: Usage | None = None
    ) -> RequestTokens:
        """Enter a request that was sent, with the assistant message that came back (None: none did)."""
        output = 0 if reply is None else sum(await _in_thread_if_long(_count_outputs, [reply]))
        entry = replace(sent.tokens, output=output, reported=reported)
        self.requests.append(entry)
        self._last = sent
        return entry

    def since(self, first: int) -> TurnTokens:
        """The requests from index `first` on: a turn's, if that was `len(ledger.requests)` at its start."""
        return TurnTokens(tuple(self.requests[first:]))

    def _same_prefix(self, messages: Sequence[Mapping[str, Any]]) -> int:
        same = 0
        for message, (previous, _) in zip(messages, self._last.messages, strict=False):
            if message is not previous and message != previous:
                break
            same += 1
        return same


def prepare() -> None:
    """Load the token tables, which takes a second: else the first count does."""
    _encoding()


def count_text(text: str) -> int:
    """Tokens of a text of any length. Longer ones are cut at line ends; a cut may add a token."""
    return sum(len(_encoding().encode_ordinary(piece)) for piece in _pieces(text))


def count_message(message: Mapping[str, Any]) -> int:
    """Tokens of one message in a request, framing included."""
    return _MESSAGE + count_text(str(message["role"])) + count_output(message)


def count_output(message: Mapping[str, Any]) -> int:
    """Tokens of what an assistant message says: its text and its function calls."""
    calls = len(message.get("tool_calls") or ())
    return _CALL * calls + sum(count_text(text) for text in _texts(message))


def count_tools(tools: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of a request's function tools."""
    if not tools:
        return 0
    return _FUNCTIONS_END + sum(_count_function(tool["function"]) for tool in tools)


def median(values: Sequence[float]) -> float:
    """Raises statistics.StatisticsError for no values."""
    return float(statistics.median(values))


def p90(values: Sequence[float]) -> float:
    """The 90th percentile, interpolated between the values. Raises statistics.StatisticsError for no values."""
    if len(values) == 1:
        return float(values[0])
    return float(statistics.quantiles(values, n=10, method="inclusive")[8])


def _count_messages(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    return [count_message(message) for message in messages]


def _count_outputs(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    return [count_output(message) for message in messages]


async def _in_thread_if_long(
    counter: Callable[[Sequence[Mapping[str, Any]]], list[int]], messages: Sequence[Mapping[str, Any]]
) -> list[int]:
    if sum(len(text) for message in messages for text in _texts(message)) > _THREAD_CHARS:
        return await asyncio.to_thread(counter, messages)
    return counter(messages)


@cache
def _encoding() -> Encoding:
    import bpe_openai  # loads its tables

    return bpe_openai.get_encoding("o200k_base")


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _PIECE_CHARS:
        end = start + _PIECE_CHARS
        line = text.rfind("\n", start, end)
        end = line if line > start else end
        yield text[start:end]
        start = end
    yield text[start:]


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif content:
        yield from (part["text"] for part in content if part.get("type") == "text")
    if message.get("name"):
        yield str(message["name"])
    for call in message.get("tool_calls") or ():
        yield call["function"]["name"]
        yield call["function"]["arguments"]


def _part(message: Mapping[str, Any]) -> str:
    return {"system": "definitions", "developer": "definitions", "tool": "results"}.get(message["role"], "turns")


def _cacheable(tokens: int) -> int:
    return tokens // _CACHE_STEP * _CACHE_STEP if tokens >= _CACHE_MINIMUM else 0


def _dollars(prices: Prices, input_tokens: int, cached: int, output: int) -> float:
    return ((input_tokens - cached) * prices.input + cached * prices.cached + output * prices.output) / 1_000_000


def _count_function(function: Mapping[str, Any]) -> int:
    schema = function.get("parameters") or {}
    line = f"{function['name']}:{function.get('description', '').removesuffix('.')}"
    return _FUNCTION + count_text(line) + _count_properties(schema, schema, ())


def _count_properties(schema: Mapping[str, Any], root: Mapping[str, Any], seen: tuple[str, ...]) -> int:
    properties = schema.get("properties") or {}
    if not properties:
        return 0
    return _PARAMETERS + sum(_count_property(name, value, root, seen) for name, value in properties.items())


def _count_property(name: str, schema: Mapping[str, Any], root: Mapping[str, Any], seen: tuple[str, ...]) -> int:
    kinds: list[str] = []
    nested = 0
    for variant, path in _variants(schema, root, seen):
        kind = variant.get("type", "object" if "properties" in variant else "")
        kinds += [kind] if isinstance(kind, str) else kind
        nested += _count_properties(variant, root, path)
        if enum := variant.get("enum"):
            nested += _ENUM + sum(_ENUM_ITEM + count_text(str(item)) for item in enum)
    line = f"{name}:{'|'.join(filter(None, kinds))}:{schema.get('description', '').removesuffix('.')}"
    return _PARAMETER + count_text(line) + nested


def _variants(
    schema: Mapping[str, Any], root: Mapping[str, Any], seen: tuple[str, ...]
) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
    """A schema and what it is made of: references, alternatives and array items; a reference inside itself once."""
    reference = schema.get("$ref")
    if reference:
        if reference in seen:
            return
        target: Any = root
        for key in reference.removeprefix("#/").split("/"):
            target = target.get(key, {})
        yield from _variants(target, root, (*seen, reference))
        return
    alternatives = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    if not alternatives:
        yield schema, seen
    for alternative in alternatives:
        yield from _variants(alternative, root, seen)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            yield from _variants(schema[key], root, seen)
