"""Sessions that get their kernels anew: restored, taken over from a gateway that is gone, or given up to another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from gateway.broker import Broker
from gateway.cell_runner import CellRunner
from gateway.live_session import LiveSession, SessionKernels
from gateway.session_book import SessionBook
from gateway.session_errors import SessionEnded
from gateway.session_requests import Queue
from gateway.session_rows import SessionRows
from gateway.settings import CellSettings
from gateway.transcripts.store import NAME
from gateway.types import CellRun
from kernel_pool.pool import Pool

log = structlog.get_logger(__name__)


class SessionMoves:
    """Methods belong to one event loop."""

    def __init__(
        self,
        book: SessionBook,
        kernels: SessionKernels,
        runner: CellRunner,
        rows: SessionRows,
        pool: Pool,
        broker: Broker,
        settings: CellSettings,
        queue: Queue,
        *,
        recover: bool,
    ) -> None:
        """`recover`: a session that is taken over from a gateway that is gone is restored at its first use."""
        self._book = book
        self._kernels = kernels
        self._runner = runner
        self._rows = rows
        self._pool = pool
        self._broker = broker
        self._settings = settings
        self._queue = queue
        self._recover = recover
        #: Told each session that another gateway has taken, before it is let go of.
        self.evicted: list[Callable[[str], Awaitable[None]]] = []
        #: Told each session that gets its kernel back by itself, and what does it.
        self.recovering: list[Callable[[str, asyncio.Task[Any]], None]] = []

    async def restore(self, session: str) -> tuple[CellRun, ...]:
        """A new kernel for the session, with the variables that its cells had made; those runs.

        Cells that ended by themselves since the last restart, well or with an error, run again in order. One that was
        interrupted, or whose kernel died, does not: run it again by its id. What they changed is not changed again, nor
        anything new.

        Raises:
            SessionNotFound, SessionEnded, KernelPoolError
        """
        live = await self._book.find(session)
        live.moved = False
        runs: tuple[CellRun, ...] = await asyncio.shield(self._queue(live, self._restored(live)))
        return runs

    async def _restored(self, live: LiveSession) -> tuple[CellRun, ...]:
        async with live.lock:
            if live.over:
                raise SessionEnded(live.grant.session)
            await self._kernels.lose(live, "restoring it did not come to an end")
            await self._kernels.lease(live)
            runs: list[CellRun] = []
            deadline, stream = self._settings.deadline_s, self._runner.stream()
            first = await self._rows.first_cell(live.grant.session)
            for cell in await self._rows.cells(live.grant.session):
                if cell.index < first:
                    continue
                if cell.status in ("ok", "error") and not cell.stopped and live.kernel is not None:
                    runs.append(await self._runner.run(live, cell, deadline, stream, replay=True))
            if live.kernel is not None:
                await self._kernels.set_state(live, "live")
            return tuple(runs)

    async def open(self, session: str) -> LiveSession:
        """The session, in hand. One whose gateway is gone is being restored when this returns, before any cell runs.

        Raises:
            SessionNotFound, SessionEnded
            OwnedElsewhere: another gateway that lives has it.
        """
        live = await self._book.find(session)
        if live.moved:
            live.moved = False
            if self._recover:
                log.info("a session is restored whose gateway is gone", session=session)
                task = self._queue(live, self._restored(live))
                for told in self.recovering:
                    told(session, task)
        return live

    async def fetch(self, session: str, tenant: str | None) -> None:
        """Have the record of a session here that is, or was, another gateway's. `session`: or how its id begins."""
        found = await self._rows.beginning_with(session, tenant) if NAME.match(session) else []
        exact = [info for info in found if info.id == session]
        if len(exact or found) == 1:
            await self._book.fetch((exact or found)[0])

    async def evict(self, session: str) -> None:
        """Another gateway has the session: whatever runs for it here ends, and nothing more is saved."""
        live = self._book.live.get(session)
        if live is None:
            return
        for tell in self.evicted:
            await tell(session)
        live.over = True
        for task in tuple(live.tasks):
            task.cancel()
        await self._broker.disarm(session)
        kernel, live.kernel = live.kernel, None
        if kernel is not None:
            await self._pool.release(kernel)
        live.owed.clear()
        self._book.drop(live)
