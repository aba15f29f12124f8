"""The customer journey over 1,000,000 messages: real conversations, multiplied, a tenth of each copy's messages left
out so that copies differ; made ones of the same shape where the real ones are not there.

The peer is how it is done today: all messages as Python objects, added up in Python; at a tenth of the size, and
reckoned.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.figure import Figure, command
from gateway.db import Database
from gateway.postgres import EmbeddedPostgres, PostgresConfig
from gateway.settings import DatabaseSettings
from servers.analytics.files import messages_of
from servers.analytics.load import MOST, Message, write_messages
from servers.analytics.tools.journey import customer_journey
from servers.context import SessionPins, ToolContext

IDS = ("journey_1m_s", "journey_peak_mb")

_MESSAGES = 1_000_000
_TENANT = "bench"
_DATA = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
_REAL = _DATA / "conversations" / "multidogo.parquet"
_BEGINS = datetime(2026, 9, 1, tzinfo=UTC)

#: Rows are copies; their order on disk is that in which they come, not that of the conversations.
_MULTIPLY = """
INSERT INTO chat_message
SELECT tenant, conversation || '-' || k, seq, started + k * interval '7 seconds', at + k * interval '7 seconds', dated,
       role, customer, text, intents
FROM chat_message, generate_series(1, 40) k
WHERE abs(hashtext(conversation || k || seq)) %% 10 <> 0
LIMIT %s - (SELECT count(*) FROM chat_message)
"""

_OBJECTS = """
import json, sys, time, collections
import psycopg
from psycopg.rows import dict_row
url, limit = sys.argv[1], int(sys.argv[2])
def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
before = memory("VmRSS:")
started = time.perf_counter()
with psycopg.connect(url, row_factory=dict_row) as connection:
    rows = connection.execute(
        "SELECT * FROM chat_message WHERE started >= '2026-01-01' ORDER BY conversation, seq LIMIT %s", (limit,)
    ).fetchall()
social = {"openinggreeting", "closinggreeting", "confirmation", "rejection", "thankyou", "contentonly", "outofdomain"}
by = collections.defaultdict(list)
for row in rows:
    by[row["conversation"]].append(row)
paths, ends, resolved = collections.Counter(), collections.Counter(), 0
lengths = sorted(len(messages) for messages in by.values())
for messages in by.values():
    said = [word for message in messages for word in message["intents"]]
    path = [w for n, w in enumerate(said) if w not in social and (not n or said[n - 1] != w)]
    ends[said[-1] if said else ""] += 1
    resolved += bool(path) and said[-1] in ("confirmation", "rejection", "thankyou", "closinggreeting")
    paths[" > ".join(path)] += 1
seconds = time.perf_counter() - started
peak = memory("VmHWM:") - before
print(json.dumps({"seconds": seconds, "mb": peak / 1024, "rows": len(rows)}))
"""


def run(ids: set[str]) -> list[Figure]:
    return asyncio.run(_run(ids))


async def _run(ids: set[str]) -> list[Figure]:
    async with _database() as (url, database, data):
        await _fill(database)
        whole = await database.fetch_one("SELECT count(*) AS n FROM chat_message")
        assert whole is not None
        if whole["n"] != _MESSAGES:
            raise RuntimeError(f"{whole['n']} messages are no million")
        await _journey(database)  # what is measured after a load is the disk
        started = time.perf_counter()
        found = await _journey(database)
        seconds = time.perf_counter() - started
        watching = asyncio.create_task(_peak(data))  # not while the time is taken: to look costs some
        await _journey(database)
        watching.cancel()
        peak = (await asyncio.gather(watching))[0]
        if found["messages"] != _MESSAGES:
            raise RuntimeError(f"the journey is of {found['messages']} messages")
        peer = json.loads(
            await asyncio.to_thread(
                subprocess.check_output, [sys.executable, "-c", _OBJECTS, url, str(_MESSAGES // 10)], text=True
            )
        )
    name = "all messages as Python objects; a tenth of them, times ten"
    figures = [
        Figure("journey_1m_s", seconds, "s", peer["seconds"] * 10, name, command("journey_1m_s")),
        Figure("journey_peak_mb", peak, "MiB", peer["mb"] * 10, name, command("journey_peak_mb")),
    ]
    return [figure for figure in figures if figure.id in ids]


async def _fill(database: Database) -> None:
    for batch in messages_of(_REAL, begins=_BEGINS) if _REAL.exists() else _made():
        await write_messages(database.tenant(_TENANT), _TENANT, batch)
    await database.execute(_MULTIPLY, (_MESSAGES,))
    await database.execute("VACUUM ANALYZE chat_message")


def _made() -> Iterator[list[Message]]:
    """Conversations of a greeting, some requests with their details, and an end."""
    chance = random.Random(6)
    wants = [f"request{n}" for n in range(30)]
    ends = ["rejection", "thankyou", "closinggreeting", "confirmation", "contentonly"]
    batch: list[Message] = []
    for number in range(11_785):
        middle = [chance.choice([chance.choice(wants), "contentonly", "contentonly", "confirmation"]) for _ in range(6)]
        for seq, word in enumerate(["openinggreeting", *middle[: chance.randint(1, 6)], chance.choice(ends)]):
            text = " ".join(chance.choice(wants) for _ in range(5))
            batch.append(
                Message(conversation=f"made-{number:06}", seq=seq, at=_BEGINS, dated=False, text=text, intents=(word,))
            )
        if len(batch) >= MOST - 10:
            yield batch
            batch = []
    yield batch


async def _journey(database: Database) -> dict[str, Any]:
    async with httpx.AsyncClient() as http:
        context = ToolContext(_TENANT, "bench", _Pins(), "key", False, http, database=database.tenant(_TENANT))
        found: dict[str, Any] = await customer_journey.call(context, {})
        return found


class _Pins(SessionPins):
    customer: int | None = None
    customer_required = False

    async def pin_customer(self, customer_id: int) -> None:
        raise AssertionError("nobody is pinned here")


async def _peak(data: Path) -> float:
    """MiB of this process above what it had, and of all of Postgres, its shared memory once, at the most."""
    before, peak = _pss("self"), 0.0
    try:
        while True:
            postgres = sum(_pss(pid) for pid in _family(data))
            peak = max(peak, _pss("self") - before + postgres)
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        return peak


def _family(data: Path) -> list[str]:
    """The server's process and those that it has forked."""
    server = (data / "postgres" / "postmaster.pid").read_text().split("\n")[0]
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [server, *children]


def _pss(pid: str) -> float:
    """0 where it has ended just now."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


@asynccontextmanager
async def _database() -> AsyncIterator[tuple[str, Database, Path]]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        tempfile.TemporaryDirectory(prefix="bench-") as sockets,
    ):
        Path(folder).chmod(0o755)  # noqa: ASYNC240 - the database's own user comes through
        server = EmbeddedPostgres(PostgresConfig(data_dir=Path(folder), socket_dir=Path(sockets)))
        try:
            url = await server.start()
            database = Database(url, DatabaseSettings(pool_size=2))
            await database.open()
            yield url, database, Path(folder)
            await database.close()
        finally:
            await server.stop()
