"""Transcripts in the database: what they are found by, and the head of each one's record."""

from __future__ import annotations

from datetime import datetime

import msgspec

from gateway.db import Database
from gateway.transcripts.record import Head
from gateway.transcripts.store import Facts


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One transcript that a search found."""

    session: str
    tenant: str
    role: str
    title: str
    state: str
    created: datetime
    changed: datetime
    cells: int
    messages: int
    bytes: int
    tools: list[str]
    errors: list[str]
    #: Of the model and of the tools, US dollars.
    dollars: float
    erased: datetime | None


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for; None for whatever."""

    tenant: str | None = None
    #: Sessions of which a part lies within these.
    since: datetime | None = None
    until: datetime | None = None
    #: Called: `server.name`, or `server` for any of its tools.
    tool: str | None = None
    #: Name of an error; "any" for any.
    error: str | None = None
    #: US dollars.
    cost_min: float | None = None
    cost_max: float | None = None
    limit: int = 100
    offset: int = 0


_PUT = """
    INSERT INTO transcript (session, tenant, role, title, state, created, seq, head, bytes, cells, messages, tools,
                            errors, dollars)
    VALUES (%(session)s, %(tenant)s, %(role)s, %(title)s, %(state)s, %(created)s, %(seq)s, %(head)s, %(bytes)s,
            %(cells)s, %(messages)s, %(tools)s, %(errors)s, %(dollars)s)
    ON CONFLICT (session) DO UPDATE SET title = excluded.title, state = excluded.state, changed = now(),
        seq = excluded.seq, head = excluded.head, bytes = excluded.bytes, cells = excluded.cells,
        messages = excluded.messages, tools = excluded.tools, errors = excluded.errors, dollars = excluded.dollars
    WHERE transcript.seq <= excluded.seq
"""

_SEARCH = """
    SELECT * FROM (
        SELECT session, tenant, role, title, state, created, changed, cells, messages, bytes, tools, errors, erased,
               dollars + coalesce((SELECT sum(cost) FROM call WHERE call.session = transcript.session), 0) AS dollars
        FROM transcript
        WHERE (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
          AND (%(since)s::timestamptz IS NULL OR changed >= %(since)s)
          AND (%(until)s::timestamptz IS NULL OR created <= %(until)s)
          AND (%(tool)s::text IS NULL OR tools @> ARRAY[%(tool)s]
               OR EXISTS (SELECT FROM unnest(tools) AS one WHERE starts_with(one, %(tool)s || '.')))
          AND (%(error)s::text IS NULL OR errors @> ARRAY[%(error)s] OR (%(error)s = 'any' AND errors <> '{}'))
    ) AS found
    WHERE (%(cost_min)s::float8 IS NULL OR dollars >= %(cost_min)s)
      AND (%(cost_max)s::float8 IS NULL OR dollars <= %(cost_max)s)
    ORDER BY created DESC, session LIMIT %(limit)s OFFSET %(offset)s
"""


class Index:
    """The statements."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, facts: Facts) -> None:
        """A transcript as it is now; nothing is taken back where the database knows more already."""
        await self._database.execute(_PUT, msgspec.structs.asdict(facts))

    async def head(self, session: str) -> Head | None:
        """How far the session's record must have come; None for one that the database does not know."""
        row = await self._database.fetch_one("SELECT seq, head FROM transcript WHERE session = %s", (session,))
        return None if row is None else Head(row["seq"], row["head"])

    async def search(self, query: Query) -> list[Found]:
        """The newest first."""
        rows = await self._database.fetch(_SEARCH, msgspec.to_builtins(query, builtin_types=(datetime,)))
        return [msgspec.convert(row, Found) for row in rows]
