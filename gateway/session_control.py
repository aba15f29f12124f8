"""What can be done to cells that were asked for: wait for one by its id, interrupt it, give it up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import msgspec

from gateway.broker import Broker
from gateway.cell_run import output_event, text_of
from gateway.live_session import Job, LiveSession
from gateway.session_book import SessionBook
from gateway.session_errors import CellCancelled, ResultLost, SessionEnded
from gateway.settings import CellSettings
from gateway.transcripts.notebook import Node, render
from gateway.types import CellRun, EventSink
from kernel_pool.pool import Kernel
from kernel_pool.types import KernelGone

#: Time between two interrupts of a cell that does not stop.
_INTERRUPT_EVERY_S = 0.5
#: Time between two looks at a cell that runs in nobody's hands here.
_LOOK_EVERY_S = 0.5


class Cancelled(msgspec.Struct, frozen=True):
    """What became of a cell that was to be given up."""

    #: What it did until then.
    was: Literal["waiting", "running", "paused", "ended"]
    #: It runs no more; False: it does not heed its interrupt.
    ended: bool


class CellControl:
    """Methods belong to one event loop."""

    def __init__(self, book: SessionBook, broker: Broker, settings: CellSettings, redact: Callable[[str], str]) -> None:
        self._book = book
        self._broker = broker
        self._settings = settings
        self._redact = redact

    async def interrupt(self, session: str) -> bool:
        """Interrupt the cell that runs or is about to. True when it has ended; False where none was, or it goes on.

        Raises:
            SessionNotFound, SessionEnded
        """
        live = await self._book.find(session)
        return await self._interrupt(live, live.cells[0]) if live.cells else False

    async def cancel(self, session: str, cell: str) -> Cancelled:
        """Give a cell up: one that waits never runs, one that runs is interrupted, one that asks a person asks no more.

        Raises:
            SessionNotFound, CellNotFound
        """
        job = self._job(session, cell)
        if job is not None:
            return await self._cancel(self._book.live[session], job)
        row, _ = await self._book.cell(session, cell)
        if row.status == "paused":
            await self._broker.withdraw(session, "Its cell was cancelled.", cell)
            return Cancelled("paused", True)
        if row.status != "running":
            return Cancelled("ended", True)
        with contextlib.suppress(SessionEnded):  # else a Jupyter client's: the one that runs is the first
            await self.interrupt(session)
        row, _ = await self._book.cell(session, cell)
        return Cancelled("running", row.status != "running")

    async def known(self, session: str, cell: str) -> None:
        """Raises SessionNotFound; CellNotFound for one that neither waits nor was ever begun."""
        if self._job(session, cell) is None:
            await self._book.cell(session, cell)

    async def follow(self, session: str, cell: str, sink: EventSink, after: int = 0) -> Node:
        """Wait for a cell that was asked for before, and give `sink` its output events from character `after` on.

        Raises:
            SessionNotFound, CellNotFound
            CellCancelled: it was given up.
            ResultLost: its kernel died with its gateway.
        """
        job = self._job(session, cell)
        if job is not None:
            job.stream.listen(sink, after)
            return render(await asyncio.shield(job.task), redact=self._redact)
        row, node = await self._book.cell(session, cell)
        while row.status == "running":
            await asyncio.sleep(_LOOK_EVERY_S)
            row, node = await self._book.cell(session, cell)
        if node is None:
            raise ResultLost(session, cell)
        event = output_event(text_of(node.get("outputs", ())), 0, after, self._redact)
        if event is not None:
            await sink(event)
        return node

    def _job(self, session: str, cell: str) -> Job | None:
        live = self._book.live.get(session)
        return None if live is None else live.jobs.get(cell)

    async def _cancel(self, live: LiveSession, job: Job) -> Cancelled:
        if job.begun:
            ended = await self._interrupt(live, job.over)
            stopped = ended and not job.task.cancelled() and job.task.exception() is None
            by_itself = stopped and job.task.result().result.status in ("ok", "error")
            return Cancelled("ended" if by_itself else "running", ended)
        job.cancelled = True
        await asyncio.sleep(0)  # a task that has not taken its first step would not know why it ends
        job.task.cancel()
        await asyncio.wait((job.task,), timeout=self._settings.interrupt_grace_s)
        return Cancelled("waiting", job.task.done())

    async def _interrupt(self, live: LiveSession, over: asyncio.Event) -> bool:
        """Until the cell is over that is the first now, or for as long as its grace is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.interrupt_grace_s):
                # again and again: an interrupt that comes before the cell has begun is lost, and code may catch one
                while not over.is_set():
                    if live.executing:
                        self._broker.interrupt(live.grant.session)
                        await _interrupt(live.kernel)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(over.wait(), _INTERRUPT_EVERY_S if live.executing else 0.02)
        return over.is_set()


async def unless_cancelled(job: Job, cell: str, body: Coroutine[Any, Any, CellRun]) -> CellRun:
    """The cell's way to its end; who waits for a cell that was given up is told so. Raises CellCancelled."""
    try:
        return await body
    except asyncio.CancelledError:
        if job.cancelled:
            raise CellCancelled(cell) from None
        raise


async def _interrupt(kernel: Kernel | None) -> None:
    if kernel is not None:
        with contextlib.suppress(KernelGone):
            await kernel.interrupt()
