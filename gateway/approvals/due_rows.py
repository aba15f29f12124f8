"""Cells whose requests have been decided while nobody held their calls: which ones, and which gateway has them.

All times here are the database's, so that gateways agree.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from gateway.db import Database
from gateway.types import Role

#: A cell may still be running a little after its deadline, seconds.
_LATE_S = 30

#: The cell waits for the answer; or died before it could have one that lets something out; or there is no cell.
_DUE = f"""
SELECT approval.session, approval.cell, min(approval.answered) AS answered,
       bool_or(session.state = 'ended') AS ended
FROM approval JOIN session ON session.id = approval.session
LEFT JOIN cell ON cell.session = approval.session AND cell.id = approval.cell
WHERE approval.resumed IS NULL AND approval.state IN ('approved', 'denied')
  AND (approval.claimed_until IS NULL OR approval.claimed_until < now())
  AND NOT EXISTS (SELECT FROM approval AS other WHERE other.session = approval.session AND other.cell = approval.cell
                  AND other.state = 'pending')
  AND (cell.status = 'paused' OR (
        (cell.id IS NULL OR cell.status = 'dead'
         OR (cell.status = 'running' AND cell.deadline + interval '{_LATE_S} seconds' < now()))
        AND approval.held_until < now()
        AND EXISTS (SELECT FROM approval_call JOIN call ON call.id = approval_call.call
                    WHERE approval_call.approval = approval.id AND approval_call.approved
                      AND call.state IN ('pending', 'decided', 'executing', 'unknown'))))
  AND NOT EXISTS (SELECT FROM gateway WHERE gateway.id = session.gateway AND gateway.id <> %(me)s
                  AND gateway.alive_until > now())
  AND (approval.session = ANY(%(here)s) OR approval.answered + make_interval(secs => %(elsewhere_s)s) < now())
GROUP BY approval.session, approval.cell ORDER BY answered LIMIT 20
"""  # noqa: S608 - put together from constants

_CLAIM = """
UPDATE approval SET claimed_by = %(who)s, claimed_until = now() + make_interval(secs => %(claim_s)s)
WHERE session = %(session)s AND cell = %(cell)s AND resumed IS NULL AND state IN ('approved', 'denied')
  AND (claimed_until IS NULL OR claimed_until < now())
RETURNING id
"""

#: Cells that had their answer while they ran, or were run again by somebody else; and what lets nothing out, of cells
#: that are no more and of calls without a kernel.
_SETTLE = """
UPDATE approval SET resumed = now()
WHERE resumed IS NULL AND state IN ('approved', 'denied') AND held_until < now()
  AND (claimed_until IS NULL OR claimed_until < now())
  AND NOT EXISTS (SELECT FROM cell WHERE cell.session = approval.session AND cell.id = approval.cell
                  AND cell.status IN ('running', 'paused'))
  AND (EXISTS (SELECT FROM cell WHERE cell.session = approval.session AND cell.id = approval.cell
               AND cell.status IN ('ok', 'error', 'interrupted'))
       OR NOT EXISTS (SELECT FROM approval_call JOIN call ON call.id = approval_call.call
                      WHERE approval_call.approval = approval.id AND approval_call.approved
                        AND call.state IN ('pending', 'decided', 'executing', 'unknown')))
"""


class Due(NamedTuple):
    """A cell to be run again."""

    session: str
    cell: str
    #: Its session has ended.
    ended: bool


class Asker(NamedTuple):
    """Whose calls they are."""

    tenant: str
    principal: str
    role: Role


class DueRows:
    """The statements."""

    def __init__(self, database: Database, me: str = "") -> None:
        """`me`: the gateway; sessions of others that live are left to them."""
        self._database = database
        self._me = me

    async def due(self, here: Collection[str], elsewhere_s: float) -> list[Due]:
        """What is to be run. `here`: sessions in hand; those of others are left to them for `elsewhere_s` seconds."""
        rows = await self._database.fetch(_DUE, {"here": list(here), "elsewhere_s": elsewhere_s, "me": self._me})
        return [Due(row["session"], row["cell"], row["ended"]) for row in rows]

    async def settle(self) -> None:
        """Close what needs no run."""
        await self._database.execute(_SETTLE)

    async def claim(self, due: Due, who: str, claim_s: float) -> list[str]:
        """The requests that this gateway now has the run of; none where another was faster."""
        parameters = {"session": due.session, "cell": due.cell, "who": who, "claim_s": claim_s}
        async with self._database.connection() as connection, connection.transaction():
            # one gateway at a time looks at a session's requests
            await connection.execute("SELECT FROM session WHERE id = %s FOR UPDATE", (due.session,))
            cursor = await connection.execute(_CLAIM, parameters)
            return [row["id"] for row in await cursor.fetchall()]

    async def keep(self, ids: Collection[str], who: str, claim_s: float) -> bool:
        """Go on having it. False: another gateway has it by now."""
        return bool(
            await self._database.execute(
                "UPDATE approval SET claimed_until = now() + make_interval(secs => %s)"
                " WHERE id = ANY(%s) AND claimed_by = %s AND resumed IS NULL",
                (claim_s, list(ids), who),
            )
        )

    async def resumed(self, ids: Collection[str], outcome: str) -> None:
        """The cell has had its answer; `outcome` is for the conversation."""
        await self._database.execute(
            "UPDATE approval SET resumed = now(), outcome = %s WHERE id = ANY(%s)", (outcome, list(ids))
        )

    async def asker(self, id: str) -> Asker | None:
        row = await self._database.fetch_one("SELECT tenant, principal, role FROM approval WHERE id = %s", (id,))
        return None if row is None else Asker(**row)

    async def calls(self, session: str, cell: str) -> list[tuple[str, dict[str, Any]]]:
        """Tool and arguments of the cell's calls, in order."""
        rows = await self._database.fetch(
            "SELECT tool, args FROM call WHERE session = %s AND cell = %s ORDER BY id", (session, cell)
        )
        return [(row["tool"], row["args"]) for row in rows]

    async def code(self, session: str, cell: str) -> str | None:
        """The cell's source; None for calls without a kernel."""
        row = await self._database.fetch_one("SELECT code FROM cell WHERE session = %s AND id = %s", (session, cell))
        return None if row is None else str(row["code"])
