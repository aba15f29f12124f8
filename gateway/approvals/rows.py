"""Requests in the database: the statements, and the records that they give.

Who decides, and who runs a cell again, is settled by single statements, so that it happens once however many gateways
there are. Expiry is by the clock that the caller brings; what gateways hold and claim is by the database's.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg

from gateway.db import Database
from gateway.types import Grant

from .policy import Recent
from .types import Approval, ApprovalCall, Asking, Standing, View

_RECENT = """
SELECT count(*) FILTER (WHERE call.session = %(session)s)::int AS session, count(*)::int AS tenant
FROM call JOIN session ON session.id = call.session
WHERE call.tenant = %(tenant)s AND session.role = %(role)s AND call.effect <> 'read'
  AND call.started > now() - interval '1 hour' AND call.state IN ('executing', 'applied', 'unknown', 'reverted')
"""

_STANDING = """
SELECT approval.id AS approval, approval.state, approval_call.approved, approval_call.args_hash, approval.tenant,
       approval.principal, approval.session, approval.expires, approval.decided_by, approval.note
FROM approval_call JOIN approval ON approval.id = approval_call.approval
WHERE approval_call.call = %s ORDER BY approval_call.open DESC, approval.created DESC LIMIT 1
"""

_INSERT = """
INSERT INTO approval (id, tenant, principal, role, session, cell, title, batch, state, created, expires, held_until)
VALUES (%(id)s, %(tenant)s, %(principal)s, %(role)s, %(session)s, %(cell)s, %(title)s, %(batch)s, 'pending',
        %(created)s, %(expires)s, now() + make_interval(secs => %(hold_s)s))
"""

_INSERT_CALL = """
WITH pending AS (UPDATE call SET state = 'pending', approval = %(id)s WHERE id = %(call)s)
INSERT INTO approval_call (approval, position, call, args_hash, reason, view)
VALUES (%(id)s, %(position)s, %(call)s, %(args_hash)s, %(reason)s, %(view)s)
"""

_DUPLICATE = """
SELECT approval.id FROM approval_call JOIN approval ON approval.id = approval_call.approval
JOIN call ON call.id = approval_call.call
WHERE approval_call.open AND approval.session = %s AND approval.cell <> %s AND call.tool = %s AND call.args_hash = %s
  AND approval.expires > %s
LIMIT 1
"""

_COLUMNS = """
SELECT id, tenant, principal, role, session, cell, title, batch, state, created, expires, decided, decided_by, note,
       held_until > now() AND state = 'pending' AS held, resumed, outcome
FROM approval
"""

_CALLS = """
SELECT approval_call.approval, approval_call.position, approval_call.call, approval_call.reason, approval_call.view,
       approval_call.approved, call.state, call.error
FROM approval_call JOIN call ON call.id = approval_call.call
WHERE approval_call.approval = ANY(%s) ORDER BY approval_call.approval, approval_call.position
"""

_CLOSE = """
WITH closed AS (
    UPDATE approval SET state = %(state)s, decided = %(now)s, note = %(note)s
    WHERE state = 'pending' AND (%(ids)s::text[] IS NULL OR id = ANY(%(ids)s))
      AND (%(session)s::text IS NULL OR session = %(session)s) AND (%(cell)s::text IS NULL OR cell = %(cell)s)
      AND (NOT %(stale)s OR expires <= %(now)s)
    RETURNING id
), shut AS (UPDATE approval_call SET open = false FROM closed WHERE approval = closed.id)
SELECT id FROM closed
"""


class ApprovalRows:
    """The statements."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def recent(self, grant: Grant) -> Recent:
        """Writes of the last hour, of the session and of the tenant's sessions of this role."""
        row = await self._database.fetch_one_surely(
            _RECENT, {"session": grant.session, "tenant": grant.tenant, "role": grant.role}
        )
        return Recent(**row) if row else Recent()

    async def standing(self, call: int) -> Standing | None:
        """The last request about the call."""
        row = await self._database.fetch_one(_STANDING, (call,))
        return None if row is None else Standing(**row)

    async def duplicate(self, asking: Asking, now: datetime) -> str | None:
        """The request that asks the same for another cell of the session."""
        row = await self._database.fetch_one(
            _DUPLICATE,
            (asking.grant.session, asking.cell, asking.tool.qualified_name, asking.args_hash, now),
        )
        return None if row is None else str(row["id"])

    async def waiting(self, session: str) -> int:
        """How many requests of the session are open."""
        row = await self._database.fetch_one(
            "SELECT count(*)::int AS n FROM approval WHERE session = %s AND state = 'pending'", (session,)
        )
        return int(row["n"]) if row else 0

    async def insert(
        self,
        id: str,
        calls: Sequence[tuple[Asking, str, View]],
        *,
        title: str,
        batch: bool,
        created: datetime,
        expires: datetime,
        hold_s: float,
    ) -> bool:
        """Ask about calls (with reason and view each) of one cell. False: one of them is being asked about already."""
        first = calls[0][0]
        request = {
            "id": id,
            "tenant": first.grant.tenant,
            "principal": first.grant.principal,
            "role": first.grant.role,
            "session": first.grant.session,
            "cell": first.cell,
            "title": title,
            "batch": batch,
            "created": created,
            "expires": expires,
            "hold_s": hold_s,
        }
        try:
            async with self._database.connection() as connection, connection.transaction():
                await connection.execute(_INSERT, request)
                for position, (asking, reason, view) in enumerate(calls, 1):
                    await connection.execute(
                        _INSERT_CALL,
                        {
                            "id": id,
                            "position": position,
                            "call": asking.call,
                            "args_hash": asking.args_hash,
                            "reason": reason,
                            "view": msgspec.json.encode(view).decode(),
                        },
                    )
        except psycopg.errors.UniqueViolation:
            return False
        return True

    async def hold(self, id: str, hold_s: float) -> None:
        """A gateway waits for the decision."""
        await self._database.execute(
            "UPDATE approval SET held_until = now() + make_interval(secs => %s) WHERE id = %s AND state = 'pending'",
            (hold_s, id),
        )

    async def park(self, id: str) -> bool:
        """No gateway waits any more. False: it has been decided."""
        return bool(
            await self._database.execute(
                "UPDATE approval SET held_until = now() WHERE id = %s AND state = 'pending'", (id,)
            )
        )

    async def over(self, ids: Collection[str]) -> list[str]:
        """Those that nobody need wait for any more."""
        rows = await self._database.fetch(
            "SELECT id FROM approval WHERE id = ANY(%s) AND state <> 'pending'", (list(ids),)
        )
        return [row["id"] for row in rows]

    async def decide(
        self, id: str, approved: Collection[int], *, who: str, note: str, now: datetime, errors: dict[int, str]
    ) -> bool:
        """Record the decision: `approved` positions may run, the others get their error (JSON). False: too late."""
        async with self._database.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "UPDATE approval SET state = %s, decided = %s, answered = now(), decided_by = %s, note = %s"
                " WHERE id = %s AND state = 'pending' AND expires > %s",
                ("approved" if approved else "denied", now, who, note, id, now),
            )
            if not cursor.rowcount:
                return False
            await connection.execute(
                "WITH said AS (UPDATE approval_call SET open = false, approved = position = ANY(%s) WHERE approval = %s"
                " RETURNING call, approved)"
                " UPDATE call SET state = 'decided' FROM said WHERE id = said.call AND said.approved"
                " AND state = 'pending'",
                (list(approved), id),
            )
            for call, error in errors.items():
                await connection.execute(
                    "UPDATE call SET state = 'denied', error = %s, ended = clock_timestamp()"
                    " WHERE id = %s AND state IN ('pending', 'decided')",
                    (error, call),
                )
        return True

    async def withdraw(
        self, note: str, now: datetime, *, ids: Collection[str] | None = None, session: str | None = None,
        cell: str | None = None,
    ) -> list[str]:  # fmt: skip
        """Take back requests that wait, of those named; the ids of those that did."""
        return await self._close("withdrawn", note, now, ids=ids, session=session, cell=cell)

    async def expire(self, now: datetime) -> list[str]:
        """Close what nobody decided in time."""
        return await self._close("expired", "Nobody decided in time.", now, stale=True)

    async def get(self, id: str) -> Approval | None:
        """One request."""
        found = await self._with_calls(await self._database.fetch(f"{_COLUMNS} WHERE id = %s", (id,)))
        return found[0] if found else None

    async def find(
        self,
        *,
        tenants: Collection[str] | None = None,
        session: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> tuple[Approval, ...]:
        """The newest first. `tenants`: None for all."""
        rows = await self._database.fetch(
            f"{_COLUMNS} WHERE (%(tenants)s::text[] IS NULL OR tenant = ANY(%(tenants)s))"
            " AND (%(session)s::text IS NULL OR session = %(session)s)"
            " AND (%(state)s::text IS NULL OR state = %(state)s) ORDER BY created DESC, id LIMIT %(limit)s",
            {
                "tenants": None if tenants is None else list(tenants),
                "session": session,
                "state": state,
                "limit": limit,
            },
        )
        return await self._with_calls(rows)

    async def untold(self, session: str) -> tuple[Approval, ...]:
        """What the session's conversation has not heard the end of, and what waits, the oldest first."""
        rows = await self._database.fetch(
            f"{_COLUMNS} WHERE session = %s AND NOT told ORDER BY created, id", (session,)
        )
        return await self._with_calls(rows)

    async def tell(self, ids: Collection[str]) -> None:
        """The conversation knows of these."""
        await self._database.execute("UPDATE approval SET told = true WHERE id = ANY(%s)", (list(ids),))

    async def _close(
        self,
        state: str,
        note: str,
        now: datetime,
        *,
        ids: Collection[str] | None = None,
        session: str | None = None,
        cell: str | None = None,
        stale: bool = False,
    ) -> list[str]:
        rows = await self._database.fetch(
            _CLOSE,
            {
                "state": state,
                "note": note,
                "now": now,
                "ids": None if ids is None else list(ids),
                "session": session,
                "cell": cell,
                "stale": stale,
            },
        )
        return [row["id"] for row in rows]

    async def _with_calls(self, rows: Sequence[dict[str, Any]]) -> tuple[Approval, ...]:
        if not rows:
            return ()
        calls: dict[str, list[ApprovalCall]] = {row["id"]: [] for row in rows}
        for row in await self._database.fetch(_CALLS, (list(calls),)):
            calls[row.pop("approval")].append(msgspec.convert(row, ApprovalCall))
        return tuple(msgspec.convert(row | {"calls": tuple(calls[row["id"]])}, Approval) for row in rows)


def error_text(error: dict[str, Any]) -> str:
    """An error as the journal keeps it."""
    return json.dumps(error)
