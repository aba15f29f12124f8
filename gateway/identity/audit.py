"""The book of administration: who did what, when, for which tenant, from where, and what came of it. Only added to.

An entry of an act that changes the database is part of the act's own transaction: neither is there without the other.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

import structlog
from psycopg import AsyncConnection, Error
from psycopg.rows import DictRow
from psycopg_pool import PoolTimeout

from gateway.db import Database

log = structlog.get_logger(__name__)

_INSERT = (
    "INSERT INTO administration (principal, role, tenant, action, subject, source, outcome)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s)"
)
_LONGEST = 1000


@dataclass(frozen=True)
class Origin:
    """Where an act comes from. `source`: a client's address, or `command line`."""

    role: str
    source: str


#: Of the request that is served.
ORIGIN: ContextVar[Origin] = ContextVar("omniops_origin")
_UNKNOWN = Origin("", "")


@dataclass(frozen=True)
class Entry:
    """`tenant`: empty for what concerns them all. `outcome`: `done`, or the code of the refusal."""

    at: datetime
    principal: str
    role: str
    tenant: str
    action: str
    subject: str
    source: str
    outcome: str


async def note(
    connection: AsyncConnection[DictRow],
    principal: str,
    tenant: str,
    action: str,
    subject: str,
    outcome: str = "done",
) -> None:
    """Add an entry, within the connection's transaction."""
    origin = ORIGIN.get(_UNKNOWN)
    values = (principal, origin.role, tenant, action, subject[:_LONGEST], origin.source, outcome)
    await connection.execute(_INSERT, tuple(value.replace("\0", "") for value in values))


class Audit:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, principal: str, tenant: str, action: str, subject: str, outcome: str = "done") -> None:
        """Add an entry, for what has no transaction to be part of. Raises psycopg.Error."""
        async with self._database.connection() as connection:
            await note(connection, principal, tenant, action, subject, outcome)

    async def note_if_possible(
        self, principal: str, tenant: str, action: str, subject: str, outcome: str = "done"
    ) -> None:
        """The same for what has happened already, or has not; an entry that cannot be written is logged."""
        try:
            await self.note(principal, tenant, action, subject, outcome)
        except (Error, PoolTimeout) as error:
            log.error("an act is not in the audit", who=principal, action=action, outcome=outcome, error=str(error))

    async def find(
        self,
        *,
        tenant: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[Entry]:
        """Entries, the newest first. `action`: one, or the beginning of several, such as `key.`."""
        rows = await self._database.fetch(
            "SELECT at, principal, role, tenant, action, subject, source, outcome FROM administration"
            " WHERE (%(tenant)s::text IS NULL OR tenant = %(tenant)s)"
            " AND (%(action)s::text IS NULL OR starts_with(action, %(action)s))"
            " AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)"
            " AND (%(until)s::timestamptz IS NULL OR at < %(until)s) ORDER BY id DESC LIMIT %(limit)s",
            {"tenant": tenant, "action": action, "since": since, "until": until, "limit": limit},
        )
        return [Entry(**row) for row in rows]
