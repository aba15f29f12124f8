"""Transcripts on disk: complete or not at all, private, continued after a restart, there after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest

from gateway.transcripts.notebook import Header, Said
from gateway.transcripts.store import TranscriptError, TranscriptStore, read_notebook, write_atomically

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)


def header(session: str = "s1", tenant: str = "shop") -> Header:
    return Header(session, tenant, "agent", START)


def said(number: int, text: str = "hello") -> Said:
    return Said(f"m{number}", "customer", text, START)


async def test_every_entry_is_on_disk_when_add_returns(tmp_path: Path) -> None:
    transcript = TranscriptStore(tmp_path).open(header())
    for number in range(3):
        await transcript.add(said(number))
        nbformat.validate(nbformat.read(transcript.path, as_version=4))
        assert len(read_notebook(transcript.path)["cells"]) == number + 1


async def test_only_the_owner_may_read_and_nothing_else_is_left(tmp_path: Path) -> None:
    transcript = TranscriptStore(tmp_path / "transcripts").open(header())
    await transcript.add(said(1))
    assert transcript.path.stat().st_mode & 0o777 == 0o600
    assert transcript.path.parent.stat().st_mode & 0o777 == 0o700
    assert transcript.record.path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(transcript.path.parent)) == ["s1.ipynb", "s1.jsonl"]


async def test_a_restart_continues_the_file(tmp_path: Path) -> None:
    await TranscriptStore(tmp_path).open(header()).add(said(1), said(2))
    await TranscriptStore(tmp_path).open(header()).add(said(3))
    assert [cell["id"] for cell in read_notebook(tmp_path / "shop/s1.ipynb")["cells"]] == ["m1", "m2", "m3"]


async def test_lists_are_by_tenant_and_skip_what_is_no_transcript(tmp_path: Path) -> None:
    store = TranscriptStore(tmp_path)
    await store.open(header("s1", "one")).add(said(1))
    await store.open(header("s2", "two")).add(said(1))
    (tmp_path / "one" / "other.ipynb").write_text("{}")
    assert [each.session for each in store.summaries("one")] == ["s1"]
    assert {each.session for each in store.summaries()} == {"s1", "s2"}


async def test_a_session_is_found_by_a_prefix_in_its_own_tenant_only(tmp_path: Path) -> None:
    store = TranscriptStore(tmp_path)
    for session in ("abc1", "abc2", "xyz"):
        await store.open(header(session)).add()
    assert store.find("xy").stem == "xyz"
    with pytest.raises(TranscriptError, match="2 sessions begin"):
        store.find("abc")
    with pytest.raises(TranscriptError, match="no transcript"):
        store.find("xyz", tenant="other")


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "a\0b", "x" * 65])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    store = TranscriptStore(tmp_path)
    with pytest.raises(TranscriptError):
        store.path(name, "s")
    with pytest.raises(TranscriptError):
        store.path("t", name)
    with pytest.raises(TranscriptError):
        store.find(name)


def test_a_symbolic_link_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    (tmp_path / ".t.ipynb.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        write_atomically(tmp_path / "t.ipynb", b"x")
    assert victim.read_text() == "safe"


WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from gateway.transcripts.notebook import Header, Said
from gateway.transcripts.store import TranscriptStore

async def main() -> None:
    transcript = TranscriptStore(Path(sys.argv[1])).open(Header("s1", "shop", "agent", datetime.now(UTC)))
    for number in range(100_000):
        await transcript.add(Said(f"m{number}", "customer", "x" * 20_000, datetime.now(UTC)))
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 5, 17])
def test_a_killed_writer_leaves_all_that_it_had_confirmed(tmp_path: Path, lines: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        confirmed = [int(writer.stdout.readline()) for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        confirmed += [int(line) for line in writer.stdout]
    path = tmp_path / "shop" / "s1.ipynb"
    nbformat.validate(nbformat.read(path, as_version=4))
    # a large notebook is written a little later: the record has it all
    ids = [cell["id"] for cell in json.loads(TranscriptStore(tmp_path).notebook(path))["cells"]]
    assert ids[: len(confirmed)] == [f"m{number}" for number in confirmed]
