"""One cell in one kernel, as a session runs it: outputs to an event sink as they come, variables at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gateway.envelope import VARIABLES, shown
from gateway.transcripts.clean import plain
from gateway.types import Event, EventSink
from kernel_pool.pool import Kernel
from kernel_pool.sandbox.namespace import EXPRESSION
from kernel_pool.types import CellResult, KernelGone

#: Wall time for looking at a kernel's variables after a cell that failed.
_LOOK_S = 5.0
_LOOK = {VARIABLES: EXPRESSION}


class OutputStream:
    """`put` never waits; the sink gets the texts in order, joined where it is slower than the kernel.

    What waits is bounded by what the pool keeps of a cell's output.
    """

    def __init__(self, sink: EventSink | None, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._texts: list[str] = []
        self._wake = asyncio.Event()
        self._over = False
        self._pump = asyncio.create_task(self._run(sink)) if sink is not None else None

    def put(self, output: Mapping[str, Any]) -> None:
        """One output, as the kernel sent it."""
        text = _text(output) if self._pump is not None else ""
        if text:
            self._texts.append(text)
            self._wake.set()

    async def close(self) -> None:
        """Everything has been handed to the sink when this returns."""
        self._over = True
        self._wake.set()
        if self._pump is not None:
            await self._pump

    async def _run(self, sink: EventSink) -> None:
        while self._texts or not self._over:
            await self._wake.wait()
            self._wake.clear()
            texts, self._texts = self._texts, []
            if texts:
                await sink(Event("output", {"text": self._redact(plain("".join(texts)))}))


async def execute_cell(kernel: Kernel, code: str, cell_id: str, deadline_s: float, stream: OutputStream) -> CellResult:
    """The cell's result, with what changed in the kernel's variables; also of a kernel that is gone already."""
    try:
        result = await kernel.execute(
            code, deadline_s=deadline_s, on_output=stream.put, user_expressions=_LOOK, cell_id=cell_id
        )
    except KernelGone as gone:
        return _dead(gone)
    if result.status == "ok" or result.state_lost:
        return result
    # Jupyter evaluates no expressions after an error; an empty cell does nothing else
    try:
        looked = await kernel.execute("", deadline_s=_LOOK_S, user_expressions=_LOOK)
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
