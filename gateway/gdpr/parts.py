"""What is put into a bundle, part by part: tables, transcripts. Each yields its progress after every batch. Blocking.

`tables/NAME.ndjson` has the person's own rows, `tables/NAME.mentions.ndjson` what names them in rows of others: that
part of each row alone, for the rest is somebody else's.
"""

from __future__ import annotations

import base64
import datetime
import decimal
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg

from gateway.gdpr.bundle import Bundle, Part
from gateway.gdpr.naming import Names, arrow_rows, mention_sql, quoted
from gateway.gdpr.registry import TABLES, Table
from gateway.gdpr.subject import Subject
from gateway.transcripts.output_file import folder_of
from gateway.transcripts.record import read_lines

#: Rows so far, bytes so far, and what is gone through.
Step = tuple[int, int, str]
Row = tuple[Any, ...]
Steps = Generator[Step, None, None]


@dataclass(frozen=True)
class Source:
    """Where parts come from. `asking`: the session that asks, which names the person by asking."""

    connection: psycopg.Connection[Row]
    #: Of the tenant: where its records are.
    transcripts: Path
    subject: Subject
    asking: str


def tables(bundle: Bundle, source: Source) -> Steps:
    """Every table that holds something of people."""
    looked: dict[str, dict[str, Any]] = {}
    for name, table in TABLES.items():
        if not table.personal or name == "transcript_line":
            continue
        yield bundle.rows, bundle.bytes, f"tables/{name}"
        yield from _own(bundle, source, name, table)
        yield from _named(bundle, source, name, table)
        found = sum(each["rows"] for each in bundle.files if each["name"].startswith(f"tables/{name}."))
        looked[name] = {"rows": found, "columns": list(table.names("person", "context"))}
    bundle.notes["tables"] = looked
    bundle.notes["tables_without_personal_data"] = sorted(name for name, table in TABLES.items() if not table.personal)


def transcripts(bundle: Bundle, source: Source) -> Steps:
    """The records of the person's sessions as they are, and of others the contents that name them."""
    own = list(source.subject.sessions)
    mirrored = {
        row[0]
        for row in _rows(
            source,
            "SELECT DISTINCT session FROM transcript_line WHERE session IN (SELECT id FROM session"
            " WHERE tenant = %(tenant)s)",
        )
    }
    with bundle.part("transcripts.ndjson", "Records of the person's conversations, line by line.") as part:
        for session in own:
            for raw in _record(source, session, mirrored):
                part.line(b'{"session":"' + session.encode() + b'","line":' + raw.rstrip(b"\n") + b"}")
                yield from _step(bundle, part)
    with bundle.part("outputs.ndjson", "All outputs of cells that said much, personal data masked in them.") as part:
        for session in own:
            for path in sorted(folder_of(source.transcripts / f"{session}.ipynb").glob("*.jsonl")):
                for raw, _ in read_lines(path):
                    about = orjson.dumps({"session": session, "file": path.name})[:-1]
                    part.line(about + b',"output":' + raw.rstrip(b"\n") + b"}")
                    yield from _step(bundle, part)
    names, seen = source.subject.names, 0
    others = sorted((mirrored | {path.stem for path in source.transcripts.glob("*.jsonl")}) - {*own, source.asking})
    with bundle.part("transcripts.mentions.ndjson", "What names the person in records of other sessions.") as part:
        for session in others:
            for raw in _record(source, session, mirrored):
                seen += len(raw)
                if names.in_bytes(raw) and (cut := _cut_line(names, raw)) is not None:
                    part.line(orjson.dumps({"session": session, **cut}))
                yield from _step(bundle, part)
    bundle.notes["transcripts"] = {"own_sessions": own, "other_sessions_searched": len(others), "bytes_searched": seen}


def lines_that_name(names: Names, raw: bytes) -> bool:
    """Whether a record's line has a content that names the person."""
    return names.in_bytes(raw) and _cut_line(names, raw) is not None


def _cut_line(names: Names, raw: bytes) -> dict[str, Any] | None:
    line = orjson.loads(raw)
    content = names.cut(line.get("content"))
    return None if content is None else {"seq": line["seq"], "at": line["at"], "kind": line["kind"], "part": content}


def _record(source: Source, session: str, mirrored: set[str]) -> Iterator[bytes]:
    """Its whole lines, from the database where they are there, else from this gateway's file."""
    if session in mirrored:
        sql = "SELECT line FROM transcript_line WHERE session = %(session)s ORDER BY seq"
        for (line,) in _rows(source, sql, session=session):
            yield bytes(line)
        return
    path = source.transcripts / f"{session}.jsonl"
    if path.exists():
        yield from (raw for raw, _ in read_lines(path) if raw.endswith(b"\n"))
    elif (notebook := path.with_suffix(".ipynb")).exists():  # older than records are
        yield orjson.dumps({"notebook": notebook.read_text()})


def _own(bundle: Bundle, source: Source, name: str, table: Table) -> Steps:
    if not table.own:
        return
    where = f"{table.tenant} AND {table.own}"
    with bundle.part(f"tables/{name}.ndjson", "Rows of the person's own.") as part:
        for (row,) in _rows(source, f"SELECT row_to_json(r)::text FROM ({_select(name, table)} WHERE {where}) AS r"):
            part.line(row.encode())
            yield from _step(bundle, part)
    for column in table.arrow:
        sql = (
            f"SELECT t.id, t.{quoted(column)} FROM {quoted(name)} AS t WHERE {where} AND t.{quoted(column)} IS NOT NULL"
        )
        with bundle.part(f"tables/{name}.{column}.ndjson", "Tables in them, row by row.") as part:
            for id, data in _rows(source, sql):
                for found in arrow_rows(data):
                    part.line(_dumps({"id": id, "row": found}))
                    yield from _step(bundle, part)


def _named(bundle: Bundle, source: Source, name: str, table: Table) -> Steps:
    if not table.mentions and not table.arrow:
        return
    names = source.subject.names
    where = _where_named(table, mention_sql(table.mentions))
    with bundle.part(f"tables/{name}.mentions.ndjson", "What names the person in rows of others.") as part:
        for (row,) in _rows(source, f"SELECT row_to_json(r)::text FROM ({_select(name, table)} WHERE {where}) AS r"):
            part.line(_dumps(_cut_row(names, table, orjson.loads(row))))
            yield from _step(bundle, part)
        for column in table.arrow:
            where = _where_named(table, mention_sql((), (column,)))
            for id, data in _rows(source, f"SELECT t.id, t.{quoted(column)} FROM {quoted(name)} AS t WHERE {where}"):
                for found in names.rows(data):
                    part.line(_dumps({"id": id, column: found}))
                    yield from _step(bundle, part)


def _cut_row(names: Names, table: Table, row: dict[str, Any]) -> dict[str, Any]:
    for column in table.names("person"):
        value = row.get(column)
        if column in table.mentions:
            row[column] = names.cut_json(value) if isinstance(value, str) else names.cut(value)
        else:
            row.pop(column, None)
    return row


def _select(name: str, table: Table) -> str:
    columns = [each for each in table.names("person", "context") if each not in table.arrow]
    return f"SELECT {', '.join(f't.{quoted(each)}' for each in columns)} FROM {quoted(name)} AS t"


def _where_named(table: Table, mention: str) -> str:
    """In this order: texts are not looked through of rows that are the person's own."""
    return f"{table.tenant} AND {_not_asking(table)} AND CASE WHEN {table.own or 'false'} THEN false ELSE {mention} END"


def _not_asking(table: Table) -> str:
    column = "id" if table is TABLES["session"] else "session" if "session" in table.columns else ""
    return f"t.{column} <> %(asking)s" if column else "true"


def _rows(source: Source, sql: str, **more: object) -> Iterator[Row]:
    """One by one as the server sends them."""
    with source.connection.cursor() as cursor:
        yield from cursor.stream(sql.encode(), source.subject.parameters | {"asking": source.asking} | more)


def _step(bundle: Bundle, part: Part) -> Steps:
    if part.due:
        bundle.check()
        yield bundle.rows + part.rows, bundle.bytes + part.size, part.name


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, default=_plain)


def _plain(value: object) -> Any:
    """What Arrow has and JSON has not."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no plain value")
