"""The journal's rows of reads, written behind the calls: an answer goes out when its row is on the way to the database.

A read does no harm twice, so it need not wait for the disk as a write does. Its row is sent, when it is over or takes
long, over one connection that many statements are under way on (libpq's pipeline mode,
https://www.postgresql.org/docs/current/libpq-pipeline-mode.html). What must not be is a write whose arguments
came from a read that the journal does not have: before a write is entered, and at the end of a cell, `flush` waits for
the session's rows. Given up by that: a read whose row was on the way when the machine or this process was killed,
milliseconds after its answer. It is read again where the cell is.

Rows are kept here until the database has said that it has them, and are sent again over a new connection when one
breaks; entering a row twice changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from gateway.types import CallState, Grant

from .keys import CallKey

log = structlog.get_logger(__name__)

Connect = Callable[[], Coroutine[Any, Any, AsyncConnection[Any]]]

#: Bytes of rows that may wait for the database; then calls wait.
ROOM = 64 * 1024 * 1024

#: Pauses between attempts to connect again, seconds: the first, doubled each time up to the second.
_PAUSES_S = (0.05, 2.0)

#: Classes of SQLSTATE that pass: connection, rollback, resources, operator's intervention, system.
_PASSING = ("08", "40", "53", "55", "57", "58")

_NAME = b"read"
_ENTER = b"""
WITH entered AS (
    INSERT INTO call (session, cell, tool, args, args_hash, occurrence, effect, idempotency_key, state, tenant,
                      principal, result, result_table, error, result_bytes, result_rows, batches, cost, started, ended)
    VALUES ($1, $2, $3, $4, $5, $6, 'read', $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
    ON CONFLICT (session, cell, tool, args_hash, occurrence) DO UPDATE
    SET state = excluded.state, result = excluded.result, result_table = excluded.result_table,
        error = excluded.error, result_bytes = excluded.result_bytes, result_rows = excluded.result_rows,
        batches = excluded.batches, cost = call.cost + excluded.cost, ended = excluded.ended
    WHERE call.state IN ('executing', 'unknown')
    RETURNING id
)
INSERT INTO request (session, cell, id, call, replayed)
SELECT $1, $2, $20, id, false FROM entered WHERE $20 <> ''
ON CONFLICT (session, cell, id) DO UPDATE SET call = excluded.call, replayed = false
WHERE request.call <> excluded.call
"""
_FORMATS = [0] * 11 + [1] + [0] * 8


class NotJournaled(Exception):
    """A row could not be written."""


@dataclass(frozen=True)
class Read:
    """A read as its row says it."""

    key: CallKey
    grant: Grant
    args: str
    request: str
    state: CallState
    started: datetime
    ended: datetime | None = None
    result: str | None = None
    table: bytes | None = None
    error: str | None = None
    size: int = 0
    rows: int = 0
    batches: int = 0
    cost: float = 0.0

    def parameters(self) -> list[bytes | None]:
        """For `_ENTER`, in order."""
        key, grant = self.key, self.grant
        texts: list[str | bytes | None] = [
            *(key.session, key.cell, key.tool, self.args, key.args_hash, str(key.occurrence), key.idempotency_key),
            *(self.state, grant.tenant, grant.principal, self.result, self.table, self.error),
            *(str(self.size), str(self.rows), str(self.batches), str(self.cost), self.started.isoformat()),
            *(None if self.ended is None else self.ended.isoformat(), self.request),
        ]
        return [text.encode() if isinstance(text, str) else text for text in texts]


@dataclass(eq=False)
class _Waiting:
    """A row that the database has not confirmed."""

    read: Read
    weight: int
    written: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    error: str = ""


class WriteBehind:
    """One connection for the rows of all sessions' reads. Opens it at the first."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        #: In the order in which they were sent, until they are confirmed.
        self._waiting: dict[_Waiting, None] = {}
        self._sessions: dict[str, dict[_Waiting, None]] = {}
        self._weight = 0
        self._room = asyncio.Event()
        self._room.set()
        self._line: _Line | None = None
        self._connecting: asyncio.Task[None] | None = None

    async def put(self, read: Read) -> None:
        """The row is on its way when this returns. Waits only where too much is on its way already."""
        while self._weight > ROOM:
            self._room.clear()
            await self._room.wait()
        waiting = _Waiting(read, len(read.result or "") + len(read.table or b"") + len(read.args) + 1000)
        self._waiting[waiting] = None
        self._sessions.setdefault(read.key.session, {})[waiting] = None
        self._weight += waiting.weight
        if self._line is not None:
            self._send(waiting)
        elif self._connecting is None:
            self._connecting = asyncio.create_task(self._open())

    async def flush(self, session: str) -> None:
        """All rows of the session that were put so far are in the database.

        Raises:
            NotJournaled: one of them cannot be.
        """
        if session in self._sessions:
            await asyncio.gather(*(asyncio.shield(each.written) for each in tuple(self._sessions[session])))

    async def close(self, timeout_s: float) -> None:
        """Wait a little for what is on its way, then close."""
        if self._waiting:
            await asyncio.wait([each.written for each in self._waiting], timeout=timeout_s)
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self._line is not None:
            await self._line.close()
        if self._waiting:
            log.error("rows of reads are lost", count=len(self._waiting))

    def _send(self, waiting: _Waiting) -> None:
        assert self._line is not None
        try:
            self._line.send(waiting)
        except psycopg.Error as error:
            self._broken(error)

    async def _open(self) -> None:
        """Connect, again and again, and send what waits."""
        pause = _PAUSES_S[0]
        while True:
            try:
                self._line = _Line(await self._connect(), self._confirmed, self._broken)
                break
            except psycopg.Error as error:
                log.warning("the journal of reads cannot be reached", error=str(error).partition("\n")[0])
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSES_S[1])
        self._connecting = None
        for waiting in tuple(self._waiting):
            if self._line is None:  # broken again; whoever found out has begun to connect
                return
            self._send(waiting)

    def _broken(self, error: psycopg.Error) -> None:
        line, self._line = self._line, None
        if line is not None:
            log.warning("the connection to the journal of reads broke", error=str(error).partition("\n")[0])
            line.abandon()
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open())

    def _confirmed(self, waiting: _Waiting, sqlstate: str) -> None:
        if sqlstate[:2] in _PASSING:
            asyncio.get_running_loop().call_later(_PAUSES_S[1], self._again, waiting)
            return
        if waiting not in self._waiting:
            return
        del self._waiting[waiting]
        session = waiting.read.key.session
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

    def _again(self, waiting: _Waiting) -> None:
        if self._line is not None and waiting in self._waiting:
            self._send(waiting)


class _Line:
    """One connection in pipeline mode, one statement and one synchronisation point for each row."""

    def __init__(
        self,
        connection: AsyncConnection[Any],
        confirmed: Callable[[_Waiting, str], None],
        broken: Callable[[psycopg.Error], None],
    ) -> None:
        self._connection = connection
        self._pg: PGconn = connection.pgconn
        self._confirmed = confirmed
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._sent: deque[_Waiting | None] = deque()
        self._sqlstate = ""
        self._full = False
        self._socket = self._pg.socket
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        # a read's row may be lost with the machine, so nothing waits for its disk
        self._pg.send_query_params(b"SELECT set_config('synchronous_commit', 'off', false)", None)
        self._pg.pipeline_sync()
        self._pg.send_prepare(_NAME, _ENTER)
        self._pg.pipeline_sync()
        self._sent += [None, None]
        self._flush()
        self._loop.add_reader(self._socket, self._readable)

    def send(self, waiting: _Waiting) -> None:
        """Raises psycopg.Error where the connection is broken."""
        self._pg.send_query_prepared(_NAME, waiting.read.parameters(), _FORMATS)
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
