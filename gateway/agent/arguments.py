"""Function calls as models write them: what can be used, and what to tell the model otherwise."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from gateway.agent.types import Message, ToolCall

#: How much of an unusable argument text is kept in the conversation, characters.
_KEPT_CHARS = 500


def parse_arguments(call: ToolCall) -> dict[str, Any] | str:
    """The arguments; or what is wrong with them, in words for the model."""
    try:
        # not strict: models put raw line ends into strings, and what they mean is clear
        value = json.loads(call.arguments or "{}", strict=False)
    except (ValueError, RecursionError) as error:
        return f"The arguments of {call.name} are not valid JSON ({error}). Send one JSON object."
    if not isinstance(value, dict):
        return f"The arguments of {call.name} must be one JSON object, not {type(value).__name__}."
    return value


def unknown_function(name: str, known: Iterable[str]) -> str:
    """What to tell a model that called a function which does not exist."""
    names = list(known)
    likely = get_close_matches(name, names, n=1)
    hint = f" Did you mean {likely[0]}?" if likely else ""
    return f"There is no function {name!r}.{hint} Functions: {', '.join(names)}."


def assistant_message(text: str, calls: Iterable[ToolCall]) -> Message:
    """A reply with calls as a message that every endpoint takes back: legal names, arguments that are JSON objects."""
    return {
        "role": "assistant",
        "content": text or None,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": _legal_name(call.name), "arguments": _legal_arguments(call)},
            }
            for call in calls
        ],
    }


def tool_message(call_id: str, content: str) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def with_ids(calls: Iterable[ToolCall], taken: Iterable[str]) -> tuple[ToolCall, ...]:
    """The calls with an id each that the conversation does not know yet: some endpoints give none, or one twice."""
    seen = set(taken)
    named = []
    for call in calls:
        unique = call.id if call.id and call.id not in seen else f"call_{uuid.uuid4().hex[:16]}"
        seen.add(unique)
        named.append(ToolCall(unique, call.name, call.arguments))
    return tuple(named)


def call_ids(messages: Iterable[Message]) -> list[str]:
    """The ids of all calls in some messages."""
    return [call["id"] for message in messages for call in message.get("tool_calls") or ()]


def _legal_name(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "unnamed"


def _legal_arguments(call: ToolCall) -> str:
    if not call.arguments:
        return "{}"
    parsed = parse_arguments(call)
    if isinstance(parsed, str):
        return json.dumps({"malformed": call.arguments[:_KEPT_CHARS]})
    return call.arguments
