"""One attempt at a call: what the tool gives or raises becomes what the kernel gets and the journal keeps."""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import structlog

from gateway.settings import BrokerSettings
from gateway.types import CallState
from gateway.work.runs import WorkRuns, one_line
from servers.context import Progress, ToolContext
from servers.errors import BudgetExceeded, ToolDenied, ToolError, UpstreamError
from servers.table import shape_of, to_ipc, to_rows
from servers.tool import Tool

from .canonical import decode_result, encode_result
from .errors import DEFINITE, ErrorBody, to_body
from .policy import MIB, CellBudget
from .scrub import Scrubber

log = structlog.get_logger(__name__)


#: Makes what the tool gets beside its arguments. Raises ToolError where something of it is missing.
MakeContext = Callable[[], Awaitable[ToolContext]]


@dataclass(frozen=True)
class Value:
    """A result, or one part of one that streams: `text`, any JSON value, or `table`, an Arrow IPC stream."""

    text: str | None = None
    table: bytes | bytearray | None = None
    rows: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.text or "") + len(self.table or b"")

    def shown(self) -> Any:
        """For records: the value itself; of a table its shape."""
        if self.table is not None:
            return shape_of(self.table)
        return None if self.text is None else decode_result(self.text)

    def plain(self) -> Any:
        """For callers without a kernel: plain JSON values; of a table its rows."""
        return to_rows(self.table) if self.table is not None else self.shown()


@dataclass
class Attempt:
    """What came of it. Of a result that streamed `value` is empty: its parts are gone."""

    state: CallState
    value: Value = field(default_factory=Value)
    error: ErrorBody | None = None
    size: int = 0
    rows: int = 0
    batches: int = 0
    #: US dollars that the tool said it cost, also where it failed.
    cost: float = 0.0


class ReaderGone(Exception):
    """Nobody takes the parts of a result any more."""


class Parts(Protocol):
    """Takes the parts of a result that streams, as fast as their reader does."""

    async def put(self, part: Value) -> None:
        """Returns when there is room for it, and it is on its way. Raises ReaderGone."""
        ...

    def step(self, text: str) -> None:
        """Say how far the call is, where that can be told at once."""
        ...


class Gathered:
    """Parts for a caller that takes them all at once: a list, within the bounds of one result."""

    def __init__(self, tool: Tool, settings: BrokerSettings) -> None:
        self._tool = tool
        self._settings = settings
        self._size = 0
        self._values: list[Any] = []

    async def put(self, part: Value) -> None:
        self._size += part.size
        check_size(self._tool, self._size, self._settings)
        plain = part.plain()
        if part.table is not None:
            self._values += plain
        else:
            self._values.append(plain)

    def step(self, text: str) -> None:
        """There is nobody who would see it."""

    @property
    def value(self) -> Value:
        return Value(text=encode_result(self._tool.qualified_name, self._values), rows=len(self._values))


class Attempts:
    """Runs tools. Never raises but when cancelled: what goes wrong is an outcome."""

    def __init__(self, settings: BrokerSettings, scrubber: Scrubber, runs: WorkRuns | None = None) -> None:
        """`runs`: where long work is entered; None: it is refused."""
        self._settings = settings
        self._scrubber = scrubber
        self._runs = runs

    async def run(
        self,
        tool: Tool,
        args: Mapping[str, Any],
        surroundings: MakeContext,
        budget: CellBudget,
        parts: Parts | None,
        done: Attempt,
    ) -> None:
        """`parts`: where the parts of a result that streams go; None: they are gathered to one. What comes of it is in
        `done`, so that it is known of an attempt that was cancelled as well."""
        context: ToolContext | None = None

        async def made() -> ToolContext:
            nonlocal context
            context = await surroundings()
            return context

        begun = time.monotonic()
        try:
            if tool.streams:
                await self._stream(tool, args, made, budget, parts or Gathered(tool, self._settings), done)
            else:
                await self._once(tool, args, made, parts, done)
        finally:
            if context is not None:
                done.cost = context.charged
                budget.take_dollars(done.cost)
            if not tool.streams and not tool.workload:  # there the time is taken part by part; a work's is its own
                budget.take_seconds(time.monotonic() - begun)

    def error_body(self, error: Exception, tool: str) -> ErrorBody:
        """Any exception as what a kernel may see of it; what it may not see is logged under a reference."""
        if not isinstance(error, ToolError):
            error = self.unexpected(error, tool)
        return to_body(error, tool, self._scrubber)

    def unexpected(self, error: Exception, what: str) -> ToolError:
        """A bug of ours or of a tool: the details stay in the host's log."""
        reference = secrets.token_hex(4)
        details = self._scrubber.text("".join(traceback.format_exception(error)))
        log.error("tool call failed unexpectedly", tool=what, reference=reference, error=details)
        message = f"{what} failed inside the gateway; its log has the reason under {reference}."
        return UpstreamError(message, tool=what, data={"reference": reference})

    async def _once(
        self, tool: Tool, args: Mapping[str, Any], context: MakeContext, parts: Parts | None, done: Attempt
    ) -> None:
        write, name = tool.effect != "read", tool.qualified_name
        try:
            async with asyncio.timeout(self._settings.call_timeout_s) as limit:
                if tool.workload:
                    result = await self._work(tool, args, context, parts, limit)
                else:
                    result = await tool.call(await context(), args)
        except Exception as error:  # noqa: BLE001 - a tool's bug must not end the broker
            if isinstance(error, TimeoutError) and limit.expired():
                error = self._too_slow(tool)
            open_end = write and not isinstance(error, DEFINITE)
            done.state, done.error = "unknown" if open_end else "failed", self.error_body(error, name)
            return
        try:
            done.value = value = self._value(tool, result)
            done.size, done.rows = value.size, value.rows
        except ToolError as error:
            done.state, done.error = "applied" if write else "failed", self.error_body(error, name)

    async def _work(
        self, tool: Tool, args: Mapping[str, Any], context: MakeContext, parts: Parts | None, limit: asyncio.Timeout
    ) -> Any:
        """A long work may take its time as long as it goes on: the limit counts from its last step."""
        if self._runs is None:
            raise ToolDenied(f"{tool.name} is long work, of which this gateway keeps no account.")
        surroundings, clock = await context(), asyncio.get_running_loop().time
        async with self._runs.run(surroundings, tool) as run:

            def step(progress: Progress) -> None:
                limit.reschedule(clock() + self._settings.call_timeout_s)
                if run.step(progress) and parts is not None:
                    parts.step(self._scrubber.text(one_line(f"{tool.name}: {progress}")))

            return run.over(await tool.call(replace(surroundings, progress=step), args))

    async def _stream(
        self,
        tool: Tool,
        args: Mapping[str, Any],
        context: MakeContext,
        budget: CellBudget,
        parts: Parts,
        done: Attempt,
    ) -> None:
        try:
            async with aclosing(tool.stream(await context(), args)) as produced:
                while (value := await self._part(tool, produced, budget)) is not None:
                    budget.take_bytes(value.size)
                    budget.take_rows(value.rows)
                    await parts.put(value)
                    done.size += value.size
                    done.rows += value.rows
                    done.batches += 1
            if isinstance(parts, Gathered):
                done.value = parts.value
        except ReaderGone:
            pass  # what was read was read
        except Exception as error:  # noqa: BLE001 - a tool's bug must not end the broker
            done.state, done.error = "failed", self.error_body(error, tool.qualified_name)

    async def _part(self, tool: Tool, produced: Any, budget: CellBudget) -> Value | None:
        """The next part; None at the end. Time that the reader takes is not the tool's.

        Raises:
            ToolError, and whatever the tool raises.
        """
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.call_timeout_s) as limit:
                return self._value(tool, await anext(produced))
        except StopAsyncIteration:
            return None
        except TimeoutError:
            if limit.expired():
                raise self._too_slow(tool) from None
            raise
        finally:
            budget.take_seconds(time.monotonic() - begun)

    def _value(self, tool: Tool, result: Any) -> Value:
        """A checked result without secrets. Raises ToolError where it is too large or no plain data."""
        if tool.row is not None:
            table = self._scrubber.table(result)
            check_size(tool, table.nbytes, self._settings)
            return Value(table=to_ipc(table), rows=table.num_rows)
        text = self._scrubber.known(encode_result(tool.qualified_name, result))
        check_size(tool, len(text), self._settings)
        return Value(text=text, rows=len(result) if isinstance(result, list) else 0)

    def _too_slow(self, tool: Tool) -> ToolError:
        error = UpstreamError(f"{tool.name}: no answer within {self._settings.call_timeout_s:g} s.")
        error.retryable = True
        return error


def check_size(tool: Tool, size: int, settings: BrokerSettings) -> None:
    """Raises BudgetExceeded: a result, or one part of one, is too large."""
    most = settings.result_mb * MIB
    if size > most:
        advice = "Yield smaller parts." if tool.streams else "Ask for less at once."
        raise BudgetExceeded(
            f"{tool.name}: the result takes {size:,} bytes; the most is {most:,}. {advice}",
            data={"budget": "result_mb", "limit": settings.result_mb, "result_bytes": size},
        )
