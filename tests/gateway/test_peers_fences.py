"""What a gateway that has lost a session still tries to write is refused, by its clock and by the database."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.broker.journal import CallKey, Journal
from gateway.db import Database
from gateway.peers.errors import Fenced, OwnedElsewhere
from gateway.peers.owners import Owners
from gateway.peers.passes import Passes
from gateway.session_rows import CellRow, SessionRows
from gateway.settings import PeerSettings
from gateway.transcripts.errors import RecordDamaged
from gateway.transcripts.mirror import Mirror
from gateway.transcripts.notebook import Header, Said
from gateway.transcripts.store import TranscriptStore
from gateway.types import Grant

ID = "0" * 32
CELL = CellRow(id="one", index=1, code="1", status="running")


class Side:
    """One gateway's: its view of whose sessions are, and its records."""

    def __init__(self, database: Database, folder: Path, name: str) -> None:
        self.now = 1000.0
        self.owners = Owners(database, PeerSettings(lease_s=10), name, lambda: self.now)
        self.rows = SessionRows(database, self.owners)
        self.mirror = Mirror(database, self.owners.fence)
        self.store = TranscriptStore(folder / name, sync=False)
        self.store.keeping.mirror = self.mirror.push
        self.header = Header(ID, "shop", "agent", datetime(2026, 1, 1, tzinfo=UTC))

    @property
    def path(self) -> Path:
        return self.store.path("shop", ID)


@pytest.fixture
async def sides(database: Database, tmp_path: Path) -> tuple[Side, Side]:
    first, second = (Side(database, tmp_path, name) for name in ("first", "second"))
    await first.owners.open()
    await second.owners.open()
    await first.rows.insert(ID, tenant="shop", principal="p", role="agent", profile="", title="", customer=None)
    return first, second


async def test_a_session_is_taken_only_from_a_gateway_that_is_not_heard_of(
    database: Database, sides: tuple[Side, Side]
) -> None:
    first, second = sides
    with pytest.raises(OwnedElsewhere):
        await second.owners.take(ID)
    await _silence(database, "first")
    assert await second.owners.take(ID) == "first"
    with pytest.raises(OwnedElsewhere):
        await first.owners.take(ID)


async def test_what_the_owner_before_writes_is_refused(database: Database, sides: tuple[Side, Side]) -> None:
    first, second = sides
    journal = Journal(database)
    grant, key = Grant("shop", "p", ID, "agent"), CallKey(ID, "one", "t.t", "0" * 64, 1)
    await first.rows.begin_cell(ID, CELL, "m", 5)
    row = await journal.claim(key, grant, "write", "{}")
    transcript = first.store.open(first.header)
    await transcript.add(_said(1))
    fence = first.owners.fence(ID)
    await _silence(database, "first")
    await second.owners.take(ID)
    with pytest.raises(LookupError):  # the write that it was about to let out
        await journal.executing(row, ID, fence)
    with pytest.raises(Fenced):
        await first.rows.begin_cell(ID, CELL, "n", 5)
    with pytest.raises(Fenced):
        await transcript.add(_said(2))
    await first.rows.end_cell(ID, "one", "ok")
    await first.rows.set_state(ID, "ended")
    assert (await second.rows.running(ID) or CELL).id == "one"
    assert (await second.rows.get(ID) or pytest.fail("gone")).state == "live"
    await journal.executing(row, ID, second.owners.fence(ID))


async def test_past_its_lease_it_asks_before_it_lets_anything_out(database: Database, sides: tuple[Side, Side]) -> None:
    first, second = sides
    await first.owners.check(ID)
    first.now += 10
    await first.owners.check(ID)  # it was slow, and nobody has taken the session
    await first.rows.begin_cell(ID, CELL, "m", 5)
    await _silence(database, "first")
    await second.owners.take(ID)
    await first.owners.check(ID)  # within its lease it does not know
    first.now += 10
    with pytest.raises(Fenced):
        await first.owners.check(ID)
    assert not first.owners.holds(ID)


async def test_a_session_that_was_taken_is_let_go_of_at_the_next_beat(
    database: Database, sides: tuple[Side, Side]
) -> None:
    first, second = sides
    lost: list[str] = []

    async def note(session: str) -> None:
        lost.append(session)

    first.owners.lost = note
    await first.owners.beat()
    assert lost == []
    await _silence(database, "first")
    await second.owners.take(ID)
    await first.owners.beat()
    assert (lost, first.owners.holds(ID)) == ([ID], False)


async def test_a_record_is_made_from_the_database_and_what_nobody_was_told_of_is_set_aside(
    database: Database, sides: tuple[Side, Side]
) -> None:
    first, second = sides
    transcript = first.store.open(first.header)
    await transcript.add(_said(1), _said(2))
    await _silence(database, "first")
    await second.owners.take(ID)
    await second.mirror.bring_up(second.path)
    copy = second.store.open(second.header)
    assert copy.path.with_suffix(".jsonl").read_bytes() == first.path.with_suffix(".jsonl").read_bytes()
    with pytest.raises(Fenced):
        await transcript.add(_said(3))  # in its file, and nowhere else
    await copy.add(_said(4))
    await first.mirror.bring_up(first.path)
    assert first.store.read(first.path).fold.cells.keys() == {"m1", "m2", "m4"}
    assert b"message 3" in first.path.with_name(f"{ID}.jsonl.aside-1").read_bytes()
    await copy.add(_said(5))
    await first.mirror.bring_up(first.path)  # only what is new
    assert first.store.read(first.path).record.head == copy.record.head


async def test_a_line_that_was_changed_in_the_database_is_found_out(
    database: Database, sides: tuple[Side, Side]
) -> None:
    first, second = sides
    await first.store.open(first.header).add(_said(1))
    await database.execute(
        "UPDATE transcript_line SET line = convert_to(replace(convert_from(line, 'UTF8'), 'message 1', 'message 9'),"
        " 'UTF8')"
    )
    with pytest.raises(RecordDamaged):
        await second.mirror.bring_up(second.path)
    assert not second.path.with_suffix(".jsonl").exists()


async def test_a_pass_holds_for_one_request_at_one_gateway_once() -> None:
    from gateway.auth import Tokens

    caller = Tokens("operators-token", {"shop": "shops-token"}).principal("shops-token")
    assert caller is not None
    secret = b"s" * 32
    asks, asked = Passes(secret, "first"), Passes(secret, "second")

    def made(to: str = "second") -> str:
        return asks.make(caller, to, "POST", "/v1/sessions/1/cells?x=1")

    good = ("POST", "/v1/sessions/1/cells?x=1")
    value = made()
    assert asked.caller(value, *good) == caller
    assert asked.caller(value, *good) is None  # a second time
    assert asked.caller(made("third"), *good) is None
    assert asked.caller(made(), "DELETE", good[1]) is None
    assert asked.caller(made(), "POST", "/v1/sessions/2/cells?x=1") is None
    assert Passes(b"t" * 32, "second").caller(made(), *good) is None
    body, _, mac = made().partition(".")
    for forged in (f"{body[:-4]}AAAA.{mac}", f"{body}.{'0' * 64}", body, ".", "é.é"):
        assert asked.caller(forged, *good) is None


def _said(number: int) -> Said:
    return Said(f"m{number}", "customer", f"message {number}", datetime(2026, 1, 1, tzinfo=UTC))


async def _silence(database: Database, gateway: str) -> None:
    await database.execute("UPDATE gateway SET alive_until = now() - interval '1 second' WHERE id = %s", (gateway,))
