"""Conversations that wait for a person."""

from __future__ import annotations

from datetime import datetime

import msgspec

from gateway.db import Database

_LIST = """
SELECT id, tenant, session, customer, summary, created, taken, taken_by FROM handover
WHERE (%(tenant)s::text IS NULL OR tenant = %(tenant)s) AND (%(all)s OR taken IS NULL)
ORDER BY created DESC, id DESC LIMIT %(limit)s
"""
_TAKE = """
UPDATE handover SET taken = now(), taken_by = %(by)s
WHERE id = %(id)s AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s) AND taken IS NULL RETURNING id
"""


class HandOver(msgspec.Struct, frozen=True):
    """`customer`: the store's id of who was verified; None where nobody was."""

    id: int
    tenant: str
    session: str
    customer: int | None
    summary: str
    created: datetime
    taken: datetime | None
    taken_by: str


async def waiting(database: Database, tenant: str | None, *, everything: bool, limit: int) -> tuple[HandOver, ...]:
    """Those that nobody has taken yet, or all, the newest first."""
    rows = await database.fetch(_LIST, {"tenant": tenant, "all": everything, "limit": limit})
    return tuple(msgspec.convert(row, HandOver) for row in rows)


async def take(database: Database, id: int, tenant: str | None, by: str) -> bool:
    """Note that somebody sees to it; False where there is no such one, or it is taken."""
    return await database.fetch_one(_TAKE, {"id": id, "tenant": tenant, "by": by}) is not None
