"""Acting by direct tool calls: every tool a function, every result through the model's context.

The traditional way: the fallback when no kernel is to be had, and the other arm of comparisons. Calls go through the
same broker; those of one step are journaled under a pseudo-cell.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence

import msgspec

from gateway.agent.arguments import parse_arguments, tool_message, unknown_function
from gateway.agent.types import REPLY, Acted, Action, FunctionTool, Message, Mode, ToolBroker, ToolCall
from gateway.types import CallRecord, Event, EventSink, Grant
from servers.errors import ToolError
from servers.registry import Registry
from servers.tool import Role


def direct_tools(registry: Registry, everyday: Sequence[str], role: Role, limit: int) -> list[str]:
    """The tools that a request lists, by name: there is no way to find one that it does not.

    Of more than `limit` the everyday ones first, then the deployment's own, then those from elsewhere.
    """
    allowed = [tool for tool in registry if role in tool.roles and not tool.operations and tool.qualified_name != REPLY]
    allowed.sort(key=lambda tool: (tool.qualified_name not in everyday, tool.foreign is not None))
    chosen = {tool.qualified_name for tool in allowed[:limit]}
    return [name for name in registry.names if name in chosen]


class DirectActor:
    """Calls tools one by one, in order."""

    mode: Mode = "direct"

    def __init__(
        self,
        *,
        system: str,
        functions: Mapping[str, FunctionTool],
        broker: ToolBroker,
        grant: Grant,
        result_kb: int = 256,
    ) -> None:
        """`functions`: tool name (`woocommerce.lookup_order`) to its function; `result_kb`: size of one result."""
        self.system = system
        self.tools: Sequence[FunctionTool] = tuple(functions.values())
        self._names = {function["function"]["name"]: tool for tool, function in functions.items()}
        self._broker = broker
        self._grant = grant
        self._result_chars = result_kb * 1024

    @classmethod
    def from_registry(
        cls, registry: Registry, names: Sequence[str], *, system: str, broker: ToolBroker, grant: Grant
    ) -> DirectActor:
        """The actor for some of a registry's tools. Raises ToolNotFound for a name that is none."""
        functions = dict(zip(names, registry.openai_tools(names), strict=True))
        return cls(system=system, functions=functions, broker=broker, grant=grant)

    def check(self, call: ToolCall) -> Action | str:
        tool = self._names.get(call.name)
        if tool is None:
            return unknown_function(call.name, self._names)
        arguments = parse_arguments(call)
        return arguments if isinstance(arguments, str) else Action(call.id, tool, arguments)

    async def act(self, step: int, actions: Sequence[Action], sink: EventSink) -> Acted:
        code = "\n".join(_as_code(action) for action in actions)
        await sink(Event("step", {"step": step, "mode": self.mode, "code": code}))
        cell = f"direct-{uuid.uuid4().hex[:12]}"
        messages: list[Message] = []
        calls: tuple[CallRecord, ...] = ()
        cancelled = False
        await self._broker.begin_cell(self._grant.session, cell)
        try:
            for action in actions:
                messages.append(await self._call(step, action, sink))
        except asyncio.CancelledError:
            cancelled = True
            stopped = "Stopped: the turn was ended. Whether this call was applied is not known."
            unanswered = actions[len(messages) :]
            messages += [tool_message(action.id, stopped) for action in unanswered[:1]]
            messages += [tool_message(action.id, "Not called: the turn was ended.") for action in unanswered[1:]]
        finally:
            calls = await self._broker.end_cell(self._grant.session)
        paused = any(call.state == "pending" for call in calls)
        return Acted(messages=tuple(messages), calls=calls, cells=(cell,), cancelled=cancelled, paused=paused)

    async def _call(self, step: int, action: Action, sink: EventSink) -> Message:
        started = time.monotonic()
        try:
            value = await self._broker.call(self._grant, action.name, action.arguments)
        except ToolError as error:
            shown = error_json(type(error).__name__, error.message, retryable=error.retryable, hint=error.hint)
            state, text = "pending" if error.data.get("parked") else "failed", shown
        else:
            state, text = "applied", self._bounded(result_json(value))
        ms = round((time.monotonic() - started) * 1000, 1)
        seen = {"step": step, "tool": action.name, "args": action.arguments, "state": state, "ms": ms, "text": text}
        await sink(Event("call", seen))
        return tool_message(action.id, text)

    def _bounded(self, text: str) -> str:
        if len(text) <= self._result_chars:
            return text
        return f"{text[: self._result_chars]} [truncated: {len(text):,} characters]"


def result_json(value: object) -> str:
    """A tool's result as the model sees it: compact JSON."""
    return msgspec.json.encode(value).decode()


def error_json(kind: str, message: str, *, retryable: bool, hint: str) -> str:
    """A tool's failure as the model sees it: compact JSON."""
    shown: dict[str, object] = {"type": kind, "message": message, "retryable": retryable}
    if hint:
        shown["hint"] = hint
    return msgspec.json.encode({"error": shown}).decode()


def _as_code(action: Action) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in action.arguments.items())
    return f"{action.name}({arguments})"
