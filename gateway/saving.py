"""What a session did is kept in memory where it cannot be saved at present, and saved before anything more is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from gateway.session_errors import NotSaved

if TYPE_CHECKING:
    from gateway.live_session import LiveSession
    from gateway.session_rows import SessionRows
    from gateway.types import CellRun

log = structlog.get_logger(__name__)

#: What keeps something from being saved and may pass: a full disk, a database that is away.
PASSING = (OSError, psycopg.OperationalError, PoolTimeout)


async def save(live: LiveSession, *steps: Callable[[], Awaitable[object]], in_order: bool = True) -> None:
    """Take each step now or, where that cannot be at present, in `settle`. A step may be taken more than once.

    With `in_order` what is owed already comes first.
    """
    for step in steps:
        if not live.owed or not in_order:
            try:
                await step()
                continue
            except PASSING as error:
                log.error("a session cannot be saved", session=live.grant.session, error=str(error))
        live.owed.append(step)


def save_soon(live: LiveSession, run: CellRun, rows: SessionRows) -> None:
    """Save a run behind its answer, together with those that end meanwhile. `flush` waits for it.

    A gateway that is killed before has nothing of it; the next one asks the kernel for the latest cell all the same.
    """
    live.unsaved.append(run)
    if live.saving is None or live.saving.done():
        live.saving = asyncio.create_task(_save_runs(live, rows))


async def flush(live: LiveSession, most: int = 0) -> None:
    """Wait until at most so many runs are still to be saved."""
    if live.saving is not None and (len(live.unsaved) > most or most == 0):
        await asyncio.shield(live.saving)


async def _save_runs(live: LiveSession, rows: SessionRows) -> None:
    session = live.grant.session
    while live.unsaved:
        runs = tuple(live.unsaved)
        live.unsaved.clear()
        ended = {run.cell: run.result.status for run in runs}
        try:
            # the transcript first: a cell whose row says that it is over is in it
            added = partial(live.transcript.add, *runs, notebook=False)
            await save(live, added, partial(rows.end_cells, session, ended))
        except Exception as error:  # noqa: BLE001 - the boundary of a task that nobody may wait for
            log.error("cells could not be saved", session=session, cells=list(ended), error=str(error))


async def settle(live: LiveSession) -> None:
    """Save what could not be saved when it was made; the caller holds the session's lock.

    Raises:
        NotSaved: it still cannot.
    """
    while live.owed:
        try:
            await live.owed[0]()
        except PASSING as error:
            raise NotSaved(live.grant.session, error) from error
        live.owed.popleft()
