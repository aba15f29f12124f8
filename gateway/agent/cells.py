"""Acting by cells: one function, `run_cell`, in the conversation's kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from gateway.agent.arguments import parse_arguments, tool_message, unknown_function
from gateway.agent.types import REPLY, Acted, Action, FunctionTool, Message, Mode, RunCell, ToolCall
from gateway.types import CallRecord, CellRun, Event, EventSink
from kernel_pool.types import KernelPoolError

RUN_CELL: FunctionTool = {
    "type": "function",
    "function": {
        "name": "run_cell",
        "description": "Run Python in the conversation's IPython kernel; its state persists. "
        "Returns what the cell printed, its last value, new variables and errors.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The cell's source."}},
            "required": ["code"],
            "additionalProperties": False,
        },
    },
}


class CellActor:
    """Runs the model's cells. What a cell gives back to the model is its envelope."""

    mode: Mode = "cells"
    tools: Sequence[FunctionTool] = (RUN_CELL,)

    def __init__(
        self,
        *,
        system: str,
        run_cell: RunCell,
        interrupt: Callable[[], Awaitable[None]],
        stop_s: float = 10.0,
        code_kb: int = 256,
    ) -> None:
        """`interrupt` interrupts the running cell; one that is not over `stop_s` seconds later is abandoned."""
        self.system = system
        self._run_cell = run_cell
        self._interrupt = interrupt
        self._stop_s = stop_s
        self._code_kb = code_kb

    def check(self, call: ToolCall) -> Action | str:
        if call.name != "run_cell":
            return unknown_function(call.name, ["run_cell"])
        arguments = parse_arguments(call)
        if isinstance(arguments, str):
            return arguments
        code = arguments.get("code")
        if set(arguments) != {"code"} or not isinstance(code, str):
            return "run_cell takes exactly one argument: code, a string with Python source."
        if not code.strip():
            return "run_cell was called with empty code. Send the cell's source, or answer the customer in plain text."
        if len(code.encode(errors="replace")) > self._code_kb * 1024:
            return f"The cell is larger than {self._code_kb} KiB. Send a shorter one."
        return Action(call.id, call.name, arguments)

    async def act(self, step: int, actions: Sequence[Action], sink: EventSink) -> Acted:
        messages: list[Message] = []
        runs: list[CellRun] = []
        unavailable, cancelled, paused = "", False, False
        for action in actions:
            if unavailable or cancelled or paused:
                messages.append(tool_message(action.id, "Not run: an earlier cell could not be finished."))
                continue
            code = action.arguments["code"]
            await sink(Event("step", {"step": step, "mode": self.mode, "code": code}))
            try:
                run, cancelled = await self._run(code, sink)
            except KernelPoolError as error:
                unavailable = str(error)
                messages.append(tool_message(action.id, "Not run: the kernel is not available."))
                continue
            if run is None:
                messages.append(tool_message(action.id, "Stopped: the turn was ended. Its outcome is not known."))
                continue
            runs.append(run)
            paused = run.result.status == "paused"
            messages.append(tool_message(action.id, run.envelope))
            await sink(_cell_event(step, run))
        return Acted(
            messages=tuple(messages),
            runs=tuple(runs),
            calls=tuple(call for run in runs for call in run.calls if call.tool != REPLY),
            cells=tuple(run.cell for run in runs),
            unavailable=unavailable,
            cancelled=cancelled,
            paused=paused,
            answer="" if unavailable or cancelled or not runs else _answer(runs[-1]),
        )

    async def _run(self, code: str, sink: EventSink) -> tuple[CellRun | None, bool]:
        """The cell as it ran, and whether this task was cancelled meanwhile: then the cell has been interrupted."""
        task = asyncio.ensure_future(self._run_cell(code, sink))
        try:
            return await asyncio.shield(task), False
        except asyncio.CancelledError:
            return await self._stop(task), True

    async def _stop(self, task: asyncio.Future[CellRun]) -> CellRun | None:
        """Interrupt the cell and wait for its end, so that what it did is known and in the transcript.

        Not by `asyncio.timeout`: this task is being cancelled, and Python before 3.11.4 then takes the time-out's own
        cancellation for the other one.
        """
        try:
            await asyncio.wait_for(self._interrupt(), self._stop_s)
            ended, _ = await asyncio.wait([task], timeout=self._stop_s)
            return task.result() if ended else None
        except (TimeoutError, KernelPoolError):
            return None
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=self._stop_s)


def _answer(run: CellRun) -> str:
    """What the cell answered the customer; nothing, where it failed afterwards: then the model has to look again."""
    said = [call for call in run.calls if call.tool == REPLY and call.state == "applied"]
    return str(said[-1].args["text"]).strip() if said and run.result.status == "ok" else ""


def _cell_event(step: int, run: CellRun) -> Event:
    return Event(
        "cell",
        {
            "step": step,
            "cell": run.cell,
            "index": run.index,
            "envelope": run.envelope,
            "status": run.result.status,
            "ms": round((run.result.ended - run.result.started).total_seconds() * 1000, 1),
            "calls": [call_summary(call) for call in run.calls if call.tool != REPLY],
        },
    )


def call_summary(call: CallRecord) -> dict[str, object]:
    """A call of the journal, for people who watch."""
    took = (call.ended - call.started).total_seconds() * 1000 if call.started and call.ended else 0.0
    return {
        "tool": call.tool,
        "args": call.args,
        "effect": call.effect,
        "state": call.state,
        "replayed": call.replayed,
        "ms": round(took, 1),
    }
