"""Runs paused cells again when a person has decided, whichever gateway is there to do it, and once.

The session's own gateway comes first: its kernel may still be warm. A gateway that died in the middle is followed by
another when its claim is over; what it did is in the journal, so nothing happens twice.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from gateway.session_errors import NotSaved, SessionEnded, SessionLost, SessionNotFound
from gateway.settings import ApprovalSettings
from gateway.types import CallRecord, CellRun, Grant
from kernel_pool.types import KernelPoolError

from .due_rows import Due, DueRows
from .types import describe_outcome

log = structlog.get_logger(__name__)

#: A cell that cannot run again, whatever is tried, is tried as often.
_RARELY_S = 3600.0

_PASSING = (OSError, psycopg.Error, PoolTimeout, KernelPoolError, NotSaved)


class Runs(Protocol):
    """What is needed of `gateway.sessions.Sessions`."""

    async def run_cell(self, session: str, code: str, *, cell_id: str | None = None) -> CellRun: ...

    async def restore(self, session: str) -> object: ...


#: Makes calls without a kernel again, in order, under their pseudo-cell.
RunStep = Callable[[Grant, str, list[tuple[str, dict[str, object]]]], Awaitable[tuple[CallRecord, ...]]]


class Resumer:
    """One per gateway."""

    def __init__(
        self,
        rows: DueRows,
        settings: ApprovalSettings,
        *,
        sessions: Runs,
        run_step: RunStep,
        here: Callable[[], Collection[str]],
    ) -> None:
        """`here`: the sessions that this gateway has a kernel of."""
        self._rows = rows
        self._settings = settings
        self._sessions = sessions
        self._run_step = run_step
        self._here = here
        self._me = secrets.token_hex(8)
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        #: Cells that cannot run again: how often it was tried, and when it will be next (loop time).
        self._failed: dict[tuple[str, str], tuple[int, float]] = {}

    def wake(self) -> None:
        """Something was decided here: look now."""
        self._wake.set()

    async def run(self) -> None:
        """For ever: look for what is due, and run it."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self.look()
                except _PASSING as error:
                    log.warning("paused cells cannot be looked up", error=str(error))
                try:
                    await asyncio.wait_for(self._wake.wait(), self._settings.look_s)
                except TimeoutError:
                    continue
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def look(self) -> None:
        """Take what is due now; it runs on by itself."""
        await self._rows.settle()
        for due in await self._rows.due(self._here(), self._settings.elsewhere_s):
            if self._failed.get((due.session, due.cell), (0, 0.0))[1] > asyncio.get_running_loop().time():
                continue
            ids = await self._rows.claim(due, self._me, self._settings.claim_s)
            if ids:
                task = asyncio.create_task(self._resume(due, ids))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _resume(self, due: Due, ids: list[str]) -> None:
        keeping = asyncio.create_task(self._keep(ids))
        try:
            outcome = await self._outcome(due, ids)
            await self._rows.resumed(ids, outcome)
            self._failed.pop((due.session, due.cell), None)
            log.info("a paused cell has had its answer", session=due.session, cell=due.cell)
        except _PASSING as error:  # the claim is over by itself, and the next look is another try
            log.warning("a paused cell could not run again yet", session=due.session, error=str(error))
        except Exception as error:  # noqa: BLE001 - one session's trouble must not end the others' work
            again_s = self._wait_longer(due)
            log.error(
                "a paused cell cannot run again", session=due.session, cell=due.cell, error=str(error), again_s=again_s
            )
        finally:
            keeping.cancel()

    def _wait_longer(self, due: Due) -> float:
        """Seconds until the cell is tried again: each time twice as many, up to an hour."""
        times = self._failed.get((due.session, due.cell), (0, 0.0))[0] + 1
        again_s: float = min(self._settings.claim_s * 2**times, _RARELY_S)
        self._failed[due.session, due.cell] = times, asyncio.get_running_loop().time() + again_s
        return again_s

    async def _keep(self, ids: list[str]) -> None:
        kept = True
        while kept:
            await asyncio.sleep(self._settings.claim_s / 3)
            try:
                kept = await self._rows.keep(ids, self._me, self._settings.claim_s)
            except _PASSING as error:
                log.warning("a claim could not be kept", error=str(error))

    async def _outcome(self, due: Due, ids: list[str]) -> str:
        """Run it; what came of it, for the conversation."""
        ended = "The session has ended meanwhile: nothing was done."
        if due.ended:
            return ended
        try:
            code = await self._rows.code(due.session, due.cell)
            if code is None:
                return await self._step(due, ids[0])
            return (await self._cell(due, code)).envelope
        except (SessionEnded, SessionNotFound):
            return ended

    async def _cell(self, due: Due, code: str) -> CellRun:
        for attempt in (1, 2):
            try:
                return await self._sessions.run_cell(due.session, code, cell_id=due.cell)
            except SessionLost:
                if attempt == 2:
                    raise
                await self._sessions.restore(due.session)
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def _step(self, due: Due, id: str) -> str:
        asker = await self._rows.asker(id)
        if asker is None:
            return ""
        grant = Grant(tenant=asker.tenant, principal=asker.principal, session=due.session, role=asker.role)
        calls = await self._run_step(grant, due.cell, await self._rows.calls(due.session, due.cell))
        return "\n".join(describe_outcome(call) for call in calls)
