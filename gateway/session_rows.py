"""Sessions, cells and turns in the database: the statements, and the records that they give."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from gateway.db import Database
from gateway.types import Role
from kernel_pool.types import CellStatus

SessionState = Literal["live", "lost", "ended"]


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One session, as callers see it. `lost`: its variables are gone, `restore` brings them back."""

    id: str
    tenant: str
    principal: str
    role: Role
    title: str
    state: SessionState
    #: Upstream id of the customer that the session is pinned to.
    customer: int | None
    created: datetime
    ended: datetime | None
    #: Cells that were run.
    cells: int
    #: Why the state is lost, else "".
    reason: str = ""


class CellRow(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    index: int
    code: str
    status: str


#: A cell's row need not wait for the disk: it outlives the gateway all the same, and the transcript is synced. In a CTE
#: that the statement draws on, so that it costs no round trip.
_LAZILY = "lazily AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))"

_BEGIN_CELL = f"""
    WITH {_LAZILY}
    INSERT INTO cell (session, id, index, code, status, started)
    SELECT %s, %s, %s, %s, 'running', now() FROM lazily
    ON CONFLICT (session, id) DO UPDATE SET status = 'running', started = now(), ended = NULL
"""  # noqa: S608 - put together from constants

_END_CELL = f"""
    WITH {_LAZILY} UPDATE cell SET status = %s, ended = now() FROM lazily WHERE session = %s AND id = %s
"""  # noqa: S608

_SESSION = """
    SELECT id, tenant, principal, role, title, state, customer, created, ended,
           (SELECT count(*)::int FROM cell WHERE cell.session = session.id) AS cells
    FROM session
"""


class SessionRows:
    """The statements. Times are the database's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self, id: str, *, tenant: str, principal: str, role: Role, title: str, customer: int | None
    ) -> SessionInfo:
        await self._database.execute(
            "INSERT INTO session (id, tenant, principal, role, title, customer, state)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'live')",
            (id, tenant, principal, role, title, customer),
        )
        found = await self.get(id)
        if found is None:
            raise RuntimeError(f"session {id} was deleted as soon as it was made")
        return found

    async def get(self, id: str, tenant: str | None = None) -> SessionInfo | None:
        """`tenant`: None for any."""
        row = await self._database.fetch_one(
            f"{_SESSION} WHERE id = %s AND (%s::text IS NULL OR tenant = %s)", (id, tenant, tenant)
        )
        return None if row is None else msgspec.convert(row, SessionInfo)

    async def newest(self, tenant: str | None, limit: int) -> list[SessionInfo]:
        rows = await self._database.fetch(
            f"{_SESSION} WHERE %s::text IS NULL OR tenant = %s ORDER BY created DESC, id LIMIT %s",
            (tenant, tenant, limit),
        )
        return [msgspec.convert(row, SessionInfo) for row in rows]

    async def set_state(self, id: str, state: SessionState) -> None:
        """An ended session stays ended."""
        await self._database.execute(
            "UPDATE session SET state = %s, ended = CASE WHEN %s = 'ended' THEN now() END"
            " WHERE id = %s AND state <> 'ended'",
            (state, state, id),
        )

    async def cells(self, session: str) -> tuple[CellRow, ...]:
        """In the order in which they first ran."""
        rows = await self._database.fetch(
            "SELECT id, index, code, status FROM cell WHERE session = %s ORDER BY index", (session,)
        )
        return tuple(msgspec.convert(row, CellRow) for row in rows)

    async def cell(self, session: str, id: str) -> CellRow | None:
        row = await self._database.fetch_one(
            "SELECT id, index, code, status FROM cell WHERE session = %s AND id = %s", (session, id)
        )
        return None if row is None else msgspec.convert(row, CellRow)

    async def begin_cell(self, session: str, cell: CellRow) -> None:
        """Insert the cell, or set an earlier one running again."""
        await self._database.execute(_BEGIN_CELL, (session, cell.id, cell.index, cell.code))

    async def end_cell(self, session: str, cell: str, status: CellStatus) -> None:
        await self._database.execute(_END_CELL, (status, session, cell))

    async def add_turn(
        self,
        session: str,
        index: int,
        *,
        mode: str,
        messages: list[dict[str, Any]],
        reason: str,
        usage: dict[str, Any],
        started: datetime,
        ended: datetime,
    ) -> None:
        await self._database.execute(
            "INSERT INTO turn (session, index, mode, messages, reason, usage, started, ended)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (session, index, mode, _json(messages), reason, _json(usage), started, ended),
        )

    async def messages(self, session: str) -> list[list[dict[str, Any]]]:
        """The messages of each turn, in order."""
        rows = await self._database.fetch("SELECT messages FROM turn WHERE session = %s ORDER BY index", (session,))
        return [row["messages"] for row in rows]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
