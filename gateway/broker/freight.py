"""Large rows of reads: written one after the other by a thread, over a connection of their own.

On the line of the small ones (`behind`) such a row would hold up the event loop: libpq moves what is left of it after
each part that the socket takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn

from .read_rows import ENTER, FORMATS, LAZY, Waiting

log = structlog.get_logger(__name__)

Connect = Callable[[], Coroutine[Any, Any, AsyncConnection[Any]]]

#: Rows from this size on, in bytes.
LARGE = 128 * 1024

#: Seconds that a row waits before it is written, unless somebody waits for it: its answer is on the way meanwhile, and
#: what it is worth to its reader is not to wait for the copies of it that the journal takes.
AFTER_S = 0.05

#: Pauses between attempts to connect again, seconds: the first, doubled each time up to the second.
PAUSES_S = (0.05, 2.0)

#: The letter C.
_SQLSTATE = 67


class Freight:
    """Connects at the first row; again when the connection breaks, and sends the row again."""

    def __init__(self, connect: Connect, confirmed: Callable[[Waiting, str], None]) -> None:
        """`confirmed`: told of each row that the database has answered, with "" or what SQLSTATE it refused it for."""
        self._connect = connect
        self._confirmed = confirmed
        self._rows: deque[Waiting] = deque()
        self._connection: AsyncConnection[Any] | None = None
        self._carrying: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[str] | None = None

    def send(self, waiting: Waiting) -> None:
        self._rows.append(waiting)
        if self._later is None and (self._carrying is None or self._carrying.done()):
            self._later = asyncio.get_running_loop().call_later(AFTER_S, self.hurry)

    def hurry(self) -> None:
        """Somebody waits for what was sent."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
            self._carrying = asyncio.create_task(self._carry())

    async def close(self) -> None:
        """What is not written by now is not."""
        if self._later is not None:
            self._later.cancel()
        if self._carrying is not None:
            self._carrying.cancel()
            if self._connection is not None and self._writing is not None:
                _shut(self._connection.pgconn)  # else the thread would go on with what is closed below
                await asyncio.gather(self._writing, return_exceptions=True)
            await asyncio.wait([self._carrying])
        await self._leave()

    async def _carry(self) -> None:
        pause = PAUSES_S[0]
        while self._rows:
            try:
                sqlstate = await self._write(self._rows[0])
            except psycopg.Error as error:
                log.warning("the journal of large reads cannot be reached", error=str(error).partition("\n")[0])
                await self._leave()
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSES_S[1])
            else:
                pause = PAUSES_S[0]
                self._confirmed(self._rows.popleft(), sqlstate)

    async def _write(self, waiting: Waiting) -> str:
        """Raises psycopg.Error where the connection is broken."""
        if self._connection is None:
            self._connection = await self._connect()
            await self._connection.execute(LAZY)
            self._connection.pgconn.nonblocking = 0
        self._writing = asyncio.ensure_future(asyncio.to_thread(_enter, self._connection.pgconn, waiting))
        sqlstate = await asyncio.shield(self._writing)
        self._writing = None
        return sqlstate

    async def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()


def _enter(pg: PGconn, waiting: Waiting) -> str:
    """Runs in the thread; libpq lets the others run meanwhile."""
    result = pg.exec_params(ENTER, waiting.parameters, param_formats=FORMATS)
    if pg.status == ConnStatus.BAD:
        raise psycopg.OperationalError(pg.error_message.decode(errors="replace") or "the connection broke")
    if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        return ""
    field = result.error_field(_SQLSTATE)
    return field.decode() if field else "XX000"


def _shut(pg: PGconn) -> None:
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(pg.socket)) as ending:
        ending.shutdown(socket.SHUT_RDWR)
