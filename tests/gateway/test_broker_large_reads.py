"""Reads whose rows are large go to the journal by a thread; what a write relies on is in the journal before it goes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from broker_world import World

from gateway.broker.freight import LARGE
from gateway.broker.keys import CallKey
from gateway.types import CallRecord, Grant

SIZE = 2 * LARGE

END_ALL = b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = %s"


async def test_a_large_read_is_journaled_whole(world: World, call: Any) -> None:
    client = await world.armed()
    assert len(await call(client, "big", size=SIZE)) == SIZE
    assert await call(client, "echo", value=1) == 1
    large, small = sorted(await world.rows(), key=lambda row: row["tool"])
    assert (large["tool"], large["state"], len(large["result"])) == ("counting.big", "applied", SIZE + 2)
    assert (small["state"], small["result"]) == ("applied", "1")


async def test_large_reads_survive_the_end_of_their_connection(world: World, call: Any) -> None:
    client = await world.armed()
    await call(client, "big", size=SIZE)
    await world.journal.reads.flush("s1")
    async with await world.database.dedicated() as other:
        name = other.info.dbname
        await other.execute(END_ALL, (name,))
        await call(client, "big", size=SIZE + 1)
        await asyncio.wait_for(world.journal.reads.flush("s1"), 20)
        found = await (await other.execute("SELECT length(result) AS n FROM call ORDER BY n")).fetchall()
    assert [row["n"] for row in found] == [SIZE + 2, SIZE + 3]


async def test_a_row_that_cannot_be_written_holds_up_neither_answers_nor_the_end(world: World, call: Any) -> None:
    client = await world.armed()
    async with await world.database.dedicated() as other, other.transaction():
        await other.execute("LOCK TABLE request")
        assert len(await call(client, "big", size=SIZE)) == SIZE
        await asyncio.wait_for(world.journal.reads.close(0.2), 5)
    assert await world.database.fetch("SELECT FROM call") == []


async def test_a_write_whose_row_is_lost_does_not_go_out(world: World) -> None:
    grant = Grant(tenant="shop", principal="chat", session="s1", role="agent")
    await world.session()
    row = await world.journal.claim(CallKey("s1", "c1", "counting.add", "0" * 64, 1), grant, "write", "{}")
    await world.database.execute("DELETE FROM call")
    with pytest.raises(LookupError, match="not in the journal any more"):
        await world.journal.executing(row)


async def test_a_write_that_nobody_is_asked_about_is_on_disk_when_it_goes_out(world: World) -> None:
    async def lsn(which: str) -> int:
        row = await world.database.fetch_one(f"SELECT pg_wal_lsn_diff({which}(), '0/0')::bigint AS at")
        return int(row["at"]) if row else 0

    grant = await world.session()
    await world.broker.begin_cell("s1", "c1")
    seen: list[tuple[str, bool]] = []
    before = 0

    async def observe(boundary: Any, record: CallRecord) -> None:
        if boundary == "before":
            seen.append((record.state, await lsn("pg_current_wal_flush_lsn") > before))

    world.observers.append(observe)
    before = await lsn("pg_current_wal_insert_lsn")
    await world.broker.call(grant, "counting.add", {"name": "n"})
    assert seen == [("executing", True)]
