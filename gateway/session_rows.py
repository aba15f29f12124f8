"""Sessions, cells and turns in the database: the statements, and the records that they give."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from gateway.db import Database
from gateway.peers.errors import Fenced
from gateway.peers.owners import Owners
from gateway.types import Grant, Role
from kernel_pool.types import CellStatus

SessionState = Literal["live", "lost", "ended"]


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One session, as callers see it. `lost`: its variables are gone, `restore` brings them back."""

    id: str
    tenant: str
    principal: str
    role: Role
    #: The kind of kernel; "" for what the role gets.
    profile: str
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
    #: The gateway that has it, "" for none; and whether that is another one, which lives.
    gateway: str = ""
    elsewhere: bool = False

    @property
    def grant(self) -> Grant:
        return Grant(tenant=self.tenant, principal=self.principal, session=self.id, role=self.role)


class AskedUnder(msgspec.Struct, frozen=True):
    """A caller's own key for a request to make a session; `digest` is of what was asked for."""

    principal: str
    key: str
    digest: str


class CellRow(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    index: int
    code: str
    status: CellStatus | Literal["running"]
    #: Its check kept it from running; its status is "error".
    stopped: bool = False


class RunningCell(CellRow, frozen=True, kw_only=True):
    """A cell that went to its kernel and whose end is not known."""

    #: By which its kernel knows it.
    msg_id: str
    started: datetime
    #: By which its span is gone on with; "" for none.
    trace: str = ""
    #: Seconds that it may take, and what is left of them.
    allowed_s: float
    left_s: float


#: A cell's row need not wait for the disk: it outlives the gateway all the same, and the transcript is synced. In a CTE
#: that the statement draws on, so that it costs no round trip.
_LAZILY = "lazily AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))"

_BEGIN_CELL = f"""
    WITH {_LAZILY}, forgotten AS (DELETE FROM request WHERE session = %(session)s AND cell = %(id)s)
    INSERT INTO cell (session, id, index, code, status, msg_id, trace, started, deadline)
    SELECT %(session)s, %(id)s, %(index)s, %(code)s, 'running', %(msg_id)s, %(trace)s, now(),
           now() + make_interval(secs => %(deadline_s)s) FROM lazily
    WHERE %(fence)s::bigint IS NULL OR EXISTS (SELECT FROM session WHERE id = %(session)s AND fence = %(fence)s)
    ON CONFLICT (session, id) DO UPDATE SET status = 'running', stopped = false, started = now(), ended = NULL,
           msg_id = %(msg_id)s, trace = %(trace)s, deadline = now() + make_interval(secs => %(deadline_s)s)
"""  # noqa: S608 - put together from constants

_END_CELL = f"""
    WITH {_LAZILY}, forgotten AS (DELETE FROM request WHERE session = %(session)s AND cell = %(id)s)
    UPDATE cell SET status = %(status)s, ended = now() FROM lazily WHERE session = %(session)s AND id = %(id)s
      AND (%(fence)s::bigint IS NULL OR EXISTS (SELECT FROM session WHERE id = %(session)s AND fence = %(fence)s))
"""  # noqa: S608

_END_CELLS = f"""
    WITH {_LAZILY}, forgotten AS (DELETE FROM request WHERE session = %(session)s AND cell = ANY(%(ids)s))
    UPDATE cell SET status = over.status, ended = now()
    FROM lazily, unnest(%(ids)s::text[], %(statuses)s::text[]) AS over (id, status)
    WHERE session = %(session)s AND cell.id = over.id
      AND (%(fence)s::bigint IS NULL OR EXISTS (SELECT FROM session WHERE id = %(session)s AND fence = %(fence)s))
"""  # noqa: S608

_ABANDON = """
    WITH forgotten AS (DELETE FROM request WHERE session = %(session)s AND cell <> %(but)s)
    UPDATE cell SET status = 'dead', ended = now()
    WHERE session = %(session)s AND status = 'running' AND id <> %(but)s
"""

_RUNNING = """
    SELECT id, index, code, status, msg_id, trace, started,
           extract(epoch FROM deadline - started)::float8 AS allowed_s,
           greatest(0, extract(epoch FROM deadline - now()))::float8 AS left_s
    FROM cell WHERE session = %s AND status = 'running' AND msg_id <> '' ORDER BY started DESC LIMIT 1
"""

_INSERT = """
    INSERT INTO session (id, tenant, principal, role, profile, title, customer, state, gateway, fence)
    SELECT %(id)s, %(tenant)s, %(principal)s, %(role)s, %(profile)s, %(title)s, %(customer)s, 'live', %(me)s, 1
"""

_INSERT_UNDER_KEY = f"""
    WITH taken AS (
        INSERT INTO session_key (principal, key, digest, session)
        VALUES (%(caller)s, %(key)s, %(digest)s, %(id)s) ON CONFLICT DO NOTHING RETURNING session
    )
    {_INSERT} WHERE EXISTS (SELECT FROM taken)
"""  # noqa: S608 - put together from constants

_SESSION = """
    SELECT id, tenant, principal, role, profile, title, state, customer, created, ended, reason,
           (SELECT count(*)::int FROM cell WHERE cell.session = session.id) AS cells, gateway,
           EXISTS (SELECT FROM gateway AS other WHERE other.id = session.gateway AND other.id <> %(me)s
                   AND alive_until > now()) AS elsewhere
    FROM session
"""

_NEWEST = f"""
    {_SESSION} WHERE (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
    AND (%(roles)s::text[] IS NULL OR role = ANY(%(roles)s)) AND (%(after)s::text IS NULL OR (
        SELECT session.created < last.created OR session.created = last.created AND session.id > last.id
        FROM session last WHERE last.id = %(after)s))
    ORDER BY created DESC, id LIMIT %(limit)s
"""  # noqa: S608


_SAID = """
    INSERT INTO chat_message (tenant, conversation, seq, started, at, role, customer, text, intents)
    SELECT %(tenant)s, %(session)s, seq,
           coalesce((SELECT started FROM chat_message WHERE tenant = %(tenant)s AND conversation = %(session)s LIMIT 1),
                    %(started)s),
           at, role, (SELECT customer FROM session WHERE id = %(session)s), text, words
    FROM (VALUES (%(seq)s, %(started)s::timestamptz, 'customer', %(question)s, '{}'::text[]),
                 (%(seq)s + 1, %(ended)s::timestamptz, 'agent', %(answer)s, %(words)s::text[]))
         AS said(seq, at, role, text, words)
    ON CONFLICT DO NOTHING
"""


class SessionRows:
    """The statements. Times are the database's."""

    def __init__(self, database: Database, owners: Owners | None = None) -> None:
        """`owners`: whose sessions are; None where one gateway has them all."""
        self._database = database
        self.owners = owners

    async def insert(
        self,
        id: str,
        *,
        tenant: str,
        principal: str,
        role: Role,
        profile: str,
        title: str,
        customer: int | None,
        under: AskedUnder | None = None,
    ) -> SessionInfo | None:
        """The new session; None where there is one `under` that key already."""
        values: dict[str, object] = {
            "id": id,
            "tenant": tenant,
            "principal": principal,
            "role": role,
            "profile": profile,
            "title": title,
            "customer": customer,
            "me": self._me,
        }
        if under is None:
            await self._database.execute(_INSERT, values)
        else:
            values |= {"caller": under.principal, "key": under.key, "digest": under.digest}
            if await self._database.execute(_INSERT_UNDER_KEY, values) == 0:
                return None
        if self.owners is not None:
            self.owners.made(id)
        found = await self.get(id)
        if found is None:
            raise RuntimeError(f"session {id} was deleted as soon as it was made")
        return found

    async def made_under(self, asked: AskedUnder) -> tuple[str, str] | None:
        """The session that was made under a caller's key, and the digest of what was asked for then."""
        row = await self._database.fetch_one(
            "SELECT session, digest FROM session_key WHERE principal = %s AND key = %s", (asked.principal, asked.key)
        )
        return None if row is None else (row["session"], row["digest"])

    async def forget_key(self, session: str) -> None:
        """The session did not come to be: its key may be used again."""
        await self._database.execute("DELETE FROM session_key WHERE session = %s", (session,))

    async def restarted(self, session: str, first_cell: int) -> None:
        """Its kernel is new, and knows nothing of the cells before `first_cell`."""
        await self._database.execute("UPDATE session SET first_cell = %s WHERE id = %s", (first_cell, session))

    async def first_cell(self, session: str) -> int:
        """Number of the first cell that its kernel may know."""
        row = await self._database.fetch_one("SELECT first_cell FROM session WHERE id = %s", (session,))
        return 1 if row is None else int(row["first_cell"])

    async def get(self, id: str, tenant: str | None = None) -> SessionInfo | None:
        """`tenant`: None for any."""
        row = await self._database.fetch_one(
            f"{_SESSION} WHERE id = %(id)s AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)",
            {"id": id, "tenant": tenant, "me": self._me},
        )
        return None if row is None else msgspec.convert(row, SessionInfo)

    async def newest(
        self, tenant: str | None, limit: int, after: str | None = None, roles: Collection[Role] | None = None
    ) -> list[SessionInfo]:
        """`after`: the last one of the page before. `roles`: None for any."""
        wanted = None if roles is None else list(roles)
        values = {"tenant": tenant, "after": after, "limit": limit, "roles": wanted, "me": self._me}
        return [msgspec.convert(row, SessionInfo) for row in await self._database.fetch(_NEWEST, values)]

    async def beginning_with(self, prefix: str, tenant: str | None) -> list[SessionInfo]:
        """Those whose ids begin so, two at most. `tenant`: None for any."""
        rows = await self._database.fetch(
            f"{_SESSION} WHERE starts_with(id, %(prefix)s)"
            " AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s) LIMIT 2",
            {"prefix": prefix, "tenant": tenant, "me": self._me},
        )
        return [msgspec.convert(row, SessionInfo) for row in rows]

    async def set_state(self, id: str, state: SessionState, reason: str = "") -> None:
        """An ended session stays ended. `reason`: why its state is lost."""
        await self._database.execute(
            "UPDATE session SET state = %s, ended = CASE WHEN %s = 'ended' THEN now() END, reason = %s"
            " WHERE id = %s AND state <> 'ended' AND (%s::bigint IS NULL OR fence = %s)",
            (state, state, reason, id, fence := self._fence(id), fence),
        )

    async def cells(self, session: str) -> tuple[CellRow, ...]:
        """In the order in which they first ran."""
        rows = await self._database.fetch(
            "SELECT id, index, code, status, stopped FROM cell WHERE session = %s ORDER BY index", (session,)
        )
        return tuple(msgspec.convert(row, CellRow) for row in rows)

    async def cell(self, session: str, id: str) -> CellRow | None:
        row = await self._database.fetch_one(
            "SELECT id, index, code, status, stopped FROM cell WHERE session = %s AND id = %s", (session, id)
        )
        return None if row is None else msgspec.convert(row, CellRow)

    async def begin_cell(self, session: str, cell: CellRow, msg_id: str, deadline_s: float, *, trace: str = "") -> None:
        """Insert the cell, or set an earlier one running again; what its last run called is not this one's.

        Raises Fenced.
        """
        if self.owners is not None:
            await self.owners.check(session)
        begun = await self._database.execute(
            _BEGIN_CELL,
            {
                "session": session,
                "id": cell.id,
                "index": cell.index,
                "code": cell.code,
                "msg_id": msg_id,
                "trace": trace,
                "deadline_s": deadline_s,
                "fence": self._fence(session),
            },
        )
        if not begun:
            raise Fenced(session)

    async def stop_cell(self, session: str, cell: CellRow) -> None:
        """A cell that does not run: it is there, with status "error", and has ended."""
        await self._database.execute(
            "INSERT INTO cell (session, id, index, code, status, stopped, started, ended)"
            " VALUES (%s, %s, %s, %s, 'error', true, now(), now())"
            " ON CONFLICT (session, id) DO UPDATE SET started = now(), ended = now()",
            (session, cell.id, cell.index, cell.code),
        )

    async def running(self, session: str) -> RunningCell | None:
        """The cell that the session's kernel was sent last, if nobody knows how it ended."""
        row = await self._database.fetch_one(_RUNNING, (session,))
        return None if row is None else msgspec.convert(row, RunningCell)

    async def abandon(self, session: str, but: str = "") -> None:
        """The session's cells are not running, whatever their rows say: their kernel is gone. `but`: one that is."""
        await self._database.execute(_ABANDON, {"session": session, "but": but})

    async def end_cell(self, session: str, cell: str, status: CellStatus) -> None:
        await self._database.execute(
            _END_CELL, {"session": session, "id": cell, "status": status, "fence": self._fence(session)}
        )

    async def end_cells(self, session: str, ended: Mapping[str, CellStatus]) -> None:
        """Several at once: ids, and how each ended."""
        values: dict[str, Any] = {"session": session, "ids": list(ended), "statuses": list(ended.values())}
        values["fence"] = self._fence(session)
        await self._database.execute(_END_CELLS, values)

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

    async def add_said(
        self,
        info: SessionInfo,
        index: int,
        question: str,
        answer: str,
        words: list[str],
        times: tuple[datetime, datetime],
    ) -> None:
        """What customer and agent said in a turn, for the reports; `words`: what the agent's was about."""
        values = {"session": info.id, "tenant": info.tenant, "seq": 2 * index - 1, "question": question}
        values |= {"answer": answer, "words": words, "started": times[0], "ended": times[1]}
        await self._database.execute(_SAID, values)

    @property
    def _me(self) -> str:
        return "" if self.owners is None else self.owners.id

    def _fence(self, session: str) -> int | None:
        return None if self.owners is None else self.owners.fence(session)

    async def messages(self, session: str) -> list[list[dict[str, Any]]]:
        """The messages of each turn, in order."""
        rows = await self._database.fetch("SELECT messages FROM turn WHERE session = %s ORDER BY index", (session,))
        return [row["messages"] for row in rows]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
