"""The journal's rows of reads, written behind the calls: an answer goes out when its row is on the way to the database.

A read does no harm twice, so it need not wait for the disk as a write does. Its row is sent, when it is over or takes
long, over one connection that many statements are under way on (libpq's pipeline mode,
https://www.postgresql.org/docs/current/libpq-pipeline-mode.html). What must not be is a write whose arguments
came from a read that the journal does not have: before a write is entered, and at the end of a cell, `flush` waits for
the session's rows.

Rows go out some at a time, and the large ones by a thread (`freight`), so that none stands in the way of its answer.
Rows are kept here until the database has said that it has them, and are sent again over a new connection when one
breaks; entering a row twice changes nothing. They are kept in a file, too (`spool`): when this process is killed, the
gateway that comes next on its data folder sends them before it takes over the kernels. So a read that was answered is
in the journal, whatever is killed. Given up: one whose row was on the way when the whole machine stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from .freight import LARGE, PAUSES_S, Connect, Freight
from .read_rows import ENTER, FORMATS, LAZY, Waiting
from .read_rows import Read as Read
from .spool import Fields, Segment, Spool

log = structlog.get_logger(__name__)

#: Bytes of rows that may wait for the database; then calls wait.
ROOM = 64 * 1024 * 1024

#: Rows that come within this time, in seconds, go out together, after the answers that they are of.
GATHER_S = 0.001

#: Classes of SQLSTATE that pass: connection, rollback, resources, operator's intervention, system.
_PASSING = ("08", "40", "53", "55", "57", "58")

_NAME = b"read"


class NotJournaled(Exception):
    """A row could not be written."""


class WriteBehind:
    """One connection for the rows of all sessions' reads. Opens it at the first."""

    def __init__(self, connect: Connect, spool: Spool | None = None) -> None:
        """`spool`: where rows outlive this process; None: they do not."""
        self._connect = connect
        self._spool = spool
        self._complained = False
        #: In the order in which they were sent, until they are confirmed.
        self._waiting: dict[Waiting, None] = {}
        self._sessions: dict[str, dict[Waiting, None]] = {}
        self._weight = 0
        self._room = asyncio.Event()
        self._room.set()
        self._line: _Line | None = None
        #: Those that the next turn sends, and what calls it.
        self._unsent: list[Waiting] = []
        self._turn: asyncio.TimerHandle | None = None
        self._freight = Freight(connect, self._confirmed)
        self._connecting: asyncio.Task[None] | None = None

    async def recover(self, timeout_s: float) -> None:
        """Send what a gateway before this one was killed with. What the database does not take in time goes on."""
        if self._spool is None:
            return
        try:
            left = await asyncio.to_thread(list, self._spool.left())
        except OSError as error:
            log.error("rows of reads that the gateway before left cannot be read", error=str(error))
            return
        found = [Waiting((row[0] or b"").decode(), row, sum(map(len, filter(None, row))), seg) for seg, row in left]
        for waiting in found:
            self._add(waiting)
        if found:
            log.info("rows of reads that the gateway before left", count=len(found))
            await asyncio.wait([each.written for each in found], timeout=timeout_s)

    async def put(self, read: Read) -> None:
        """The row outlives this process, and is on its way, when this returns. Waits only where too much is already."""
        while self._weight > ROOM:
            self._freight.hurry()
            self._room.clear()
            await self._room.wait()
        weight = len(read.result or "") + len(read.table or b"") + len(read.args) + 1000
        parameters, segment = self._keep(read) if weight < LARGE else await asyncio.to_thread(self._keep, read)
        self._add(Waiting(read.key.session, parameters, weight, segment))

    def _keep(self, read: Read) -> tuple[Fields, Segment | None]:
        parameters = read.parameters()
        try:
            return parameters, None if self._spool is None else self._spool.keep(parameters)
        except OSError as error:
            self._complain(error)
            return parameters, None

    def _add(self, waiting: Waiting) -> None:
        self._waiting[waiting] = None
        self._sessions.setdefault(waiting.session, {})[waiting] = None
        self._weight += waiting.weight
        self._send(waiting)

    async def flush(self, session: str) -> None:
        """All rows of the session that were put so far are in the database.

        Raises:
            NotJournaled: one of them cannot be.
        """
        if session in self._sessions:
            self._send_unsent()
            self._freight.hurry()
            await asyncio.gather(*(asyncio.shield(each.written) for each in tuple(self._sessions[session])))

    async def flush_all(self) -> None:
        """The same for every session. Raises NotJournaled."""
        for session in tuple(self._sessions):
            await self.flush(session)

    async def close(self, timeout_s: float) -> None:
        """Wait a little for what is on its way, then close."""
        self._send_unsent()
        self._freight.hurry()
        if self._waiting:
            await asyncio.wait([each.written for each in self._waiting], timeout=timeout_s)
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        await self._freight.close()
        if self._turn is not None:
            self._turn.cancel()
        if self._line is not None:
            await self._line.close()
        kept = sum(each.segment is not None for each in self._waiting)
        if kept:
            log.warning("rows of reads are left to the next gateway", count=kept)
        if len(self._waiting) > kept:
            log.error("rows of reads are lost", count=len(self._waiting) - kept)
        if self._spool is not None:
            self._spool.close()

    def _send(self, waiting: Waiting) -> None:
        if waiting.weight >= LARGE:
            self._freight.send(waiting)
        elif self._line is not None:
            self._unsent.append(waiting)
            if self._turn is None:
                self._turn = asyncio.get_running_loop().call_later(GATHER_S, self._send_unsent)
        elif self._connecting is None:
            self._connecting = asyncio.create_task(self._open())

    def _send_unsent(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        unsent, self._unsent = self._unsent, []
        if self._line is not None and unsent:
            try:
                self._line.send(unsent)
            except psycopg.Error as error:
                self._broken(error)

    async def _open(self) -> None:
        """Connect, again and again, and send what waits."""
        pause = PAUSES_S[0]
        while True:
            try:
                self._line = _Line(await self._connect(), self._confirmed, self._broken)
                break
            except psycopg.Error as error:
                log.warning("the journal of reads cannot be reached", error=str(error).partition("\n")[0])
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSES_S[1])
        self._connecting = None
        self._unsent = [waiting for waiting in self._waiting if waiting.weight < LARGE]
        self._send_unsent()

    def _broken(self, error: psycopg.Error) -> None:
        line, self._line = self._line, None
        if line is not None:
            log.warning("the connection to the journal of reads broke", error=str(error).partition("\n")[0])
            line.abandon()
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open())

    def _confirmed(self, waiting: Waiting, sqlstate: str) -> None:
        if sqlstate[:2] in _PASSING:
            asyncio.get_running_loop().call_later(PAUSES_S[1], self._again, waiting)
            return
        if waiting not in self._waiting:
            return
        del self._waiting[waiting]
        if waiting.segment is not None and self._spool is not None:
            try:
                self._spool.done(waiting.segment)
            except OSError as error:
                self._complain(error)
        session = waiting.session
        own = self._sessions[session]
        del own[waiting]
        if not own:
            del self._sessions[session]
        self._weight -= waiting.weight
        self._room.set()
        if waiting.written.done():
            return
        if sqlstate:
            log.error("a read cannot be journaled", session=session, sqlstate=sqlstate)
            waiting.written.set_exception(NotJournaled(f"the journal refused the row of a read ({sqlstate})"))
            waiting.written.exception()  # looked at: nobody need wait for it
        else:
            waiting.written.set_result(None)

    def _complain(self, error: OSError) -> None:
        """Once: the rows go to the database all the same."""
        if not self._complained:
            self._complained = True
            log.error("rows of reads would not outlive a kill: their file cannot be written", error=error.strerror)

    def _again(self, waiting: Waiting) -> None:
        if waiting in self._waiting and (self._line is not None or waiting.weight >= LARGE):
            self._send(waiting)


class _Line:
    """One connection in pipeline mode, one statement and one synchronisation point for each row."""

    def __init__(
        self,
        connection: AsyncConnection[Any],
        confirmed: Callable[[Waiting, str], None],
        broken: Callable[[psycopg.Error], None],
    ) -> None:
        self._connection = connection
        self._pg: PGconn = connection.pgconn
        self._confirmed = confirmed
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._sent: deque[Waiting | None] = deque()
        self._sqlstate = ""
        self._full = False
        self._socket = self._pg.socket
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._pg.send_query_params(LAZY, None)
        self._pg.pipeline_sync()
        self._pg.send_prepare(_NAME, ENTER)
        self._pg.pipeline_sync()
        self._sent += [None, None]
        self._flush()
        self._loop.add_reader(self._socket, self._readable)

    def send(self, rows: Iterable[Waiting]) -> None:
        """Raises psycopg.Error where the connection is broken."""
        for waiting in rows:
            self._pg.send_query_prepared(_NAME, waiting.parameters, FORMATS)
            self._pg.pipeline_sync()
            self._sent.append(waiting)
        self._flush()

    def abandon(self) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._pg.finish()

    async def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        await self._connection.close()

    def _flush(self) -> None:
        full = bool(self._pg.flush())
        if full and not self._full:
            self._loop.add_writer(self._socket, self._writable)
        elif self._full and not full:
            self._loop.remove_writer(self._socket)
        self._full = full

    def _writable(self) -> None:
        try:
            self._pg.consume_input()  # the server may wait for us to read before it reads on
            self._flush()
        except psycopg.Error as error:
            self._broken(error)

    def _readable(self) -> None:
        try:
            self._pg.consume_input()
            if self._full:
                self._flush()
            self._take_results()
        except psycopg.Error as error:
            self._broken(error)

    def _take_results(self) -> None:
        """libpq ends each statement's results with None; two of them in a row: there is nothing more yet."""
        nothing = 0
        while nothing < 2 and not self._pg.is_busy():
            result = self._pg.get_result()
            if result is None:
                nothing += 1
                continue
            nothing = 0
            if result.status == ExecStatus.PIPELINE_SYNC:
                waiting = self._sent.popleft()
                sqlstate, self._sqlstate = self._sqlstate, ""
                if waiting is not None:
                    self._confirmed(waiting, sqlstate)
            elif result.status in (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED):
                field = result.error_field(67)  # PG_DIAG_SQLSTATE, the letter C
                self._sqlstate = field.decode() if field else "XX000"
