"""The journal of tool calls in Postgres: written before a call goes out and after it came back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.db import Database
from gateway.types import CallState, Grant
from servers.tool import Effect

from .errors import ErrorBody

#: Set per statement. A read's row may be lost when the machine loses power; it is then read again. A write's row is on
#: disk before the write goes out. In a CTE that the statement draws on, so that it costs no round trip.
_DURABILITY = "durability AS MATERIALIZED (SELECT set_config('synchronous_commit', %(commit)s, true))"

_CLAIM = f"""
WITH {_DURABILITY}, fresh AS (
    INSERT INTO call (session, cell, tool, args, args_hash, occurrence, effect, idempotency_key, state,
                      tenant, principal)
    SELECT %(session)s, %(cell)s, %(tool)s, %(args)s, %(args_hash)s, %(occurrence)s, %(effect)s, %(idempotency_key)s,
           %(state)s, %(tenant)s, %(principal)s
    FROM durability
    ON CONFLICT (session, cell, tool, args_hash, occurrence) DO NOTHING
    RETURNING id, state, result, error, started, ended
)
SELECT true AS fresh, * FROM fresh
UNION ALL
SELECT false, id, state, result, error, started, ended FROM call
WHERE session = %(session)s AND cell = %(cell)s AND tool = %(tool)s AND args_hash = %(args_hash)s
  AND occurrence = %(occurrence)s AND NOT EXISTS (SELECT FROM fresh)
"""  # noqa: S608 - put together from constants

_EXECUTING = "UPDATE call SET state = 'executing' WHERE id = %s"

_FINISH = f"""
WITH {_DURABILITY}
UPDATE call SET state = %(state)s, result = %(result)s, error = %(error)s, result_bytes = %(bytes)s,
                ended = clock_timestamp()
FROM durability WHERE id = %(id)s RETURNING started, ended
"""  # noqa: S608


@dataclass(frozen=True)
class CallKey:
    """What makes two calls the same one."""

    session: str
    cell: str
    tool: str
    args_hash: str
    occurrence: int

    @property
    def idempotency_key(self) -> str:
        """Follows from the rest, so that no attempt can have another one."""
        parts = json.dumps([self.session, self.cell, self.tool, self.args_hash, self.occurrence])
        return hashlib.sha256(parts.encode()).hexdigest()[:32]


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

    @property
    def settled(self) -> bool:
        return self.state in ("applied", "failed")


class Journal:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, key: CallKey, grant: Grant, effect: Effect, args: str) -> Row:
        """Enter the call, or find it where it was entered before.

        A write is entered as decided and goes out as executing; a read, which does no harm twice, as executing at once.
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
            "state": "executing" if effect == "read" else "decided",
            "tenant": grant.tenant,
            "principal": grant.principal,
            "commit": _commit(effect),
        }
        found = None
        while found is None:  # entered by somebody else between the insert and the look: look again
            found = await self._database.fetch_one(_CLAIM, parameters)
        return Row(**found)

    async def executing(self, row: Row) -> None:
        """On disk when this returns: the write may go out."""
        await self._database.execute(_EXECUTING, (row.id,))

    async def finish(
        self, row: Row, effect: Effect, state: CallState, *, result: str | None = None, error: ErrorBody | None = None
    ) -> tuple[datetime, datetime]:
        """What came of it; returns when it started and ended."""
        parameters = {
            "id": row.id,
            "state": state,
            "result": result,
            "error": None if error is None else json.dumps(error),
            "bytes": len(result or ""),
            "commit": _commit(effect),
        }
        found = await self._database.fetch_one(_FINISH, parameters)
        if found is None:
            raise LookupError(f"call {row.id} is not in the journal any more")
        return found["started"], found["ended"]

    async def count(self, session: str) -> int:
        """Calls of the session so far."""
        found = await self._database.fetch_one("SELECT count(*) AS calls FROM call WHERE session = %s", (session,))
        return int(found["calls"]) if found else 0


def _commit(effect: Effect) -> str:
    return "off" if effect == "read" else "on"
