"""Rows of reads that a killed gateway had answered are sent by the next one; what was half written harms nothing."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import psycopg
import pytest
from broker_world import World

from gateway.broker import spool as module
from gateway.broker.behind import WriteBehind
from gateway.broker.spool import Spool

ROWS: list[list[bytes | None]] = [[b"a", None, b""], [b"\x00" * 1000, b"b", None], []]


def kept(folder: Path) -> list[list[bytes | None]]:
    return [row for _, row in Spool(folder).left()]


async def nobody() -> psycopg.AsyncConnection[object]:
    raise psycopg.OperationalError("no database")


async def killed_after_answering(world: World, *names: str) -> WriteBehind:
    """A gateway answers reads while their rows cannot be sent, and is never heard of again."""
    world.new_broker(entered_after_s=60)
    reads = world.journal.reads = WriteBehind(nobody, Spool(world.folder / "reads"))
    await world.broker.begin_cell("s1", "c1")
    grant = await world.session()
    for name in names:
        await world.broker.call(grant, "counting.look", {"name": name})
    connecting = reads._connecting
    assert connecting is not None
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    world.new_broker()
    return reads


async def test_reads_answered_before_a_kill_are_in_the_journal_of_the_next_gateway(world: World) -> None:
    await killed_after_answering(world, "a", "b", "a")
    assert await world.rows() == []
    world.journal.reads = WriteBehind(world.database.dedicated, Spool(world.folder / "reads"))
    await world.journal.reads.recover(60)
    rows = await world.rows()
    assert [(row["args"]["name"], row["occurrence"], row["state"]) for row in rows] == [
        ("a", 1, "applied"),
        ("b", 1, "applied"),
        ("a", 2, "applied"),
    ]
    assert kept(world.folder / "reads") == []


async def test_a_row_that_the_database_refuses_is_not_sent_for_ever(world: World) -> None:
    await killed_after_answering(world, "a")
    await world.database.execute("DELETE FROM session")
    for _ in range(2):
        reads = WriteBehind(world.database.dedicated, Spool(world.folder / "reads"))
        await reads.recover(60)
        await reads.close(60)
    assert kept(world.folder / "reads") == []


async def test_rows_that_come_twice_change_nothing(world: World) -> None:
    await killed_after_answering(world, "a")
    [path] = (world.folder / "reads").iterdir()
    copy = path.read_bytes()
    for _ in range(2):
        path.write_bytes(copy)
        reads = WriteBehind(world.database.dedicated, Spool(world.folder / "reads"))
        await reads.recover(60)
        await reads.close(60)
    assert [row["occurrence"] for row in await world.rows()] == [1]


async def test_a_database_away_at_an_orderly_stop_loses_no_row_either(world: World) -> None:
    reads = await killed_after_answering(world, "a")
    await reads.close(0)
    assert len(kept(world.folder / "reads")) == 1


def test_rows_stay_until_they_are_done(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "reads")
    segments = [spool.keep(row) for row in ROWS]
    assert kept(tmp_path / "reads") == ROWS
    [path] = (tmp_path / "reads").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for segment in segments:
        spool.done(segment)
    assert path.stat().st_size == 0
    spool.close()
    assert list((tmp_path / "reads").iterdir()) == []


def test_no_file_grows_for_ever_where_there_is_always_a_row_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT", 5000)
    spool = Spool(tmp_path / "reads")
    last = spool.keep(ROWS[1])
    for _ in range(100):
        following = spool.keep(ROWS[1])
        spool.done(last)
        last = following
    assert len(list((tmp_path / "reads").iterdir())) <= 2
    assert kept(tmp_path / "reads") == [ROWS[1]] * len(kept(tmp_path / "reads"))
    assert len(kept(tmp_path / "reads")) <= 6


@pytest.mark.parametrize("damage", ["cut", "zeros", "noise", "huge"])
def test_what_was_half_written_counts_as_never_kept(tmp_path: Path, damage: str) -> None:
    spool = Spool(tmp_path / "reads")
    for row in ROWS:
        spool.keep(row)
    [path] = (tmp_path / "reads").iterdir()
    whole = path.read_bytes()
    spool.keep([b"half"] * 20)
    end = path.read_bytes()[len(whole) :]
    tails = {
        "cut": [end[:length] for length in range(len(end))],
        "zeros": [bytes(length) for length in (1, 8, 100, 4096)],
        "noise": [b"\xff" * length for length in (1, 8, 100, 4096)],
        "huge": [b"row1\xff\xff\xff\xff" + b"x" * 100, b"row1\x01\x00\x00\x00" + b"\xff" * 7 + b"\x7fx"],
    }
    for tail in tails[damage]:
        path.write_bytes(whole + tail)
        assert kept(tmp_path / "reads") == ROWS


def test_a_full_disk_leaves_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    spool = Spool(tmp_path / "reads")
    spool.keep(ROWS[0])
    writev = os.writev

    def full(descriptor: int, pieces: list[bytes]) -> int:
        os.write(descriptor, b"".join(pieces)[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(OSError, match="No space"):
        spool.keep(ROWS[1])
    monkeypatch.setattr(os, "writev", writev)
    spool.keep(ROWS[1])
    assert kept(tmp_path / "reads") == ROWS[:2]


async def test_a_disk_that_takes_nothing_holds_up_no_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "keep", full)
    grant = await world.session()
    world.journal.reads = WriteBehind(world.database.dedicated, Spool(world.folder / "reads"))
    await world.broker.begin_cell("s1", "c1")
    await world.broker.call(grant, "counting.look", {"name": "a"})
    assert [row["state"] for row in await world.rows()] == ["applied"]
