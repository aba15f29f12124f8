"""The export of a person of whom there is much: how much memory the process takes more while it writes the file."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.figure import Figure, command
from gateway.db import Database
from gateway.postgres import EmbeddedPostgres, PostgresConfig
from gateway.settings import DatabaseSettings

IDS = ("gdpr_1gb_peak_mb",)

#: Of what is exported, MB: half of it results of calls, a quarter turns, a quarter the record.
SIZE_MB = int(os.environ.get("OMNIOPS_BENCH_GDPR_MB", "1024"))
_ROW_BYTES, _TURN_BYTES, _LINE_BYTES = 20_000, 200_000, 100_000

_FILL = """
INSERT INTO session (id, tenant, principal, role, customer, state) VALUES ('s', 'bench', 'p', 'agent', 7, 'ended');
INSERT INTO call (session, cell, tool, args, args_hash, occurrence, effect, idempotency_key, state, result, tenant,
                  principal)
SELECT 's', 'c', 't.t', '{{}}', i, 0, 'read', i, 'applied',
       (SELECT string_agg(md5(i::text || j::text), '') FROM generate_series(1, {row} / 32) AS j), 'bench', 'p'
FROM generate_series(1, {rows}) AS i;
INSERT INTO turn SELECT 's', i, 'cells', json_build_array(
       (SELECT string_agg(md5(i::text || j::text), '') FROM generate_series(1, {turn} / 32) AS j)), '', '{{}}', now(),
       now()
FROM generate_series(1, {turns}) AS i;
"""

#: In a process of its own, which does nothing else. The system keeps its peak, and forgets the one before.
_CHILD = """
import json, sys
from pathlib import Path
import psycopg
from gateway.gdpr import parts
from gateway.gdpr.bundle import Bundle
from gateway.gdpr.subject import Subject

def resident(name):
    [line] = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name)]
    return int(line.split()[1]) / 1024

url, folder = sys.argv[1], Path(sys.argv[2])
subject = Subject("bench", ("bo@mail.example",), (7,), ("s",), ("p",))
with psycopg.connect(url) as connection, Bundle(folder / "exports" / "x.zip", 2**40) as bundle:
    source = parts.Source(connection, folder / "bench", subject, "asking")
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    for work in (parts.tables(bundle, source), parts.transcripts(bundle, source)):
        for step in work:
            pass
    bundle.finish({})
    print(json.dumps({"before": before, "peak": resident("VmHWM"), "mb": bundle.bytes / 1e6}))
"""


def run(ids: set[str]) -> list[Figure]:
    with _folders() as (data, sockets, files):
        server = EmbeddedPostgres(PostgresConfig(data_dir=data, socket_dir=sockets))
        url = asyncio.run(server.start())
        try:
            asyncio.run(_migrated(url))
            _fill(url, files)
            done = subprocess.run(
                [sys.executable, "-c", _CHILD, url, str(files)], check=True, stdout=subprocess.PIPE, text=True
            )
        finally:
            asyncio.run(server.stop())
    found = json.loads(done.stdout)
    if found["mb"] < SIZE_MB * 0.95:
        raise RuntimeError(f"not all was exported: {found}")
    return [Figure("gdpr_1gb_peak_mb", found["peak"] - found["before"], "MiB", None, "", command("gdpr_1gb_peak_mb"))]


def _fill(url: str, files: Path) -> None:
    size = SIZE_MB * 1_000_000
    with psycopg.connect(url, autocommit=True) as connection:
        counts = {"row": _ROW_BYTES, "rows": size // 2 // _ROW_BYTES, "turn": _TURN_BYTES}
        connection.execute(_FILL.format(**counts, turns=size // 4 // _TURN_BYTES).encode())
    (files / "bench").mkdir()
    with (files / "bench" / "s.jsonl").open("w") as file:
        for number in range(size // 4 // _LINE_BYTES):
            text = f"{number:x}" * (_LINE_BYTES // len(f"{number:x}"))
            file.write(json.dumps({"seq": number + 1, "content": {"text": text}}) + "\n")


async def _migrated(url: str) -> None:
    database = Database(url, DatabaseSettings(pool_size=1))
    await database.open()
    await database.close()


@contextmanager
def _folders() -> Iterator[tuple[Path, Path, Path]]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as data,
        tempfile.TemporaryDirectory(prefix="bench-") as sockets,
        tempfile.TemporaryDirectory(prefix="bench-") as files,
    ):
        Path(data).chmod(0o755)  # the database's own user comes through
        yield Path(data), Path(sockets), Path(files)
