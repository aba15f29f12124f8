"""A session run again in a new kernel, its calls answered from the journal; where it does not come to the same."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from gateway.broker.from_journal import FromJournal
from gateway.broker.looks import Looks
from gateway.broker.server import Door
from gateway.cell_run import OutputStream, execute_cell
from gateway.session_rows import CellRow, SessionInfo, SessionRows
from gateway.settings import BrokerSettings
from gateway.tool_search import ToolSearch
from gateway.transcripts.diff import compare
from gateway.transcripts.notebook import Node, render
from gateway.transcripts.overflow import Spooling, told
from gateway.types import CellRun, Role
from kernel_pool.pool import Kernel, Pool


class ReplayedCell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of a replay."""

    cell: str
    index: int
    #: It came to the same; false also where it was not run.
    same: bool
    #: What differs: "code", "status", "outputs"; or why it was not run.
    what: list[str]
    #: A unified diff of it, for people.
    lines: list[str]
    #: Calls that the journal answered, and those that were refused.
    answered: int = 0
    refused: int = 0


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay came to."""

    session: str
    #: Every cell came to the same.
    same: bool
    cells: list[ReplayedCell]


class Replayer:
    """Replays sessions. A replay takes a kernel of the session's tenant, and changes nothing."""

    def __init__(
        self,
        *,
        rows: SessionRows,
        pool: Pool,
        answers: Callable[[], FromJournal],
        search: ToolSearch,
        settings: BrokerSettings,
        deadline_s: float,
        profile_for: Callable[[Role], str],
        redact: Callable[[str], str],
        spooling: Spooling,
    ) -> None:
        """`answers`: a broker for one replay; `deadline_s`: of each cell; `redact`, `spooling`: as transcripts are."""
        self._spooling = replace(spooling, room=None)
        self._rows = rows
        self._pool = pool
        self._answers = answers
        self._search = search
        self._settings = settings
        self._deadline_s = deadline_s
        self._profile_for = profile_for
        self._redact = redact

    async def replay(self, info: SessionInfo, recorded: Mapping[str, Node]) -> Replay:
        """`recorded`: the session's cells as its record has them, by id.

        Cells that ended by themselves are run, in order, each once; execution counts and where a stream was cut are not
        compared.

        Raises:
            KernelPoolError: no kernel is to be had.
        """
        profile = info.profile or self._profile_for(info.role)
        kernel = await self._pool.lease(profile, tenant=info.tenant, note=f"replay-{info.id}"[:64])
        answers = self._answers()
        door = Door(
            kernel.broker_path, info.grant, answers, Looks(info.grant, self._search, self._settings), self._settings
        )
        try:
            await door.open()
            cells = [
                await self._cell(info, row, recorded.get(row.id), kernel, answers)
                for row in await self._rows.cells(info.id)
            ]
        finally:
            await door.close()
            await self._pool.release(kernel)
        return Replay(session=info.id, same=all(cell.same for cell in cells), cells=cells)

    async def _cell(
        self, info: SessionInfo, row: CellRow, recorded: Node | None, kernel: Kernel, answers: FromJournal
    ) -> ReplayedCell:
        if row.stopped:
            return ReplayedCell(cell=row.id, index=row.index, same=True, what=["stopped by its check"], lines=[])
        if row.status not in ("ok", "error"):
            return ReplayedCell(cell=row.id, index=row.index, same=False, what=[f"it was {row.status}"], lines=[])
        if recorded is None:
            return ReplayedCell(cell=row.id, index=row.index, same=False, what=["not in the record"], lines=[])
        answers.begin(row.id)
        stream = OutputStream(self._redact)
        overflow = self._spooling.cell(None)  # only to be compared
        result = await execute_cell(kernel, row.code, row.id, uuid.uuid4().hex, self._deadline_s, stream, overflow)
        result, spool, _ = told(result, await overflow.close(result), self._spooling.redaction)
        await stream.close()
        calls = answers.end()
        run = CellRun(info.id, row.id, row.index, row.code, result, calls, "", 0, spool=spool)
        what, lines = compare(recorded, render(run, redact=self._redact))
        answered = sum(call.replayed for call in calls)
        return ReplayedCell(
            cell=row.id,
            index=row.index,
            same=not what,
            what=what,
            lines=lines,
            answered=answered,
            refused=len(calls) - answered,
        )
