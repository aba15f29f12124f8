"""The record of a session: only appended to, and one changed byte anywhere fails its verification."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import orjson
import pytest

from gateway.broker.scrub import Scrubber
from gateway.transcripts.erase import erase
from gateway.transcripts.notebook import Header, Said
from gateway.transcripts.record import Head, Line, Record, check_line, genesis, make_line, read_lines
from gateway.transcripts.redaction import Redaction
from gateway.transcripts.store import RecordDamaged, TranscriptStore
from gateway.transcripts.transcript import Transcript
from gateway.transcripts.verify import verify
from gateway.types import CellRun
from kernel_pool.types import CellResult

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)


def header(session: str = "s1", tenant: str = "shop") -> Header:
    return Header(session, tenant, "agent", START, title="Where is it?")


def said(number: int, text: str = "hello") -> Said:
    return Said(f"m{number}", "customer", text, START)


def run(cell: str, text: str = "1\n", **more: str) -> CellRun:
    output = {"output_type": "stream", "name": "stdout", "text": text}
    result = CellResult("ok", 1, (output,), None, START, START + timedelta(seconds=1))
    return CellRun("s1", cell, 1, "print(1)", result, (), "status: ok", 3, **more)


async def made(root: Path, session: str = "s1", tenant: str = "shop") -> tuple[Transcript, Head]:
    """A record of five lines, and its head."""
    transcript = TranscriptStore(root).open(header(session, tenant))
    await transcript.add(said(1, "é \N{GRINNING FACE} {}"), run("c1"))
    await transcript.add(run("c1", "2\n"))
    await transcript.set_header(Header(session, tenant, "agent", START, "Where is it?", "ended"))
    return transcript, transcript.record.head


def ok(transcript: Transcript, head: Head | None) -> bool:
    return verify(transcript.path, head).ok


async def test_what_was_not_touched_verifies(tmp_path: Path) -> None:
    transcript, head = await made(tmp_path)
    found = verify(transcript.path, head)
    assert (found.ok, found.problems, found.lines, found.head) == (True, [], 5, head.hash)


async def test_the_file_is_only_appended_to(tmp_path: Path) -> None:
    transcript = TranscriptStore(tmp_path).open(header())
    before, inode = b"", None
    for number in range(5):
        await transcript.add(said(number))
        now = transcript.record.path.read_bytes()
        assert now.startswith(before)
        assert inode in (None, transcript.record.path.stat().st_ino)
        before, inode = now, transcript.record.path.stat().st_ino


@pytest.mark.parametrize("suffix", [".jsonl", ".ipynb"])
async def test_any_byte_that_is_changed_fails(tmp_path: Path, suffix: str) -> None:
    transcript, head = await made(tmp_path)
    path = transcript.path.with_suffix(suffix)
    whole = path.read_bytes()
    draw = random.Random(5)
    for offset in range(0, len(whole), 1 if suffix == ".jsonl" else 3):
        changed = bytearray(whole)
        changed[offset] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        assert not ok(transcript, head), f"byte {offset}: {bytes(changed[max(0, offset - 20) : offset + 20])!r}"
    path.write_bytes(whole)
    assert ok(transcript, head)


async def test_any_byte_that_is_removed_or_put_in_fails(tmp_path: Path) -> None:
    transcript, head = await made(tmp_path)
    whole = transcript.record.path.read_bytes()
    for offset in range(0, len(whole), 3):
        for changed in (whole[:offset] + whole[offset + 1 :], whole[:offset] + b" " + whole[offset:]):
            transcript.record.path.write_bytes(changed)
            assert not ok(transcript, head)


async def test_a_record_cut_anywhere_fails(tmp_path: Path) -> None:
    transcript, head = await made(tmp_path)
    whole = transcript.record.path.read_bytes()
    ends = {len(b"".join(whole.splitlines(keepends=True)[:lines])) for lines in range(6)}
    for length in sorted({*range(0, len(whole), 7), *ends} - {len(whole)}):
        transcript.record.path.write_bytes(whole[:length])
        assert not ok(transcript, head)
    transcript.record.path.unlink()
    assert not ok(transcript, head)


LINES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "swapped": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "removed": lambda lines: [*lines[:2], *lines[3:]],
    "first removed": lambda lines: lines[1:],
    "twice": lambda lines: [*lines[:3], lines[2], *lines[3:]],
    "empty line": lambda lines: [*lines[:3], b"\n", *lines[3:]],
    "other end": lambda lines: [line.replace(b"\n", b"\r\n") for line in lines],
    "no content": lambda lines: [lines[0], tombstone(lines[1]), *lines[2:]],
    "key twice": lambda lines: [lines[0].replace(b'"kind"', b'"kind":"cell","kind"'), *lines[1:]],
}


def tombstone(line: bytes) -> bytes:
    return line.partition(b',"salt"')[0] + b"}\n"


@pytest.mark.parametrize("name", LINES)
async def test_lines_cannot_be_moved_doubled_or_emptied(tmp_path: Path, name: str) -> None:
    transcript, head = await made(tmp_path)
    lines = transcript.record.path.read_bytes().splitlines(keepends=True)
    transcript.record.path.write_bytes(b"".join(LINES[name](lines)))
    assert not ok(transcript, head)


async def test_a_chain_made_anew_is_not_the_one_that_the_database_knows(tmp_path: Path) -> None:
    transcript, head = await made(tmp_path)
    lines = [check for raw, _ in read_lines(transcript.record.path) if (check := orjson.loads(raw))]
    forged, at = [], Head(0, genesis("shop", "s1"))
    for line in lines:
        content = orjson.dumps(line["content"]).replace(b"hello", b"HELLO").replace(b'"1\\n"', b'"9\\n"')
        new = make_line(at, line["kind"], content)
        at = Head(new.seq, new.hash)
        forged.append(new.encode())
    transcript.record.path.write_bytes(b"".join(forged))
    transcript.path.unlink()
    assert verify(transcript.path, None, compare=False).ok  # by itself it is a good one
    assert any("not the one that the database knows" in each for each in verify(transcript.path, head).problems)


async def test_lines_that_somebody_added_are_found(tmp_path: Path) -> None:
    transcript, head = await made(tmp_path)
    with open(transcript.record.path, "ab") as file:
        file.write(make_line(head, "message", b"{}").encode())
    assert any("somebody has added them" in each for each in verify(transcript.path, head).problems)


async def test_one_sessions_record_is_not_anothers(tmp_path: Path) -> None:
    mine, head = await made(tmp_path)
    others, _ = await made(tmp_path, "s2")
    for transcript in (others, (await made(tmp_path, tenant="other"))[0]):
        mine.record.path.write_bytes(transcript.record.path.read_bytes())
        assert not ok(mine, head)
        assert not verify(mine.path, None, compare=False).ok


async def test_what_a_killed_writer_left_half_written_is_said_and_cut_off(tmp_path: Path) -> None:
    transcript, head = await made(tmp_path)
    whole = transcript.record.path.read_bytes()
    transcript.record.path.write_bytes(whole + make_line(head, "message", b"{}").encode()[:-5])
    assert any("not whole" in each for each in verify(transcript.path, head).problems)
    assert TranscriptStore(tmp_path).read(transcript.path).record.head == head  # who reads changes nothing
    again = TranscriptStore(tmp_path).open(header(), head)
    *_, (last, _) = Record(transcript.record.path, "shop", "s1").scan()
    assert (last.kind, orjson.loads(bytes(last.content))["cut_bytes"] > 0) == ("repair", True)
    await again.add(said(7))
    assert ok(again, again.record.head)
    assert not ok(again, head)  # not before the database knows


@pytest.mark.parametrize("cut", [1, 30, 400])
async def test_a_line_that_the_database_knows_is_not_taken_for_half_written(tmp_path: Path, cut: int) -> None:
    transcript, head = await made(tmp_path)
    whole = transcript.record.path.read_bytes()[:-cut]
    transcript.record.path.write_bytes(whole)
    with pytest.raises(RecordDamaged, match="the database knows of line 5"):
        TranscriptStore(tmp_path).open(header(), head)
    assert transcript.record.path.read_bytes() == whole


async def test_a_session_does_not_go_on_with_a_record_that_was_changed(tmp_path: Path) -> None:
    transcript, head = await made(tmp_path)
    whole = transcript.record.path.read_bytes()
    transcript.record.path.write_bytes(whole.replace(b"print(1)", b"print(2)", 1))
    with pytest.raises(RecordDamaged, match="line 3 was changed"):
        TranscriptStore(tmp_path).open(header(), head)
    transcript.record.path.unlink()
    with pytest.raises(RecordDamaged, match="is gone"):
        TranscriptStore(tmp_path).open(header(), head)


async def test_a_full_disk_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    transcript, head = await made(tmp_path)
    before = transcript.record.path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            await transcript.add(said(8, "x" * 50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert transcript.record.path.read_bytes() == before
    assert ok(transcript, head)
    await transcript.add(said(8))
    assert ok(transcript, transcript.record.head)


async def test_of_a_cell_that_ran_again_both_runs_are_in_the_record(tmp_path: Path) -> None:
    transcript = TranscriptStore(tmp_path).open(header())
    await transcript.add(run("c1", "first\n", run="r1"))
    await transcript.add(said(1))
    await transcript.add(run("c1", "second\n", run="r2"))
    again = TranscriptStore(tmp_path).open(header())
    for one in (transcript, again):
        node = one.cell("c1")
        assert node is not None
        assert (node["outputs"][0]["text"], len(node["metadata"]["omniops"]["earlier_runs"])) == ("second\n", 1)
        assert list(one.fold.cells) == ["c1", "m1"]
    assert b"first" in transcript.record.path.read_bytes()


async def test_a_notebook_that_is_older_than_records_is_taken_over(tmp_path: Path) -> None:
    transcript, _ = await made(tmp_path)
    transcript.record.path.unlink()
    again = TranscriptStore(tmp_path).open(header())
    assert list(again.fold.cells) == ["m1", "c1"]
    await again.add(said(2))
    assert ok(again, again.record.head)


async def test_erased_contents_leave_tombstones_that_cannot_be_moved(tmp_path: Path) -> None:
    transcript, _ = await made(tmp_path)
    before = transcript.record.path.read_bytes().splitlines(keepends=True)
    assert erase(transcript, "asked for it", "kim") == 4
    head = transcript.record.head
    whole = transcript.record.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert b"hello" not in whole + transcript.path.read_bytes()
    assert b"print(1)" not in whole
    assert lines[:4] == [tombstone(line) for line in before[:4]]  # numbers, times and hashes stay
    found = verify(transcript.path, head)
    assert (found.ok, found.lines, found.erased) == (True, 6, 4)
    nbformat.validate(nbformat.read(transcript.path, as_version=4))
    for offset in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[offset] ^= 1
        transcript.record.path.write_bytes(changed)
        assert not ok(transcript, head)
    transcript.record.path.write_bytes(whole.replace(tombstone(lines[4]), b"").replace(lines[4], tombstone(lines[4])))
    assert any("no erasure names it" in each for each in verify(transcript.path, head).problems)


async def test_secrets_are_in_no_byte_of_the_record_and_personal_data_in_none_of_the_notebook(tmp_path: Path) -> None:
    store = TranscriptStore(tmp_path, Redaction(Scrubber(["hunter2hunter2"]).known, ("email", "phone", "card", "iban")))
    transcript = store.open(Header("s1", "shop", "agent", START, title="hunter2hunter2, jo.doe@example.com"))
    told = "hunter2hunter2 jo.doe+x@mail.example.com +41 44 668 18 00 4111 1111 1111 1111 DE89 3704 0044 0532 0130 00"
    await transcript.add(said(1, told), run("c1", f"{told}\n"))
    record, notebook = transcript.record.path.read_bytes(), transcript.path.read_bytes()
    assert b"hunter2" not in record + notebook
    assert b"jo.doe" in record  # the session goes on from here
    for part in (b"jo.doe", b"jo\\\\.doe", b"668", b"1111", b"0532"):
        assert part not in notebook
    for name in (b"email", b"phone", b"card", b"iban"):
        assert name in notebook
    assert ok(transcript, transcript.record.head)


@pytest.mark.parametrize(
    "text",
    [
        "2025-03-01T12:00:00.000000Z",
        "order 1234567890, total 1,234.50",
        "0.4111111111111111",
        "4111 1111 1111 1112",
        "x @ y.T and a[1:2] + 30",
        "[+5] (12) 3 + 4",
        "deadbeef4111111111111111",
        "GB00 WEST 1234 5698 7654 32",
        "#W1234567 iPhone 12",
    ],
)
def test_what_only_looks_like_personal_data_stays(text: str) -> None:
    assert Redaction(kinds=("email", "phone", "card", "iban")).personal(text) == text


def test_hostile_lines_are_refused_and_nothing_else() -> None:
    first = make_line(Head(0, "0" * 64), "session", b"{}")
    good = first.encode()
    assert isinstance(check_line(good, Head(0, "0" * 64)), Line)
    for bad in (
        b"",
        b"null\n",
        b"[" * 100_000 + b"\n",
        b'{"seq":1e400}\n',
        good.replace(b'"session"', b'"ses\\ud800ion"'),
        good.replace(b'"at":"', b'"at":"\\ud800'),
        good.replace(b'"salt":"', b'"salt":"\\ud800'),
        good.replace(b'"salt":"', b'"salt":"\xff'),
        good.replace(b'"seq":1', b'"seq":' + b"9" * 5000),
        good.replace(b"}\n", b',"more":1}\n'),
    ):
        with pytest.raises(RecordDamaged):
            check_line(bad, Head(0, "0" * 64))
