"""Calls that wait for a person: held, parked, decided, expired, withdrawn; alone and in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import counting
import httpx
import pytest
from approval_world import ANNA, BORIS, Clock, Make, People, failure, settings

from gateway.approvals.desk import ApprovalNotFound, BadDecision, NotYours, Person, TooLate
from gateway.approvals.policy import Ask, Recent, Run, caps_of, decide
from gateway.approvals.reverts import CallNotFound, CannotRevert
from gateway.db import Database
from gateway.settings import WriteCaps, load_settings
from gateway.types import Grant

PAY = {"name": "ann", "amount": 5}


@pytest.fixture
async def make(database: Database, folder: Path) -> AsyncIterator[Make]:
    counting.GATES.clear()
    await database.execute(counting.UPSTREAM)
    made: list[People] = []
    async with httpx.AsyncClient() as http:

        def people(**approvals: Any) -> People:
            made.append(People(database, folder, http, Clock(), settings(folder, **approvals)))
            return made[-1]

        yield people
        for each in made:
            await each.broker.close()


async def test_a_held_call_goes_out_when_a_person_approves(make: Make) -> None:
    people = make()
    cell = await people.session()
    paying = cell.call("pay", **PAY)
    asked = await people.asked(cell.session)
    view = asked.calls[0].view
    assert (asked.held, asked.tenant, asked.principal, asked.calls[0].reason) == (
        True,
        "shop",
        "operator",
        "it is critical",
    )
    assert (view.tool, view.target, view.amount, view.currency) == ("counting.pay", "account ann", "5", "EUR")
    assert (view.before, view.after, view.revert) == ({"total": "0"}, {"total": "5"}, "take_back")
    assert await people.total("ann") == 0
    decided = await people.desk.approve(ANNA, asked.id, note="fine")
    assert (decided.state, decided.decided_by, decided.note) == ("approved", "approver:anna", "fine")
    assert (await paying)["total"] == 5
    assert await cell.rows() == [("pay", "applied")]


async def test_another_gateways_decision_is_seen(make: Make) -> None:
    people = make()
    cell = await people.session()
    paying = cell.call("pay", **PAY)
    await people.another().desk.approve(ANNA, (await people.asked(cell.session)).id)
    assert (await paying)["total"] == 5


async def test_a_refusal_is_raised_at_the_call_and_stays(make: Make) -> None:
    people = make()
    cell = await people.session()
    paying = cell.call("pay", **PAY)
    await people.desk.deny(ANNA, (await people.asked(cell.session)).id, note="Not\x1b[31m today\u202e.")
    error = await failure(paying)
    assert error.type == "ApprovalDenied"
    assert "approver:anna said: Not today." in error.message
    await cell.again()
    assert (await failure(cell.call("pay", **PAY))).type == "ApprovalDenied"
    assert await cell.rows() == [("pay", "denied")]
    assert await people.total("ann") == 0


async def test_a_parked_call_ends_its_cell_and_goes_out_when_the_cell_runs_again(make: Make) -> None:
    people = make(hold_s=0)
    cell = await people.session()
    await cell.call("add", name="ann")
    error = await failure(cell.call("pay", **PAY))
    assert (error.type, error.data["parked"]) == ("ApprovalRequired", True)
    for more in ("look", "add", "pay"):  # the cell is ending: it makes no other call
        assert (await failure(cell.call(more, **(PAY if more == "pay" else {"name": "bob"})))).data["parked"]
    records = await cell.again()
    assert [(each.tool, each.state) for each in records] == [("counting.add", "applied"), ("counting.pay", "pending")]
    people.clock.pass_(days=1)
    await people.desk.approve(ANNA, error.data["approval"])
    await cell.call("add", name="ann")
    assert (await cell.call("pay", **PAY))["total"] == 6
    assert await cell.rows() == [("add", "applied"), ("pay", "applied")]


async def test_a_hold_ends_before_its_cells_deadline(make: Make) -> None:
    people = make()
    cell = await people.session()
    await cell.again(deadline_s=0.4)
    assert (await failure(cell.call("pay", **PAY))).data["parked"]


async def test_the_end_of_a_cell_parks_what_it_holds(make: Make) -> None:
    people = make()
    cell = await people.session()
    paying = cell.call("pay", **PAY)
    asked = await people.asked(cell.session)
    (record,) = await cell.again("c2")
    assert record.state == "pending"
    assert (await failure(paying)).data["parked"]
    assert not (await people.desk.get(ANNA, asked.id)).held


async def test_an_approval_does_not_fit_other_arguments(make: Make) -> None:
    people = make(hold_s=0)
    cell = await people.session()
    first = (await failure(cell.call("pay", **PAY))).data["approval"]
    await people.desk.approve(ANNA, first)
    await cell.again()
    error = await failure(cell.call("pay", name="ann", amount=6))
    assert error.data["approval"] != first
    assert await people.total("ann") == 0
    assert await cell.rows() == [("pay", "decided"), ("pay", "pending")]


@pytest.mark.parametrize("when", ["asked", "approved"])
async def test_what_has_expired_lets_nothing_out(make: Make, when: str) -> None:
    people = make(hold_s=0, expires_s=3600)
    cell = await people.session()
    first = (await failure(cell.call("pay", **PAY))).data["approval"]
    if when == "approved":
        await people.desk.approve(ANNA, first)
    people.clock.pass_(hours=2)
    with pytest.raises(TooLate, match="expired" if when == "asked" else "approved"):
        await people.desk.approve(BORIS, first)
    await cell.again()
    error = await failure(cell.call("pay", **PAY))
    assert error.data["parked"]
    assert error.data["approval"] != first  # asked anew
    assert await people.total("ann") == 0


async def test_who_may_not_decide_is_told_and_nothing_happens(make: Make) -> None:
    people = make(hold_s=0)
    cell = await people.session()
    id = (await failure(cell.call("pay", **PAY))).data["approval"]
    others = frozenset({"other"})
    for person, error in (
        (Person("operator", None, decides=True), NotYours),  # its own session
        (Person("approver:carl", others, decides=True), ApprovalNotFound),
        (Person("tenant:shop", frozenset({"shop"}), decides=False, narrow=True), ApprovalNotFound),
        (Person("watcher", None, decides=False), NotYours),
    ):
        with pytest.raises(error):
            await people.desk.approve(person, id)
        with pytest.raises(error):
            await people.desk.deny(person, id)
    with pytest.raises(ApprovalNotFound):
        await people.desk.approve(ANNA, "nosuch")
    assert await people.desk.find(Person("approver:carl", others, decides=True)) == ()
    assert (await people.desk.get(ANNA, id)).state == "pending"


async def test_settings_may_let_people_decide_about_their_own_sessions(make: Make) -> None:
    people = make(hold_s=0, own_sessions=True)
    cell = await people.session()
    id = (await failure(cell.call("pay", **PAY))).data["approval"]
    assert (await people.desk.approve(Person("operator", None, decides=True), id)).decided_by == "operator"


async def test_two_people_at_two_gateways_decide_once(make: Make) -> None:
    people = make()
    cell = await people.session()
    paying = cell.call("pay", **PAY)
    id = (await people.asked(cell.session)).id
    said = await asyncio.gather(
        people.desk.approve(ANNA, id), people.another().desk.approve(BORIS, id), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in said) == ["Approval", "TooLate"]
    assert (await paying)["total"] == 5
    with pytest.raises(TooLate, match="nothing more happens"):
        await people.desk.deny(ANNA, id)
    assert await people.total("ann") == 5


async def test_a_call_that_nobody_waits_for_is_withdrawn(make: Make) -> None:
    people = make()
    cell = await people.session()
    grant = cell.grant
    waiting = asyncio.ensure_future(people.broker.call(grant, "counting.pay", dict(PAY)))
    id = (await people.asked(cell.session)).id
    waiting.cancel()
    await asyncio.wait([waiting])
    async with asyncio.timeout(30):
        while (await people.desk.get(ANNA, id)).state == "pending":
            await asyncio.sleep(0.01)
    with pytest.raises(TooLate, match="withdrawn"):
        await people.desk.approve(ANNA, id)
    assert await cell.rows() == [("pay", "pending")]


async def test_the_same_call_from_another_cell_does_not_ask_twice(make: Make) -> None:
    people = make(hold_s=0)
    cell = await people.session()
    id = (await failure(cell.call("pay", **PAY))).data["approval"]
    await cell.again("c2")
    error = await failure(cell.call("pay", **PAY))
    assert (error.type, error.data) == ("ApprovalRequired", {"approval": id})
    assert len(await people.desk.find(ANNA, session=cell.session)) == 1


async def test_what_the_tool_would_refuse_is_not_asked(make: Make) -> None:
    people = make()
    cell = await people.session()
    error = await failure(cell.call("pay", name="ann", amount=5000))
    assert (error.type, await cell.rows()) == ("ToolInputError", [("pay", "failed")])
    assert await people.desk.find(ANNA, session=cell.session) == ()


async def test_a_session_that_is_restored_asks_nobody(make: Make) -> None:
    people = make(hold_s=0)
    cell = await people.session()
    await failure(cell.call("pay", **PAY))
    await people.broker.withdraw(cell.session, "test")
    await cell.again(replay=True)
    assert (await failure(cell.call("pay", **PAY))).type == "ToolDenied"
    assert await people.desk.find(ANNA, session=cell.session, state="pending") == ()


async def test_one_session_cannot_flood_the_desk(make: Make) -> None:
    people = make(pending=2)
    cell = await people.session()
    held = [cell.call("pay", name="ann", amount=n) for n in (1, 2)]
    async with asyncio.timeout(30):
        while len(await people.desk.find(ANNA, session=cell.session, state="pending")) < 2:
            await asyncio.sleep(0.01)
    error = await failure(cell.call("pay", name="ann", amount=3))
    assert (error.type, error.data) == ("ApprovalRequired", {})
    await people.broker.end_cell(cell.session)
    await asyncio.gather(*held, return_exceptions=True)


async def test_strangers_text_is_shown_as_one_clean_line(make: Make) -> None:
    people = make(hold_s=0)
    cell = await people.session()
    nasty = "a\x1b[2J\u202eb\nAPPROVED\u2028\x00" + "x" * 5000
    await failure(cell.call("pay", name=nasty.replace("\x00", ""), amount=1))
    (asked,) = await people.desk.find(ANNA, session=cell.session)
    shown = asked.calls[0].view.args["name"]
    assert shown.startswith("ab APPROVED xxx")
    assert len(shown) <= 300


# -- batches --


def _pays(*amounts: int) -> list[tuple[str, dict[str, object]]]:
    return [("pay", {"name": "ann", "amount": amount}) for amount in amounts]


async def test_a_batch_is_one_request_and_may_be_approved_in_part(make: Make) -> None:
    people = make()
    cell = await people.session()
    batch = cell.batch("Pay\x1b[1m three", *_pays(1, 10), ("add", {"name": "ann", "amount": 100}))
    asked = await people.asked(cell.session, 3)
    assert (asked.title, asked.batch, asked.summary) == ("Pay three", True, "Pay three: 3 calls")
    with pytest.raises(BadDecision):
        await people.desk.approve(ANNA, asked.id, calls=[1, 4])
    with pytest.raises(BadDecision):
        await people.desk.approve(ANNA, asked.id, calls=[])
    await people.desk.approve(ANNA, asked.id, calls=[1, 3], note="not the second")
    first, second, third = await batch
    assert (first["value"]["total"], third["value"]["total"]) == (1, 101)
    assert (second["error"]["type"], "not the second" in second["error"]["message"]) == ("ApprovalDenied", True)
    assert await cell.rows() == [("pay", "applied"), ("pay", "denied"), ("add", "applied")]


async def test_a_parked_batch_is_done_when_its_cell_runs_again(make: Make) -> None:
    people = make(hold_s=0)
    cell = await people.session()
    error = await failure(cell.batch("Pay", *_pays(1, 10)))
    assert error.data["parked"]
    records = await cell.again()
    assert [each.state for each in records] == ["pending", "pending"]
    await people.desk.approve(ANNA, error.data["approval"])
    assert [each["value"]["total"] for each in await cell.batch("Pay", *_pays(1, 10))] == [1, 11]
    await cell.again()
    assert [each["value"]["total"] for each in await cell.batch("Pay", *_pays(1, 10))] == [1, 11]
    assert await people.total("ann") == 11


async def test_a_batch_with_one_call_that_cannot_be_asks_nothing(make: Make) -> None:
    people = make()
    cell = await people.session()
    for wrong in (("pay", {"name": "ann"}), ("look", {"name": "ann"}), ("pay", {"name": "ann", "amount": 5000})):
        error = await failure(cell.batch("Pay", *_pays(1), wrong))
        assert error.type == "ToolInputError"
    assert await people.desk.find(ANNA, session=cell.session) == ()
    assert await people.total("ann") == 0
    for args in ({}, {"title": "x", "calls": []}, {"title": 1, "calls": "x"}, {"title": "x", "calls": [{"tool": "y"}]}):
        with pytest.raises(Exception, match=r"[Bb]atch"):
            await asyncio.to_thread(cell.client.call, "approvals.batch", args)


# -- taking back --


async def test_what_was_done_is_taken_back_once(make: Make) -> None:
    people = make()
    cell = await people.session()
    paying = cell.call("pay", **PAY)
    await people.desk.approve(ANNA, (await people.asked(cell.session)).id)
    await paying
    await cell.call("add", name="ann", amount=100)
    added, paid = await people.reverts.find(ANNA, session=cell.session)
    assert (paid.can_revert, added.can_revert) == (True, False)
    for person in (Person("carl", frozenset({"other"}), decides=True),):
        with pytest.raises(CallNotFound):
            await people.reverts.revert(person, paid.call)
    with pytest.raises(CannotRevert):
        await people.reverts.revert(ANNA, added.call)
    both = await asyncio.gather(
        people.reverts.revert(ANNA, paid.call),
        people.another().reverts.revert(BORIS, paid.call),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in both) == ["CannotRevert", "WriteCall"]
    assert await people.total("ann") == 100
    with pytest.raises(CannotRevert, match="already"):
        await people.reverts.revert(ANNA, paid.call)
    await cell.again()
    assert (await cell.call("pay", **PAY))["total"] == 5  # a cell that runs again is told what it was told
    assert await people.total("ann") == 100
    assert ("pay", "reverted") in await cell.rows()


# -- what is asked --


@pytest.mark.parametrize(
    ("tool", "caps", "more", "asks"),
    [
        ("look", WriteCaps(per_session_hour=0), {}, ""),
        ("add", WriteCaps(), {}, ""),
        ("pay", WriteCaps(), {}, "critical"),
        ("add", WriteCaps(irreversible="ask"), {}, "nothing undoes"),
        ("add", WriteCaps(amount=Decimal(10)), {"amount": "10.00"}, ""),
        ("add", WriteCaps(amount=Decimal(10)), {"amount": "-10.01"}, "10.01"),
        ("add", WriteCaps(amount=Decimal(10)), {"amount": "NaN"}, "not known"),
        ("add", WriteCaps(amount=Decimal(10)), {"amount": "a lot"}, "not known"),
        ("add", WriteCaps(amount=Decimal(10)), {}, ""),
        ("add", WriteCaps(per_session_hour=3), {"recent": Recent(session=2)}, ""),
        ("add", WriteCaps(per_session_hour=3), {"recent": Recent(session=3)}, "within an hour"),
        ("add", WriteCaps(per_tenant_hour=3), {"recent": Recent(tenant=3)}, "shop's sessions"),
    ],
)
def test_which_calls_a_person_is_asked_about(tool: str, caps: WriteCaps, more: dict[str, Any], asks: str) -> None:
    grant = Grant(tenant="shop", principal="p", session="s", role="agent")
    verdict = decide(grant, counting.registry().get(f"counting.{tool}"), caps, **more)
    assert isinstance(verdict, Ask) == bool(asks)
    assert isinstance(verdict, Run) or asks in verdict.reason


def test_a_roles_caps_come_before_its_tenants(tmp_path: Path) -> None:
    made = load_settings(
        data_dir=tmp_path,
        approvals={"writes": {"per_session_hour": 1}, "roles": {"agent": {"per_session_hour": 2}}},
        tenants={"shop": {"writes": {"per_session_hour": 3}}, "other": {}},
    )

    def cap(tenant: str, role: Any) -> int:
        return caps_of(made, Grant(tenant=tenant, principal="p", session="s", role=role)).per_session_hour

    assert (cap("shop", "agent"), cap("shop", "operator"), cap("other", "operator")) == (2, 3, 1)


async def test_writes_past_the_cap_are_asked(make: Make) -> None:
    people = make(hold_s=0, writes={"per_session_hour": 2})
    cell = await people.session()
    for _ in range(2):
        await cell.call("add", name="ann")
    error = await failure(cell.call("add", name="ann"))
    assert error.data["parked"]
    (asked,) = await people.desk.find(ANNA, session=cell.session)
    assert "within an hour" in asked.calls[0].reason
