"""What the scripted model says next. It keeps nothing: its place in a script follows from the conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demo.model.script import Call, Script

Message = Mapping[str, Any]

#: The function that runs a cell; where it is offered, the model writes cells.
RUN_CELL = "run_cell"
_DISPATCHER = "woocommerce__woocommerce_operations"

_UNKNOWN = "I am a scripted model: I know the demo's tasks by the customer's exact words, and these are none of them."


@dataclass(frozen=True)
class Say:
    """A reply in words: the answer."""

    text: str


@dataclass(frozen=True)
class Do:
    """A reply that calls one function."""

    function: str
    arguments: Mapping[str, Any]
    position: int


def reply(scripts: Mapping[str, Script], messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> Say | Do:
    """The next reply of the conversation."""
    found = _script(scripts, messages)
    if found is None:
        return Say(_UNKNOWN)
    script, since = found
    offered = {tool["function"]["name"] for tool in tools if tool.get("type") == "function"}
    place = _Place.of(script, since)
    if place.surprise:
        return Say(f"I am sorry, I could not finish this: {place.surprise}")
    if RUN_CELL in offered:
        if place.steps < len(script.steps):
            return Do(RUN_CELL, {"code": script.steps[place.steps].code}, place.said)
    elif offered and place.calls < len(script.calls):
        return _direct(script.calls[place.calls][0], offered, place.said)
    return Say(script.answer)


def _script(scripts: Mapping[str, Script], messages: Sequence[Message]) -> tuple[Script, Sequence[Message]] | None:
    """The script of the last message that the customer wrote, and what was said since."""
    for position in range(len(messages) - 1, -1, -1):
        if messages[position]["role"] == "user":
            script = scripts.get(_text(messages[position]).strip())
            return None if script is None else (script, messages[position + 1 :])
    return None


@dataclass(frozen=True)
class _Place:
    """How far a script has been played: whole steps, calls, replies; `surprise` says what went otherwise."""

    steps: int
    calls: int
    said: int
    surprise: str

    @classmethod
    def of(cls, script: Script, since: Sequence[Message]) -> _Place:
        results = {m.get("tool_call_id"): _text(m) for m in since if m["role"] == "tool"}
        steps = calls = said = 0
        surprise = ""
        for message in since:
            for call in message.get("tool_calls") or ():
                said += 1
                result = results.get(call["id"], "")
                if call["function"]["name"] == RUN_CELL:
                    if result.startswith("Not run"):  # no kernel: the conversation goes on by direct calls
                        continue
                    refused = steps < len(script.steps) and script.steps[steps].refused
                    steps += 1
                    calls = sum(len(step.calls) for step in script.steps[:steps])
                else:
                    refused = calls < len(script.calls) and script.calls[calls][1]
                    calls += 1
                failure = _failure(result)
                surprise = surprise or (failure if failure and not refused else "")
        return cls(steps, calls, said, surprise)


def _failure(result: str) -> str:
    """The error that a cell's envelope or a direct call's result reports, else ""."""
    status = re.match(r"\s*status:\s*(\w+)", result)
    if status:
        if status[1] == "ok":
            return ""
        error = re.search(r"^error:\s*(.*)$", result, re.MULTILINE)
        return (error[1] if error else result)[:300]
    if result.startswith('{"error"'):
        try:
            return str(json.loads(result)["error"]["message"])[:300]
        except (ValueError, KeyError, TypeError):
            return result[:300]
    return ""


def _direct(call: Call, offered: set[str], position: int) -> Do:
    """The call as a function: by its own name, or through the one function that stands for all operations."""
    name = call.tool.replace(".", "__", 1)
    if name not in offered and _DISPATCHER in offered:
        operation = call.tool.rpartition(".")[2]
        return Do(_DISPATCHER, {"operation": operation, "arguments": call.arguments}, position)
    return Do(name, call.arguments, position)


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""
