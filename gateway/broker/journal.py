"""The journal of tool calls in Postgres: written before a call goes out and after it came back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.db import Database
from gateway.types import CallState, Grant
from servers.tool import Effect

from .behind import WriteBehind
from .errors import ErrorBody
from .keys import CallKey as CallKey
from .spent import Spent
from .spool import Spool

#: Set per statement, in a CTE that the statement draws on, so that it costs no round trip. A read's row may be lost
#: when the machine loses power, or the database server crashes; it is then read again. So may a write's until it is
#: executing, which waits for the disk, and with it for all that was committed before; and what came of it: it is
#: then a write that was under way, and looked up. The next write's wait takes it along.
_DURABILITY = "durability AS MATERIALIZED (SELECT set_config('synchronous_commit', %(commit)s, true))"

_CLAIM = f"""
WITH {_DURABILITY}, owned AS (
    SELECT FROM session WHERE id = %(session)s AND fence = %(fence)s FOR SHARE
), fresh AS (
    INSERT INTO call (session, cell, tool, args, args_hash, occurrence, effect, idempotency_key, state,
                      tenant, principal)
    SELECT %(session)s, %(cell)s, %(tool)s, %(args)s, %(args_hash)s, %(occurrence)s, %(effect)s, %(idempotency_key)s,
           %(state)s, %(tenant)s, %(principal)s
    FROM durability WHERE %(fence)s::bigint IS NULL OR EXISTS (SELECT FROM owned)
    ON CONFLICT (session, cell, tool, args_hash, occurrence) DO NOTHING
    RETURNING id, state, result, result_table, error, result_bytes, result_rows, cost, started, ended
), found AS (
    SELECT true AS fresh, * FROM fresh
    UNION ALL
    SELECT false, id, state, result, result_table, error, result_bytes, result_rows, cost, started, ended FROM call
    WHERE session = %(session)s AND cell = %(cell)s AND tool = %(tool)s AND args_hash = %(args_hash)s
      AND occurrence = %(occurrence)s AND NOT EXISTS (SELECT FROM fresh)
), remembered AS (
    INSERT INTO request (session, cell, id, call, replayed)
    SELECT %(session)s, %(cell)s, %(request)s, id, state IN ('applied', 'failed', 'denied', 'reverted')
    FROM found WHERE %(request)s <> ''
    ON CONFLICT (session, cell, id) DO UPDATE SET call = excluded.call, replayed = excluded.replayed
    WHERE request.call <> excluded.call
)
SELECT * FROM found
"""  # noqa: S608 - put together from constants

_OF_RUN = """
SELECT request.id AS request, request.replayed, call.id, tool, args, args_hash, occurrence, effect, state, result,
       error, result_bytes, result_rows, cost, started, ended
FROM request JOIN call ON call.id = request.call
WHERE request.session = %s AND request.cell = %s ORDER BY call.id
"""

#: Sums as plain numbers: Postgres adds bigints up to a numeric.
_SPENT = """
SELECT count(*) AS calls, coalesce(sum(result_rows), 0)::bigint AS rows,
       coalesce(sum(result_bytes + length(args::text)), 0)::bigint AS bytes,
       coalesce(sum(extract(epoch FROM ended - started)), 0)::double precision AS seconds,
       coalesce(sum(cost), 0)::double precision AS dollars
FROM call WHERE session = %s
"""

#: Refused where another gateway has taken the session since; while this is under way none can.
_EXECUTING = """
WITH owned AS (SELECT id FROM session WHERE id = %(session)s AND fence = %(fence)s FOR SHARE)
UPDATE call SET state = 'executing' WHERE id = %(id)s AND (%(fence)s::bigint IS NULL OR EXISTS (SELECT FROM owned))
RETURNING id
"""

_FINISH = f"""
WITH {_DURABILITY}
UPDATE call SET state = %(state)s, result = %(result)s, result_table = %(table)s, error = %(error)s,
                result_bytes = %(bytes)s, result_rows = %(rows)s, ended = clock_timestamp(),
                cost = cost + CASE WHEN state = 'executing' OR state <> %(state)s THEN %(cost)s ELSE 0 END
FROM durability WHERE id = %(id)s RETURNING started, ended
"""  # noqa: S608


@dataclass(frozen=True)
class Row:
    """A call as the journal has it. `fresh`: entered just now."""

    id: int
    fresh: bool
    state: CallState
    result: str | None
    error: ErrorBody | None
    started: datetime
    ended: datetime | None
    #: An Arrow IPC stream, where the result is a table; not told of calls that are only looked at.
    result_table: bytes | None = None
    result_bytes: int = 0
    result_rows: int = 0
    cost: float = 0.0

    @property
    def goes_out(self) -> bool:
        """Entered just now as executing: nobody has to be asked, and nothing to be looked up."""
        return self.fresh and self.state == "executing"

    @property
    def settled(self) -> bool:
        return self.state in ("applied", "failed", "denied", "reverted")


@dataclass(frozen=True)
class Made:
    """A call that a run of a cell has made, known by the id that its kernel gave it."""

    request: str
    #: The journal had answered it before this run.
    replayed: bool
    key: CallKey
    effect: Effect
    args: dict[str, Any]
    row: Row


class Journal:
    """Each statement may come to the database twice: where its answer was lost it is made again."""

    def __init__(self, database: Database, spool: Spool | None = None) -> None:
        """`spool`: where the rows of reads are until the database has them; None: in this process alone."""
        self._database = database
        #: The rows of reads, which are written behind them.
        self.reads = WriteBehind(database.dedicated, spool)

    async def claim(
        self,
        key: CallKey,
        grant: Grant,
        effect: Effect,
        args: str,
        request: str = "",
        *,
        at_once: bool = False,
        fence: int | None = None,
    ) -> Row:
        """Enter the call, or find it where it was entered before; remember it under its kernel's id, `request`.

        A write is entered as decided and goes out as executing; where it may go out `at_once`, it is entered as
        executing, and on disk when this returns. A read, which does no harm twice, is executing at once, too; no other
        need be on disk yet. `fence`: as of `executing`. Raises LookupError where another gateway has the session.
        """
        parameters: dict[str, Any] = {
            "session": key.session,
            "cell": key.cell,
            "tool": key.tool,
            "args": args,
            "args_hash": key.args_hash,
            "occurrence": key.occurrence,
            "effect": effect,
            "idempotency_key": key.idempotency_key,
            "state": "executing" if at_once or effect == "read" else "decided",
            "tenant": grant.tenant,
            "principal": grant.principal,
            "commit": "on" if at_once else "off",
            "request": request,
            "fence": fence,
        }
        found = None
        while found is None:  # entered by somebody else between the insert and the look: look again
            found = await self._database.fetch_one_surely(_CLAIM, parameters)
            if found is None and fence is not None:
                have = await self._database.fetch_one_surely("SELECT fence FROM session WHERE id = %s", (key.session,))
                if have is None or have["fence"] != fence:
                    raise LookupError(f"session {key.session} is another gateway's")
        return Row(**found)

    async def executing(self, row: Row, session: str = "", fence: int | None = None) -> None:
        """On disk when this returns: the write may go out. `fence`: with which the session was had (`peers.owners`).

        Raises:
            LookupError: the database went down and has lost the row, or another gateway has the session: nothing may
                go out.
        """
        values = {"id": row.id, "session": session, "fence": fence}
        if await self._database.fetch_one_surely(_EXECUTING, values) is None:
            raise LookupError(f"call {row.id} is not in the journal any more, or its session is another gateway's")

    async def finish(
        self,
        row: Row,
        state: CallState,
        *,
        result: str | None = None,
        table: bytes | bytearray | None = None,
        error: ErrorBody | None = None,
        rows: int = 0,
        cost: float = 0.0,
    ) -> tuple[datetime, datetime]:
        """What came of it; returns when it started and ended. It need not be on disk yet."""
        parameters = {
            "id": row.id,
            "state": state,
            "result": result,
            "table": table,
            "error": None if error is None else json.dumps(error),
            "bytes": len(result or "") + len(table or b""),
            "rows": rows,
            "cost": cost,
            "commit": "off",
        }
        found = await self._database.fetch_one_surely(_FINISH, parameters)
        if found is None:
            raise LookupError(f"call {row.id} is not in the journal any more")
        return found["started"], found["ended"]

    async def made(self, session: str, cell: str) -> tuple[Made, ...]:
        """What the cell's present run has called so far, in order, as gateways before this one journaled it."""
        rows = await self._database.fetch(_OF_RUN, (session, cell))
        return tuple(_made(session, cell, row) for row in rows)

    async def answer(self, key: CallKey) -> dict[str, Any] | None:
        """What a call came to: `state`, `effect`, `result`, `result_table`, `error`, `result_bytes`, `result_rows`,
        `batches`. None for one that was never made. Nothing is entered."""
        return await self._database.fetch_one(
            "SELECT state, effect, result, result_table, error, result_bytes, result_rows, batches FROM call"
            " WHERE session = %s AND cell = %s AND tool = %s AND args_hash = %s AND occurrence = %s",
            (key.session, key.cell, key.tool, key.args_hash, key.occurrence),
        )

    async def keys(self, session: str, cell: str) -> frozenset[CallKey]:
        """The calls that the cell has in the journal, from earlier runs and from this one."""
        sql = "SELECT session, cell, tool, args_hash, occurrence FROM call WHERE session = %s AND cell = %s"
        return frozenset(CallKey(**row) for row in await self._database.fetch(sql, (session, cell)))

    async def spent(self, session: str) -> Spent:
        """What the session's calls have taken so far."""
        found = await self._database.fetch_one(_SPENT, (session,))
        return Spent(**found) if found else Spent()


def _made(session: str, cell: str, row: dict[str, Any]) -> Made:
    return Made(
        request=row["request"],
        replayed=row["replayed"],
        key=CallKey(session, cell, row["tool"], row["args_hash"], row["occurrence"]),
        effect=row["effect"],
        args=row["args"],
        row=Row(
            id=row["id"],
            fresh=False,
            state=row["state"],
            result=row["result"],
            error=row["error"],
            started=row["started"],
            ended=row["ended"],
            result_bytes=row["result_bytes"],
            result_rows=row["result_rows"],
            cost=row["cost"],
        ),
    )
