"""Small real stand-ins for a session's kernel and broker: Python that runs here, tools that are functions here."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from gateway.types import CallRecord, CellRun, Event, EventSink, Grant
from kernel_pool.types import CellResult, CellStatus, KernelPoolError
from servers.errors import ToolError, ToolNotFound

GRANT = Grant(tenant="shop", principal="anna", session="s1", role="agent")


class Notebook:
    """Runs cells in one namespace of this process; top-level await works, which is how a test makes a cell wait."""

    def __init__(self) -> None:
        self.calls: list[CallRecord] = []
        self.namespace: dict[str, Any] = {"reply": self._reply}
        self.ran: list[str] = []
        self.running = asyncio.Event()
        self.interrupts = 0
        #: Raised instead of running, when set.
        self.down: KernelPoolError | None = None
        self.deaf = False
        self._task: asyncio.Future[Any] | None = None

    async def run_cell(self, code: str, sink: EventSink) -> CellRun:
        if self.down is not None:
            raise self.down
        self.ran.append(code)
        self.calls = []
        started = datetime.now(UTC)
        status: CellStatus = "ok"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                compiled = compile(code, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                value = eval(compiled, self.namespace)
                if inspect.iscoroutine(value):
                    self._task = asyncio.ensure_future(value)
                    self.running.set()
                    await self._task
            except asyncio.CancelledError:
                status = "interrupted"
                if self.deaf:
                    raise
            except Exception as error:  # noqa: BLE001 - a cell may raise anything
                status = "error"
                print(f"{type(error).__name__}: {error}")
        if printed.getvalue():
            await sink(Event("output", {"text": printed.getvalue()}))
        result = CellResult(status, len(self.ran), (), None, started, datetime.now(UTC))
        envelope = f"status: {status}\n{printed.getvalue()}"
        return CellRun(
            session="s1",
            cell=f"cell-{len(self.ran)}",
            index=len(self.ran),
            code=code,
            result=result,
            calls=tuple(self.calls),
            envelope=envelope,
            envelope_tokens=len(envelope) // 4,
        )

    def _reply(self, text: str) -> None:
        """The tool, as the journal has it."""
        cell = f"cell-{len(self.ran)}"
        self.calls.append(CallRecord("s1", cell, "support.reply", {"text": text}, 0, "read", "applied", False))

    async def interrupt(self) -> None:
        self.interrupts += 1
        if self._task is not None and not self.deaf:
            self._task.cancel()


class Tools:
    """A broker over plain async functions."""

    def __init__(self, **functions: Callable[..., Awaitable[object]]) -> None:
        self.functions = {name.replace("__", "."): function for name, function in functions.items()}
        self.cell = ""
        self.cells: list[str] = []
        self.records: list[CallRecord] = []

    async def begin_cell(self, session: str, cell: str) -> None:
        assert not self.cell, "a cell is open"
        self.cell = cell
        self.cells.append(cell)
        self.records = []

    async def end_cell(self, session: str) -> tuple[CallRecord, ...]:
        assert self.cell, "no cell is open"
        self.cell = ""
        return tuple(self.records)

    async def call(self, grant: Grant, tool: str, args: dict[str, Any]) -> object:
        assert self.cell, "a call outside of a cell"
        if tool not in self.functions:
            raise ToolNotFound(f"no tool {tool}")
        result: object = None
        error: dict[str, Any] | None = None
        try:
            result = await self.functions[tool](**args)
        except ToolError as failure:
            error = {"type": type(failure).__name__, "message": failure.message}
            raise
        finally:
            self.records.append(
                CallRecord(
                    session=grant.session,
                    cell=self.cell,
                    tool=tool,
                    args=args,
                    occurrence=0,
                    effect="read",
                    state="failed" if error else "applied",
                    replayed=False,
                    result=result,
                    error=error,
                )
            )
        return result


def function(name: str, **properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": f"{name}.", "parameters": schema}}
