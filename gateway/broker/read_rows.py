"""A read's row: what it holds, and the statement that enters it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from gateway.types import CallState, Grant

from .keys import CallKey
from .spool import Fields, Segment

#: Set for a connection that enters rows: one may be lost with the machine, so nothing waits for its disk.
LAZY = b"SELECT set_config('synchronous_commit', 'off', false)"

ENTER = b"""
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
FORMATS = [0] * 11 + [1] + [0] * 8


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
    table: bytes | bytearray | None = None
    error: str | None = None
    size: int = 0
    rows: int = 0
    batches: int = 0
    cost: float = 0.0

    def parameters(self) -> Fields:
        """For `ENTER`, in order."""
        key, grant = self.key, self.grant
        texts: list[str | bytes | bytearray | None] = [
            *(key.session, key.cell, key.tool, self.args, key.args_hash, str(key.occurrence), key.idempotency_key),
            *(self.state, grant.tenant, grant.principal, self.result, self.table, self.error),
            *(str(self.size), str(self.rows), str(self.batches), str(self.cost), self.started.isoformat()),
            *(None if self.ended is None else self.ended.isoformat(), self.request),
        ]
        return [text.encode() if isinstance(text, str) else text for text in texts]


@dataclass(eq=False)
class Waiting:
    """A row that the database has not confirmed: `parameters` of `ENTER`."""

    session: str
    parameters: Fields
    weight: int
    #: Where it is kept besides.
    segment: Segment | None = None
    written: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
