"""Records in the database, line by line as in their files, so that any gateway can go on with them.

The gateway that has a session adds to both: what was told is in the database, too. A gateway that takes a session over
makes its file from there (`bring_up`), every line checked. What a gateway wrote that had lost the session by then is
not in the database; it is set aside beside the file and never read again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from gateway.db import Database
from gateway.peers.errors import Fenced
from gateway.transcripts.errors import RecordDamaged
from gateway.transcripts.output_file import remove_outputs
from gateway.transcripts.record import Head, Record, check_line, genesis, read_lines

log = structlog.get_logger(__name__)

#: Bytes that go to the database, or come from it, at once; a line may be larger.
_AT_ONCE = 4 * 2**20

_PUSH = """
    WITH owned AS (SELECT FROM session WHERE id = %(session)s AND fence = %(fence)s FOR SHARE),
    entered AS (
        INSERT INTO transcript_line (session, seq, hash, line)
        SELECT %(session)s, seq, hash, line
        FROM owned, unnest(%(seqs)s::bigint[], %(hashes)s::text[], %(lines)s::bytea[]) AS new (seq, hash, line)
        ON CONFLICT DO NOTHING RETURNING seq
    )
    SELECT (SELECT count(*) FROM owned) AS owned, (SELECT count(*) FROM entered) AS entered
"""
_HEAD = "SELECT seq, hash FROM transcript_line WHERE session = %s ORDER BY seq DESC LIMIT 1"
_HASH = "SELECT hash FROM transcript_line WHERE session = %s AND seq = %s"
_SOME = """
    SELECT seq, line FROM (
        SELECT seq, line, sum(length(line)) OVER (ORDER BY seq) - length(line) AS before
        FROM transcript_line WHERE session = %s AND seq > %s ORDER BY seq LIMIT 200
    ) AS next WHERE before < %s ORDER BY seq
"""


_ERASED = """
    SELECT transcript.session, transcript.tenant, erased FROM transcript JOIN session ON session.id = transcript.session
    WHERE erased IS NOT NULL AND session.gateway NOT IN ('', %s)
"""


@dataclass(frozen=True)
class _At:
    """How far the database has a record: its last line, and where the next one begins in the file."""

    seq: int
    offset: int


class Mirror:
    """The statements, and what is known of each record. Methods belong to one event loop."""

    def __init__(self, database: Database, fence: Callable[[str], int | None]) -> None:
        """`fence`: what this gateway writes with, of a session that it has."""
        self._database = database
        self._fence = fence
        self._known: dict[str, _At] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def push(self, record: Record) -> None:
        """What the file has, the database has, too. The caller is the record's only writer here.

        Raises:
            Fenced: the session is another gateway's.
            psycopg.OperationalError, PoolTimeout: the database is away.
        """
        session, fence = record.session, self._fence(record.session)
        if fence is None:
            raise Fenced(session)
        at = self._known.get(session)
        if at is None:
            head = await self._head(session)
            at = await asyncio.to_thread(_place_of, record, head)
            if at is None:
                raise Fenced(session)
        while at.offset < record.size:
            raws, after = await asyncio.to_thread(_lines_at, record, at)
            await self._enter(session, fence, raws)
            at = self._known[session] = after

    async def _enter(self, session: str, fence: int, raws: list[tuple[int, str, bytes]]) -> None:
        seqs, hashes, lines = zip(*raws, strict=True)
        values = {"session": session, "fence": fence, "seqs": list(seqs), "hashes": list(hashes), "lines": list(lines)}
        done = await self._database.fetch_one(_PUSH, values)
        if not done or not done["owned"]:
            raise Fenced(session)
        if done["entered"] < len(raws):  # sent before, and the answer was lost; or somebody else's
            last = await self._database.fetch_one(_HASH, (session, seqs[-1]))
            if last is None or last["hash"] != hashes[-1]:
                raise Fenced(session)

    def forget(self, session: str) -> None:
        """It is not written here any more."""
        self._known.pop(session, None)
        self._locks.pop(session, None)

    async def bring_up(self, path: Path) -> None:
        """The file of a session that another gateway has, or had: as the database has it. `path`: of the notebook.

        Nothing happens where the database has none of it.

        Raises:
            RecordDamaged: what the database has is no record.
            OSError
        """
        tenant, session = path.parent.name, path.stem
        async with self._locks.setdefault(session, asyncio.Lock()):
            head = await self._head(session)
            if head.seq == 0:
                return
            erased = await self._database.fetch_one("SELECT erased FROM transcript WHERE session = %s", (session,))
            await asyncio.to_thread(_drop_older, path, None if erased is None else erased["erased"])
            record = Record(path.with_suffix(".jsonl"), tenant, session)
            have = await asyncio.to_thread(_compare, record, head)
            if have is None:
                return
            if have.seq:  # is what the file has the beginning of it?
                known = await self._database.fetch_one(_HASH, (session, have.seq))
                if known is None or known["hash"] != have.hash:
                    have = Head(0, genesis(tenant, session))
            await self._fetch(record, have)

    async def drop_erased(self, root: Path, me: str) -> None:
        """Remove this folder's copies of what other gateways have erased. `me`: this gateway."""
        for row in await self._database.fetch(_ERASED, (me,)):
            await asyncio.to_thread(_drop_older, root / row["tenant"] / f"{row['session']}.ipynb", row["erased"])

    async def replace(self, record: Record) -> None:
        """The database has what the file has, and nothing else: contents were erased."""
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute("DELETE FROM transcript_line WHERE session = %s", (record.session,))
            at = _At(0, 0)
            while at.offset < record.path.stat().st_size:
                raws, at = await asyncio.to_thread(_lines_at, record, at)
                for seq, hash, line in raws:
                    await connection.execute(
                        "INSERT INTO transcript_line (session, seq, hash, line) VALUES (%s, %s, %s, %s)",
                        (record.session, seq, hash, line),
                    )
        self.forget(record.session)

    async def _head(self, session: str) -> Head:
        row = await self._database.fetch_one(_HEAD, (session,))
        return Head(0, "") if row is None else Head(row["seq"], row["hash"])

    async def _fetch(self, record: Record, have: Head) -> None:
        beside = record.path.with_name(f".{record.path.name}.fetched")
        await asyncio.to_thread(_begin, record, beside, whole=have.seq > 0)
        head = have
        while rows := await self._database.fetch(_SOME, (record.session, head.seq, _AT_ONCE)):
            head = await asyncio.to_thread(_add, beside, head, [bytes(row["line"]) for row in rows])
        await asyncio.to_thread(_put, beside, record.path, aside=have.seq == 0)
        log.info("a record was brought up to date", session=record.session, before=have.seq, lines=head.seq)


def _place_of(record: Record, head: Head) -> _At | None:
    """Where the line after `head` begins; None where the file does not have `head`."""
    if head.seq == 0:
        return _At(0, 0)
    again = record.again()
    for line, place in again.scan():
        if line.seq == head.seq:
            return _At(head.seq, place.offset + place.length) if line.hash == head.hash else None
    return None


def _lines_at(record: Record, at: _At) -> tuple[list[tuple[int, str, bytes]], _At]:
    """Whole lines from there on, about as many as go at once: numbers, hashes, bytes. Written just now, or checked."""
    found: list[tuple[int, str, bytes]] = []
    seq, offset = at.seq, at.offset
    with open(record.path, "rb") as file:
        file.seek(offset)
        while offset - at.offset < _AT_ONCE and (raw := file.readline()).endswith(b"\n"):
            seq, offset = seq + 1, offset + len(raw)
            found.append((seq, hash_of(raw), raw))
    return found, _At(seq, offset)


def hash_of(raw: bytes) -> str:
    """The hash that a line says it has: it stands before all that a stranger wrote."""
    return raw.partition(b',"hash":"')[2][:64].decode("ascii", "replace")


def _compare(record: Record, head: Head) -> Head | None:
    """How far the file has come that is behind `head`; None where it has it, and line 0 where it is another."""
    nothing = Head(0, "")
    if not record.path.exists():
        return nothing
    hash = ""
    try:
        for line, _ in record.scan():
            if line.seq == head.seq:
                hash = line.hash
    except RecordDamaged as error:
        log.error("a record that another gateway wrote is damaged here: it is made anew", error=str(error))
        return nothing
    if hash:
        return None if hash == head.hash else nothing
    return record.head


def _drop_older(path: Path, erased: datetime | None) -> None:
    """Remove a session's files where they are older than its erasure, and what was set aside of them."""
    record = path.with_suffix(".jsonl")
    if erased is None or not record.exists() or record.stat().st_mtime > erased.timestamp():
        return
    for old in (path, record, *path.parent.glob(f"{record.name}.aside-*")):
        old.unlink(missing_ok=True)
    remove_outputs(path)
    log.info("a copy of an erased record was removed", session=path.stem)


def _begin(record: Record, beside: Path, *, whole: bool) -> None:
    beside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as to:
        if whole:
            to.writelines(raw for raw, _ in read_lines(record.path) if raw.endswith(b"\n"))


def _add(beside: Path, head: Head, raws: list[bytes]) -> Head:
    if head.seq == 0:
        head = Head(0, genesis(beside.parent.name, beside.name.split(".")[1]))
    for raw in raws:
        line = check_line(raw, head)
        head = Head(line.seq, line.hash)
    with open(beside, "ab") as file:
        file.writelines(raws)
    return head


def _put(beside: Path, path: Path, *, aside: bool) -> None:
    with open(beside, "rb") as file:
        os.fsync(file.fileno())
    if aside and path.exists():
        number = 1
        while (old := path.with_name(f"{path.name}.aside-{number}")).exists():
            number += 1
        path.rename(old)
        log.warning("a record that other gateways do not know was set aside", path=str(old))
    beside.rename(path)
    path.with_suffix(".ipynb").unlink(missing_ok=True)  # it is made anew
