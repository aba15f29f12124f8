"""One cell in one kernel, as a session runs it: outputs to event sinks as they come, variables at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gateway.envelope import VARIABLES, shown
from gateway.session_rows import RunningCell
from gateway.transcripts.clean import plain
from gateway.transcripts.overflow import CellOverflow
from gateway.types import Event, EventSink
from kernel_pool.channels import Request
from kernel_pool.outputs import Overflow
from kernel_pool.pool import Kernel
from kernel_pool.sandbox.namespace import EXPRESSION
from kernel_pool.types import CellResult, CellUnknown, KernelGone

#: Wall time for looking at a kernel's variables after a cell that failed.
_LOOK_S = 5.0
#: How often it is asked, where it drops the question.
_LOOKS = 5
_LOOK = {VARIABLES: EXPRESSION}


class OutputStream:
    """`put` never waits; each sink gets the texts in order, joined where it is slower than the kernel.

    All of them are held until the cell is over, for sinks that come later: bounded by what the pool keeps of a cell.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._texts: list[str] = []
        self._over = False
        self._pumps: dict[asyncio.Task[None], asyncio.Event] = {}

    def listen(self, sink: EventSink, after: int = 0) -> None:
        """Give the sink what was put so far, and what will be; less the first `after` characters, which it has had."""
        wake = asyncio.Event()
        wake.set()
        self._pumps[asyncio.create_task(self._run(sink, wake, after))] = wake

    def put(self, output: Mapping[str, Any]) -> None:
        """One output, as the kernel sent it."""
        text = _text(output)
        if text:
            self._texts.append(text)
            self._wake()

    def end(self) -> None:
        """Nothing more is put."""
        self._over = True
        self._wake()

    async def close(self) -> None:
        """Everything has been handed to the sinks when this returns."""
        self.end()
        await asyncio.gather(*self._pumps)

    def _wake(self) -> None:
        for wake in self._pumps.values():
            wake.set()

    async def _run(self, sink: EventSink, wake: asyncio.Event, after: int) -> None:
        told = at = 0
        while told < len(self._texts) or not self._over:
            await wake.wait()
            wake.clear()
            text, told = "".join(self._texts[told:]), len(self._texts)
            event, at = output_event(text, at, after, self._redact), at + len(text)
            if event is not None:
                await sink(event)


def output_event(text: str, at: int, after: int, redact: Callable[[str], str]) -> Event | None:
    """Output of a cell that begins at character `at`, without the first `after` ones of all; None if none is left.

    Its id says up to where all of it has been told.
    """
    fresh = text[max(0, after - at) :]
    return Event("output", {"text": redact(plain(fresh))}, id=str(at + len(text))) if fresh else None


def text_of(outputs: Iterable[Mapping[str, Any]]) -> str:
    """What a cell that is over has told as `output` events, of its outputs as the transcript has them."""
    return "".join(map(_text, outputs))


async def execute_cell(
    kernel: Kernel,
    code: str,
    cell_id: str,
    msg_id: str,
    deadline_s: float,
    stream: OutputStream,
    overflow: Overflow | None = None,
) -> CellResult:
    """The cell's result, with what changed in the kernel's variables; also of a kernel that is gone already."""
    try:
        result = await kernel.execute(
            code,
            deadline_s=deadline_s,
            on_output=stream.put,
            user_expressions=_LOOK,
            cell_id=cell_id,
            msg_id=msg_id,
            overflow=overflow,
        )
    except KernelGone as gone:
        return _dead(gone)
    return await _with_variables(kernel, result)


async def execute_request(
    kernel: Kernel, code: str, request: Request, deadline_s: float, overflow: Overflow | None = None
) -> CellResult:
    """The same for what a Jupyter client asks for; its variables are not looked at."""
    try:
        return await kernel.execute(code, deadline_s=deadline_s, request=request, overflow=overflow)
    except KernelGone as gone:
        return _dead(gone)


async def resume_cell(kernel: Kernel, cell: RunningCell, stream: OutputStream, overflow: CellOverflow) -> CellResult:
    """The same for a cell that an earlier gateway began, with all its outputs. One that never arrived is sent now."""
    try:
        result = await kernel.resume(
            cell.msg_id,
            deadline_s=cell.left_s,
            on_output=stream.put,
            allowed_s=cell.allowed_s,
            started=cell.started,
            overflow=overflow,
            earlier=await overflow.earlier(),
        )
    except CellUnknown:
        await overflow.anew()
        return await execute_cell(kernel, cell.code, cell.id, cell.msg_id, cell.allowed_s, stream, overflow)
    except KernelGone as gone:
        return replace(_dead(gone), started=cell.started, reason=f"{gone.exit.detail}; the kernel's state is lost")
    return await _with_variables(kernel, result)


async def evaluate(kernel: Kernel, expressions: Mapping[str, str], deadline_s: float) -> CellResult:
    """Have a kernel that is idle evaluate expressions of ours: an empty cell does nothing else.

    Raises:
        KernelGone
    """
    for _ in range(_LOOKS):
        looked = await kernel.execute("", deadline_s=deadline_s, user_expressions=expressions, silent=True)
        if looked.status != "error" or looked.error is not None:
            break  # else a kernel that is about to forget what waited behind a cell that failed has dropped this, too
    return looked


async def _with_variables(kernel: Kernel, result: CellResult) -> CellResult:
    if result.status == "ok" or result.state_lost:
        return result
    # Jupyter evaluates no expressions after an error
    try:
        looked = await evaluate(kernel, _LOOK, _LOOK_S)
    except KernelGone as gone:
        return replace(result, state_lost=True, exit=gone.exit)
    if looked.state_lost:
        return replace(result, state_lost=True, exit=looked.exit)
    return replace(result, user_expressions=looked.user_expressions)


def _dead(gone: KernelGone) -> CellResult:
    now = datetime.now(UTC)
    return CellResult(
        status="dead",
        execution_count=None,
        outputs=(),
        error=None,
        started=now,
        ended=now,
        reason=f"not run: {gone.exit.detail}; the kernel's state is lost",
        state_lost=True,
        exit=gone.exit,
    )


def _text(output: Mapping[str, Any]) -> str:
    kind = output.get("output_type")
    if kind == "stream":
        return str(output.get("text", ""))
    if kind in ("display_data", "execute_result"):
        return f"{shown(output['data'])}\n"
    if kind == "error":
        return f"{output.get('ename')}: {output.get('evalue')}\n"
    return ""
