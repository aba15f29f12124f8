"""Sessions in the hands of Jupyter clients: their own requests as cells, and restarts that run nothing again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gateway.broker import Broker
from gateway.cell_runner import CellRunner
from gateway.live_session import LiveSession, SessionKernels
from gateway.saving import save
from gateway.session_book import SessionBook
from gateway.session_errors import BadCell, SessionEnded
from gateway.session_rows import CellRow, SessionRows
from gateway.transcripts.clean import clean_text
from gateway.transcripts.notebook import Said
from gateway.types import CellRun
from kernel_pool.channels import Request
from kernel_pool.pool import Pool
from kernel_pool.types import Exit, ExitReason

_NOTE = "The kernel was restarted: the cells that follow begin with an empty namespace."
_RESTARTED = Exit(ExitReason.SHUTDOWN, "the kernel was restarted")

#: Runs something to its end, whether or not its caller waits; counts it among the session's cells.
Queue = Callable[[LiveSession, Coroutine[Any, Any, Any]], asyncio.Task[Any]]


class SessionRequests:
    """What Jupyter clients want of sessions, beside what everybody wants."""

    def __init__(
        self,
        book: SessionBook,
        kernels: SessionKernels,
        runner: CellRunner,
        pool: Pool,
        broker: Broker,
        queue: Queue,
        rows: SessionRows,
        open: Callable[[str], Awaitable[LiveSession]],
    ) -> None:
        """`open`: a session in hand, its kernel on the way where its gateway is gone."""
        self._rows = rows
        self._book = book
        self._broker = broker
        self._kernels = kernels
        self._runner = runner
        self._pool = pool
        self._queue = queue
        self._open = open
        #: Told each cell that goes on since before this gateway did: session, message id, and the cell's task.
        self.resumed: list[Callable[[str, str, asyncio.Task[CellRun]], None]] = []

    async def run(self, session: str, code: str, request: Request, *, deadline_s: float, code_kb: int) -> CellRun:
        """Run a client's execute_request, which asks for `code`, as a new cell, after those that are under way.

        Raises:
            SessionNotFound, SessionEnded
            SessionLost: the kernel is gone.
            BadCell: the code cannot be kept.
            NotSaved: what the session ran before cannot be saved.
            KernelPoolError: no kernel is to be had.
        """
        if "\0" in code:
            raise BadCell("The cell's code holds a NUL character, which Python source cannot.")
        if len(code.encode(errors="replace")) > code_kb * 1024:
            raise BadCell(f"The cell is larger than {code_kb} KiB (cell.code_kb).")
        live = await self._open(session)

        async def body() -> CellRun:
            async with live.lock:
                await self._kernels.ready(live)
                index, live.next_index = live.next_index, live.next_index + 1
                cell = CellRow(id=uuid.uuid4().hex[:16], index=index, code=clean_text(code), status="running")
                return await self._runner.run_request(live, cell, request, deadline_s)

        run: CellRun = await asyncio.shield(self._queue(live, body()))
        return run

    async def restart(self, session: str) -> None:
        """A new kernel with nothing in it, in place of one that lives, hangs or is gone. What ran there ends.

        Raises:
            SessionNotFound, SessionEnded
            KernelPoolError: no kernel is to be had; the session is lost then.
        """
        live = await self._book.find(session)
        live.moved = False
        if live.kernel is not None:
            await self._pool.release(live.kernel, _RESTARTED)

        async def body() -> None:
            async with live.lock:
                if live.over:
                    raise SessionEnded(session)
                await self._kernels.lose(live, "restarting it did not come to an end")
                await self._kernels.lease(live)
                await self._kernels.set_state(live, "live")
                note = Said(uuid.uuid4().hex[:16], "note", _NOTE, datetime.now(UTC))
                await save(live, partial(live.transcript.add, note), partial(self._forget, live))

        await asyncio.shield(self._queue(live, body()))

    async def _forget(self, live: LiveSession) -> None:
        """A later `restore` does not bring back what was there before."""
        await self._rows.restarted(live.grant.session, live.next_index)

    def interrupting(self, session: str) -> None:
        """The kernel is about to be interrupted by a client: the calls of its cell that only look are given up."""
        live = self._book.live.get(session)
        if live is not None and live.kernel is not None and live.executing:
            live.kernel.channels.interrupts += 1
            self._broker.interrupt(session)

    def lost(self, session: str) -> str:
        """Why the session has no kernel here that lives; "" where it has one, or never had."""
        live = self._book.live.get(session)
        if live is None:
            return "the gateway was restarted"
        if live.kernel is not None and live.kernel.exited.done():
            return live.kernel.exited.result().detail
        return live.lost

    def over(self, session: str) -> bool:
        """Whether a session that was in hand has ended, or is about to."""
        live = self._book.live.get(session)
        return live is None or live.over
