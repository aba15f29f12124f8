"""One person erased, step by step. Each may be done twice: killed between two, it is gone on with from the first.

An erasure is a row of `gdpr_erasure`. It ends as done when nothing of the person is left but what the registry keeps;
until then it waits for sessions of others that name the person and are still open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import psycopg
import structlog
from psycopg.types.json import Jsonb

from gateway.db import Database
from gateway.gdpr.exports import Exports
from gateway.gdpr.naming import any_needle, mention_sql, quoted
from gateway.gdpr.parts import lines_that_name
from gateway.gdpr.registry import TABLES, Table
from gateway.gdpr.subject import Subject, resolve
from gateway.saving import PASSING
from gateway.session_errors import SessionError, SessionNotFound
from gateway.sessions import Sessions
from gateway.transcripts.erasure import Eraser, StillOpen
from gateway.transcripts.errors import TranscriptError
from gateway.transcripts.record import read_lines

log = structlog.get_logger(__name__)

_CLAIM = """
    UPDATE gdpr_erasure
    SET claimed_by = %(me)s, claimed_until = now() + make_interval(secs => %(lease)s), state = 'running'
    WHERE id = %(id)s AND state <> 'done'
      AND (claimed_until IS NULL OR claimed_until < now() OR claimed_by = %(me)s)
    RETURNING tenant, emails, customers, principal, report
"""
_INSERT = """
    INSERT INTO gdpr_erasure (id, tenant, subject, emails, customers, principal, session, reason, state)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'running') ON CONFLICT (id) DO NOTHING
"""
_RELEASE = """
    UPDATE gdpr_erasure SET state = %(state)s, report = %(report)s,
        claimed_until = CASE WHEN %(again_s)s > 0 THEN now() + make_interval(secs => %(again_s)s) END,
        done = CASE WHEN %(state)s = 'done' THEN now() END,
        emails = CASE WHEN %(state)s = 'done' THEN '{}' ELSE emails END,
        customers = CASE WHEN %(state)s = 'done' THEN '{}' ELSE customers END
    WHERE id = %(id)s
"""
#: Lines of others in which a needle is; a number is in many that do not name the person.
_MIRRORED = f"""
    SELECT t.session, t.line FROM transcript_line AS t JOIN session ON session.id = t.session
    WHERE session.tenant = %(tenant)s AND NOT (t.session = ANY(%(sessions)s))
      AND {any_needle("lower(encode(t.line, 'escape'))")}
"""
#: Not those of which nothing has changed: to look through all records takes long. A person's own sessions are ended.
_OPEN = """
    SELECT id FROM gdpr_erasure WHERE state = 'running' OR (state = 'waiting' AND (
        EXISTS (SELECT FROM session WHERE session.tenant = gdpr_erasure.tenant AND report -> 'waiting' ? session.id
                AND (session.state = 'ended' OR session.customer = ANY(customers)))
        OR (report -> 'waiting' = '[]' AND (claimed_until IS NULL OR claimed_until < now()))))
    ORDER BY created
"""
#: After what cannot be had, such as a damaged record, it is tried again, seconds.
_AGAIN_S = 3600.0
_STORED = "UPDATE gdpr_erasure SET report = %s WHERE id = %s"

Counts: TypeAlias = dict[str, int]


class Report(msgspec.Struct):
    """What was removed so far, and what is left."""

    #: Rows removed or emptied, by table; `transcripts`: lines of records; `exports`: files.
    removed: Counts = {}
    #: Rows that stay, by table; the registry says why.
    kept: Counts = {}
    #: Sessions of the person that were erased.
    sessions: list[str] = []
    #: Open sessions of others that name the person: erased there when they have ended.
    waiting: list[str] = []
    problems: list[str] = []

    def add(self, what: str, rows: int) -> None:
        if rows:
            self.removed[what] = self.removed.get(what, 0) + rows


@dataclass(frozen=True)
class Erasures:
    """Erases. `me`: this gateway."""

    database: Database
    sessions: Sessions
    eraser: Eraser
    files: Exports
    transcripts: Path
    key: bytes
    me: str
    #: Seconds after which another gateway may take over.
    lease_s: float

    async def enter(self, id: str, subject: Subject, principal: str, session: str, reason: str) -> None:
        """From now on it is done, whoever is killed. Safe to call again."""
        about = await resolve(self.database, self.key, subject)
        values = (id, subject.tenant, about.pseudonyms[0], list(about.emails), list(about.customers))
        await self.database.execute(_INSERT, (*values, principal, session, reason))

    async def state(self, id: str, tenant: str) -> tuple[str, Report] | None:
        """running, waiting or done, and what was removed so far; None: there is no such erasure."""
        row = await self.database.fetch_one(
            "SELECT state, report FROM gdpr_erasure WHERE id = %s AND tenant = %s", (id, tenant)
        )
        return None if row is None else (row["state"], msgspec.convert(row["report"], Report))

    async def open(self) -> list[str]:
        """Those that can be gone on with now."""
        return [row["id"] for row in await self.database.fetch(_OPEN)]

    async def work(self, id: str) -> None:
        """Go on with one as far as it goes; nothing happens where another gateway is about it."""
        row = await self._claim(id)
        if row is None:
            return
        plain = Subject(row["tenant"], tuple(row["emails"]), tuple(row["customers"]))
        subject = await resolve(self.database, self.key, plain)
        report = msgspec.convert(row["report"], Report)
        report.waiting, report.problems = [], []
        left = await self._own_sessions(id, subject, row["principal"], report)
        await self._other_records(id, subject, row["principal"], report)
        done = replace(subject, sessions=tuple(each for each in subject.sessions if each not in left))
        for name in sorted(TABLES, key=lambda name: name == "session"):  # last: by it the others are found
            await self._table(id, name, TABLES[name], done, report)
        report.add("exports", await self.files.remove_of(subject))
        report.kept = await self.kept(subject)
        report.waiting = sorted(set(report.waiting) | set(await self._still_open(subject)))
        state = "waiting" if report.waiting or report.problems else "done"
        values: dict[str, Any] = {"id": id, "state": state, "report": Jsonb(msgspec.to_builtins(report))}
        values["again_s"] = _AGAIN_S if report.problems else 0
        await self.database.execute(_RELEASE, values)
        log.info("a person was erased", erasure=id, tenant=subject.tenant, state=state)

    async def counts(self, subject: Subject) -> Counts:
        """Rows of each table that are the person's or name them, that an erasure changes."""
        found = {}
        for name, table in TABLES.items():
            if table.erase != "keep" and (rows := await self._count(name, table, subject)):
                found[name] = rows
        return found

    async def kept(self, subject: Subject) -> Counts:
        """Rows that stay whatever is erased."""
        found = {}
        for name, table in TABLES.items():
            looked = table.personal and table.erase == "keep" and (table.own or table.mentions)
            if looked and (rows := await self._count(name, table, subject)):
                found[name] = rows
        return found

    async def _claim(self, id: str) -> dict[str, Any] | None:
        return await self.database.fetch_one(_CLAIM, {"id": id, "me": self.me, "lease": self.lease_s})

    async def _own_sessions(self, id: str, subject: Subject, by: str, report: Report) -> set[str]:
        """Ended and erased; those that cannot be now."""
        left: set[str] = set()
        for session in subject.sessions:
            await self._claim(id)
            try:
                await self.sessions.end(session)
                row = await self.database.fetch_one("SELECT erased FROM transcript WHERE session = %s", (session,))
                if row is not None and row["erased"] is None:
                    report.add("transcripts", await self.eraser.erase(session, f"GDPR erasure {id}", by))
                    report.sessions.append(session)
                    await self._store(id, report)
            except (SessionError, StillOpen) as error:
                left.add(session)
                report.waiting.append(session)
                log.warning("a session cannot be erased yet", session=session, error=str(error))
            except (TranscriptError, OSError) as error:
                left.add(session)
                report.problems.append(f"session {session}: {error}")
        return left

    async def _other_records(self, id: str, subject: Subject, by: str, report: Report) -> None:
        """Contents in records of others that name the person; their lines stay as tombstones."""
        names = subject.names
        for session in await self._naming(subject):
            await self._claim(id)
            try:
                removed = await self.eraser.erase(
                    session, f"GDPR erasure {id}", by, lambda raw: lines_that_name(names, raw)
                )
                report.add("transcripts", removed)
                await self._store(id, report)
            except SessionNotFound as error:
                report.problems.append(str(error))
            except (SessionError, StillOpen):
                report.waiting.append(session)
            except (TranscriptError, OSError) as error:
                report.problems.append(f"session {session}: {error}")

    async def _naming(self, subject: Subject) -> list[str]:
        """Sessions of others whose records name the person: by the files here, and by the lines in the database."""
        names, found = subject.names, set[str]()
        async with self.database.connection() as connection, connection.cursor() as cursor:
            async for row in cursor.stream(_MIRRORED.encode(), subject.parameters):
                if row["session"] not in found and lines_that_name(names, bytes(row["line"])):
                    found.add(row["session"])
        found |= set(await asyncio.to_thread(_files_naming, self.transcripts / subject.tenant, subject))
        return sorted(found - set(subject.sessions))

    async def _table(self, id: str, name: str, table: Table, subject: Subject, report: Report) -> None:
        """In one transaction with the report: what was counted was done, and the other way round."""
        if table.erase == "keep":
            return
        async with self.database.connection() as connection, connection.transaction():
            rows = 0
            for sql in _statements(name, table):
                rows += (await connection.execute(sql.encode(), subject.parameters)).rowcount
            report.add(name, rows)
            await connection.execute(_STORED.encode(), (Jsonb(msgspec.to_builtins(report)), id))

    async def _still_open(self, subject: Subject) -> list[str]:
        """Open sessions of others in whose rows the person is named."""
        found: set[str] = set()
        for name, table in TABLES.items():
            if table.free == "true" or not (table.mentions or table.arrow):
                continue
            session = {"session": "t.id", "jupyter_session": "t.kernel", "approval_call": ""}.get(name, "t.session")
            if session:
                where = f"{table.tenant} AND NOT ({table.free}) AND {mention_sql(table.mentions, table.arrow)}"
                sql = f"SELECT DISTINCT {session} AS id FROM {quoted(name)} AS t WHERE {where}"
                found |= {row["id"] for row in await self.database.fetch(sql, subject.parameters)}
        return sorted(found)

    async def _count(self, name: str, table: Table, subject: Subject) -> int:
        own = table.own or "false"
        where = f"{table.tenant} AND ({own} OR {mention_sql(table.mentions, table.arrow)})"
        if table.erase == "blank":
            where += f" AND {_filled(table.blank)}"
        sql = f"SELECT count(*) AS rows FROM {quoted(name)} AS t WHERE {where}"
        row = await self.database.fetch_one(sql, subject.parameters)
        return int(row["rows"]) if row else 0

    async def _store(self, id: str, report: Report) -> None:
        await self.database.execute(_STORED, (Jsonb(msgspec.to_builtins(report)), id))


def passing(error: BaseException) -> bool:
    """It may go better later."""
    return isinstance(error, (*PASSING, psycopg.Error))


def _statements(name: str, table: Table) -> list[str]:
    """The person's own rows first: what names them in others is looked for in what is left."""
    found = []
    if table.own:
        where = f"{table.tenant} AND {table.own} AND {table.free}"
        found.append(_removal(name, where, None if table.erase == "delete" else table.blank))
    if table.mentions or table.arrow:
        where = f"{table.tenant} AND {mention_sql(table.mentions, table.arrow)} AND {table.free}"
        whole = table.erase == "delete" and table.blank_mention is None
        found.append(_removal(name, where, None if whole else table.blank_mention or table.blank))
    return found


def _removal(name: str, where: str, blank: Mapping[str, str | None] | None) -> str:
    if blank is None:
        return f"DELETE FROM {quoted(name)} AS t WHERE {where}"
    return f"UPDATE {quoted(name)} AS t SET {_assigned(blank)} WHERE {where} AND {_filled(blank)}"


def _assigned(blank: Mapping[str, str | None]) -> str:
    return ", ".join(f"{quoted(column)} = {_literal(value)}" for column, value in blank.items())


def _filled(blank: Mapping[str, str | None]) -> str:
    """True of rows that are not blank already."""
    parts = [
        f"t.{quoted(column)} IS NOT NULL" if value is None else f"t.{quoted(column)}::text <> {_literal(value)}"
        for column, value in blank.items()
    ]
    return f"({' OR '.join(parts)})"


def _literal(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''").replace("%", "%%") + "'"


def _files_naming(folder: Path, subject: Subject) -> list[str]:
    names, found = subject.names, []
    for path in sorted(folder.glob("*.jsonl")) if folder.exists() else []:
        if any(lines_that_name(names, raw) for raw, _ in read_lines(path) if raw.endswith(b"\n")):
            found.append(path.stem)
    return found
