"""Cells and their checks: begun beside the lease, waited for where a tool could be called, told at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from gateway.cell_run import evaluate
from gateway.checking.checker import Checker, Draft, Look
from gateway.checking.history import History
from gateway.checking.types import Check, Finding
from gateway.envelope import VARIABLES, variables_of
from gateway.tool_catalogue import Catalogue
from gateway.types import Grant
from kernel_pool.pool import Kernel
from kernel_pool.sandbox.namespace import look_expression
from kernel_pool.types import CellError, CellResult, KernelGone

#: Time that a kernel may take to say what it knows of a few names.
_LOOK_S = 2.0
_LOOK = "omniops_look"
#: Names that a kernel is asked about at a time.
_NAMES = 200


class CellCheck:
    """The check of one cell."""

    def __init__(self, checker: Checker, history: History, code: str, grant: Grant, catalogue: Catalogue) -> None:
        self._checker = checker
        #: A cell that can call no tool does no harm that its own error would not tell of: nobody waits for its check.
        self.waits = checker.mode == "enforce" and history.reaches_tools(code)
        self._draft: asyncio.Task[Draft] = asyncio.create_task(checker.check(code, history, catalogue.of(grant)))

    async def before(self, kernel: Kernel) -> Check | None:
        """What the cell has to wait for; `stopped` where it is not to run. None where it need not wait."""
        if not self.waits:
            return None
        return await self._checker.conclude(await self._draft, lambda names: _look(kernel, names))

    async def after(self) -> Check:
        """What a cell that ran without waiting is told; it has come to its end by itself, so nothing is certain."""
        draft = await self._draft
        found = tuple(_doubted(finding) for finding in draft.findings)
        return Check(found, ms=draft.ms, note=draft.note)

    async def drop(self) -> None:
        """Nobody wants it."""
        self._draft.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._draft


class CellChecks:
    """Begins the checks of all sessions of this gateway."""

    def __init__(self, checker: Checker, catalogue: Catalogue) -> None:
        self._checker = checker
        self._catalogue = catalogue

    def history(self) -> History:
        """For a kernel that is new."""
        return self._checker.history()

    def begin(self, code: str, history: History, grant: Grant) -> CellCheck | None:
        """None where cells are not checked."""
        if self._checker.mode == "off":
            return None
        return CellCheck(self._checker, history, code, grant, self._catalogue)


def stopped(check: Check) -> CellResult:
    """What a cell comes to that does not run: the error that its first hopeless line would have raised."""
    now = datetime.now(UTC)
    first = check.certain[0]
    message = "\n".join(f"line {each.line}: {each.name}: {each.message}" for each in check.certain)
    error = CellError(first.name, first.message, ())
    output = {"output_type": "error", "ename": first.name, "evalue": first.message, "traceback": message.split("\n")}
    return CellResult(
        status="error",
        execution_count=None,
        outputs=(output,),
        error=error,
        started=now,
        ended=now,
        reason="not run: its check found what cannot go well",
        output_bytes=len(message),
    )


def note_run(history: History, code: str, result: CellResult) -> None:
    """Take a cell that was in the kernel into the history of its namespace."""
    variables = variables_of(result)
    changed = (*variables.new, *variables.changed, *variables.deleted)
    unknown = VARIABLES not in result.user_expressions or variables.more > 0
    history.add(code, ok=result.status == "ok", changed=changed, all_changed=unknown)


def _doubted(finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, kind="likely") if finding.kind == "certain" else finding


async def _look(kernel: Kernel, names: Sequence[str]) -> Look | None:
    """The answer is a stranger's; only this session's own cell hangs on it."""
    expression = look_expression(names[:_NAMES])
    try:
        looked = await evaluate(kernel, {_LOOK: expression}, _LOOK_S)
    except KernelGone:
        return None
    try:
        return msgspec.json.decode(looked.user_expressions.get(_LOOK, ""), type=Look)
    except msgspec.MsgspecError:
        return None
