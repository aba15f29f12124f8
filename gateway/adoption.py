"""Sessions whose kernels outlived the gateway before: taken over with what they are in the middle of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog

from gateway.broker import Broker
from gateway.cell_run import OutputStream
from gateway.cell_runner import CellRunner
from gateway.live_session import LiveSession
from gateway.session_rows import RunningCell, SessionInfo, SessionRows
from gateway.tracing import within
from gateway.transcripts.store import NAME
from gateway.types import CellRun
from kernel_pool.pool import Kernel, Pool

log = structlog.get_logger(__name__)

_NOT_TAKEN = "the gateway was restarted and could not take the session over"

#: How a cell is queued: session, cell, stream for its outputs, and the rest of it.
Queue = Callable[[LiveSession, RunningCell, OutputStream, Coroutine[Any, Any, CellRun]], object]


async def adopt_all(
    pool: Pool,
    rows: SessionRows,
    broker: Broker,
    runner: CellRunner,
    take_in: Callable[[SessionInfo], Awaitable[LiveSession]],
    queue: Queue,
    told: Sequence[Callable[[str, Kernel], None]] = (),
) -> None:
    """Give every kernel that an earlier gateway leased back to its session; end those of no session, or an ended one.

    `told`: of each kernel that a session has again. One that cannot be taken over is logged, its kernel ended, and the
    session lost.
    """

    async def one(note: str) -> None:
        kernel = pool.adopt(note)
        if kernel is None:
            return
        try:
            info = await rows.get(note) if NAME.match(note) else None
            if info is not None and info.state == "live" and not info.elsewhere:
                await _adopt(info, kernel, rows, broker, runner, take_in, queue, told)
                return
            # a session that is lost and has a kernel was being restored: not all of its variables are there
        except Exception as error:  # noqa: BLE001 - one session's trouble must not keep the gateway from the others
            log.error("a session could not be taken over", session=note, error=str(error))
        await pool.release(kernel)

    await asyncio.gather(*(one(note) for note in pool.adopted))


async def _adopt(
    info: SessionInfo,
    kernel: Kernel,
    rows: SessionRows,
    broker: Broker,
    runner: CellRunner,
    take_in: Callable[[SessionInfo], Awaitable[LiveSession]],
    queue: Queue,
    told: Sequence[Callable[[str, Kernel], None]],
) -> None:
    live = await take_in(info)
    live.lost = _NOT_TAKEN
    running = await rows.running(info.id)
    await rows.abandon(info.id, but=running.id if running else "")
    if running is not None:
        # before the socket is there: a call that waits for it belongs to this cell
        with within(running.trace):
            await broker.begin_cell(info.id, running.id, resume=True, deadline_s=running.left_s)
    if not kernel.exited.done():  # else it died while no gateway was there, and its session is to know of what
        await broker.arm(kernel.broker_path, live.grant)
    live.kernel, live.lost = kernel, ""
    for each in told:
        each(info.id, kernel)
    if running is not None:
        cell, stream = running, runner.stream()

        async def rest() -> CellRun:
            async with live.lock:
                return await runner.resume(live, cell, stream)

        queue(live, cell, stream, rest())
    log.info("session goes on", session=info.id, cell=running.id if running else "")
