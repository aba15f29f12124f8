"""One person exported and erased: all that is kept of them, and nothing of anybody else."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import pytest
import pytest_asyncio
from gateway_world import own_database, settings_for
from gdpr_world import (
    CUSTOMER,
    EMAIL,
    OTHER,
    OTHERS,
    UNMARKED,
    Filling,
    contents,
    everything,
    export,
    json_lines,
    mark,
    opened,
)

from gateway.approvals.desk import Person
from gateway.approvals.types import Approval
from gateway.gdpr.registry import TABLES
from gateway.runtime import Gateway, open_gateway
from gateway.transcripts.verify import verify
from gateway.types import Grant
from servers.context import Progress
from servers.errors import ToolInputError

pytestmark = pytest.mark.asyncio(loop_scope="module")


#: In the work folder; a link that leads out of it is not followed.
FILES = """
import os
os.makedirs("deep/er")
open("deep/er/mark of bo.txt", "w").write("mark file of bo")
os.symlink("/etc/passwd", "deep/link")
"""


@dataclass(frozen=True)
class World:
    gateway: Gateway
    #: Sessions: the person's own, with another customer, of the staff, of the other tenant with the same person.
    own: str
    others: str
    staff: str
    rival: str

    def grant(self, tenant: str = "shop") -> Grant:
        return Grant(tenant=tenant, principal="ada", session="asking", role="operator")


async def approve(gateway: Gateway, approval: Approval) -> None:
    await gateway.desk.approve(Person("anna", None, decides=True), approval.id)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    with own_database(postgres) as url:
        settings = settings_for(tmp_path_factory.mktemp("data"), url, gdpr={"look_s": 3600})
        async with open_gateway(settings) as gateway:
            gateway.gate.on_asked.append(partial(approve, gateway))
            make, database = gateway.sessions.create, gateway.database
            own = (await make("shop", "chat", "agent", "t", customer=CUSTOMER)).id
            others = (await make("shop", "chat", "agent", "t", customer=OTHERS, kernel=False)).id
            staff = (await make("shop", "ada", "operator", "t")).id
            rival = (await make("other", "ada", "agent", "t", customer=CUSTOMER, kernel=False)).id
            await gateway.sessions.run_cell(own, "print('mark record of bo')\n" + FILES)
            await gateway.sessions.run_cell(staff, f"print('beside')\nprint('mark record of staff {EMAIL}')")
            await gateway.sessions.run_cell(staff, "print('mark record of nobody')")
            for filling in (
                Filling(database, "shop", own, "bo", CUSTOMER),
                Filling(database, "shop", others, "kim", OTHERS),
                Filling(database, "shop", staff, "staff", None, EMAIL),
                Filling(database, "other", rival, "rival", CUSTOMER, EMAIL),
            ):
                await filling.rows()
                await gateway.upkeep.flush()
                await filling.transcript_title()
            yield World(gateway, own, others, staff, rival)


async def test_an_export_has_every_column_with_something_of_the_person_and_nothing_of_others(world: World) -> None:
    report = await export(world.gateway, world.grant(), EMAIL, CUSTOMER)
    files = contents(opened(world.gateway.data_dir.path, "shop", report["export"]))
    manifest = json.loads(files.pop("manifest.json"))
    text = b"\n".join(files.values()).decode()
    for name, table in TABLES.items():
        for column in table.names("person"):
            if f"{name}.{column}" in UNMARKED:
                continue
            whose = [*(["bo"] if table.own else []), *(["staff"] if column in (*table.mentions, *table.arrow) else [])]
            for each in whose:
                assert mark(name, column, each) in text, f"{name}.{column} of {each} is not in the export"
    assert f"goods of order {CUSTOMER}" in text
    assert "mark record of bo" in text
    assert f"mark record of staff {EMAIL}" in text
    for foreign in ("of kim", "of rival", "of nobody", OTHER, "beside"):
        assert foreign not in text.replace("print('beside')", ""), foreign
    assert files[f"files/{world.own}/deep/er/mark%20of%20bo.txt"] == b"mark file of bo"
    assert "root:" not in text
    assert [row["session"] for row in json_lines(files["transcripts.ndjson"])[:1]] == [world.own]

    assert {each["name"] for each in manifest["files"]} == set(files)
    for each in manifest["files"]:
        data = files[each["name"]]
        assert (len(data), hashlib.sha256(data).hexdigest()) == (each["bytes"], each["sha256"])
        assert len(data.splitlines()) == each["rows"] or each["name"].startswith("files/")
    personal = {name for name, table in TABLES.items() if table.personal} - {"transcript_line"}
    assert set(manifest["tables"]) == personal
    assert set(manifest["tables_without_personal_data"]) == set(TABLES) - personal - {"transcript_line"}
    known = {"emails": [EMAIL.lower(), "bo@mail.example"], "customer_ids": [CUSTOMER]}  # as the copy of the store says
    assert manifest["subject"] == known
    assert manifest["complete"] is True
    assert (report["sessions"], report["rows"]) == (1, sum(each["rows"] for each in manifest["files"]))
    assert "mark" not in json.dumps(report)


async def test_who_is_meant_has_to_be_said(world: World) -> None:
    for email in ("", "bo", "a@b@c", "a b@c.ch", "@c.ch"):
        with pytest.raises(ToolInputError):
            await export(world.gateway, world.grant(), email)


async def test_an_export_that_is_broken_off_leaves_nothing(world: World) -> None:
    office = world.gateway.office
    before = {path for path in (world.gateway.data_dir.path / "exports").rglob("*")}
    parts = office.for_call(world.grant(), "").export(EMAIL, CUSTOMER)
    await anext(parts)
    await parts.aclose()  # type: ignore[attr-defined]
    assert {path for path in (world.gateway.data_dir.path / "exports").rglob("*")} == before
    [gone] = await office.exports.tidy()  # its row
    assert await world.gateway.database.fetch("SELECT state FROM gdpr_export WHERE id = %s", (gone,)) == [
        {"state": "removed"}
    ]


CELL = """
from servers.gdpr import erase_person
report = erase_person(email={email!r}, customer_id={customer}, reason="asked for it")
print(report["state"])
"""


async def test_an_erasure_removes_all_but_what_is_kept_and_goes_on_where_it_was_killed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, asking = world.gateway, (await world.gateway.sessions.create("shop", "ada", "operator")).id
    exported = (await export(gateway, world.grant(), EMAIL, CUSTOMER))["export"]
    before = await everything(gateway)
    # killed after each of its first steps in turn
    plain, died = gateway.office.erasures.__class__._table, iter(range(4))

    async def dies(self: object, id: str, name: str, *more: object) -> None:
        await plain(self, id, name, *more)  # type: ignore[arg-type]
        if next(died, None) is not None:
            raise ConnectionError("killed")

    monkeypatch.setattr(gateway.office.erasures.__class__, "_table", dies)
    run = await gateway.sessions.run_cell(asking, CELL.format(email=EMAIL, customer=CUSTOMER))
    assert [each["text"] for each in run.result.outputs] == ["running\n"], run.result
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await gateway.office.look()
    await gateway.office.look()
    [erasure] = await gateway.database.fetch("SELECT id, state FROM gdpr_erasure")
    report = await gateway.office.for_call(world.grant(), "").erasure(erasure["id"])
    assert (report["state"], report["waiting_for"]) == ("waiting", sorted([world.staff, asking]))
    assert report["problems"] == []
    assert not opened_path(gateway, exported)

    after = await everything(gateway)
    assert "of bo" not in "".join(after[name] for name in after)
    assert await gateway.database.fetch("SELECT customer FROM session WHERE id = %s", (world.own,)) == [
        {"customer": None}
    ]
    assert await gateway.office.erasures.open() == [], "nothing has changed: it is not looked for again"
    # the staff's session is open: it waits; it goes on by itself when that has ended
    for session in (world.staff, asking):
        await gateway.sessions.end(session)
    await gateway.office.look()
    report = await gateway.office.for_call(world.grant(), "").erasure(erasure["id"])
    assert (report["state"], report["waiting_for"]) == ("done", [])
    after = await everything(gateway)
    for name, text in after.items():
        lines = [line for line in text.splitlines() if EMAIL.lower() in line.lower() and "of rival" not in line]
        assert lines == [] or name == "administration", name
        for whose in ("of kim", "of rival"):
            assert text.count(whose) == before[name].count(whose), name
    assert "mark record of nobody" in after["files"]
    assert {each["what"] for each in report["kept"]} >= {"administration", "call", "session", "store"}
    assert all(each["why"] for each in report["kept"])

    await gateway.upkeep.flush()
    for session in (world.own, world.staff, asking):
        path = gateway.transcripts.path("shop", session)
        found = await asyncio.to_thread(verify, path, await gateway.index.head(session))
        assert (found.ok, found.problems) == (True, [])

    # again: nothing is found, by an export either, but what is kept
    [again] = [each async for each in gateway.office.for_call(world.grant(), "again").erase(EMAIL, CUSTOMER, "")]
    assert not isinstance(again, Progress)
    assert (again["state"], again["removed"]) == ("done", {})
    last = await export(gateway, world.grant(), EMAIL, CUSTOMER)
    assert set(last["tables"]) <= {name for name, table in TABLES.items() if table.erase == "keep"}
    files = contents(opened(gateway.data_dir.path, "shop", last["export"]))
    assert (files["transcripts.ndjson"], files["transcripts.mentions.ndjson"]) == (b"", b"")


async def test_a_damaged_record_is_said_and_what_else_there_is_goes(world: World) -> None:
    """It stays as it is, as evidence, and its session's rows with it: by them it is found when it is mended."""
    gateway = world.gateway
    session = (await gateway.sessions.create("shop", "chat", "agent", "t", customer=99, kernel=False)).id
    await Filling(gateway.database, "shop", session, "eve", 99).rows()
    await gateway.sessions.end(session)
    await gateway.upkeep.flush()
    record = gateway.transcripts.path("shop", session).with_suffix(".jsonl")
    whole = record.read_bytes()
    record.write_bytes(whole.replace(b'"agent"', b'"eager"', 1))
    [report] = [each async for each in gateway.office.for_call(world.grant(), "eve").erase("", 99, "")]
    assert not isinstance(report, Progress)
    assert (report["state"], report["waiting_for"], len(report["problems"])) == ("waiting", [], 1)
    assert session in report["problems"][0]
    left = {name for name, text in (await everything(gateway)).items() if "of eve" in text}
    assert not left & {"handover", "chat_message", "store_customer", "store_order"}
    assert "call" in left
    record.write_bytes(whole)
    [report] = [each async for each in gateway.office.for_call(world.grant(), "eve").erase("", 99, "")]
    assert not isinstance(report, Progress)
    assert (report["state"], report["problems"]) == ("done", [])
    assert not {name for name, text in (await everything(gateway)).items() if "of eve" in text}


async def test_a_number_that_is_in_everybodys_rows_names_nobody(world: World) -> None:
    """Digits of an id are in times, hashes and the bytes of tables; who has it is in none of them."""
    before = await everything(world.gateway)
    [report] = [each async for each in world.gateway.office.for_call(world.grant(), "eight").erase("", 8, "")]
    assert not isinstance(report, Progress)
    assert (report["state"], report["waiting_for"], report["removed"]) == ("done", [], {})
    after = await everything(world.gateway)
    assert all(after[name].count("mark") == before[name].count("mark") for name in before)


def opened_path(gateway: Gateway, id: str) -> bool:
    return (gateway.data_dir.path / "exports" / "shop" / f"{id}.zip").exists()
