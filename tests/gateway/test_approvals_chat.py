"""A conversation in which a call waits for a person: the customer is told so, and later turns know the decision."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from approval_world import ANNA
from gateway_world import notebook_of, scripted_model, settings_for

from demo.model.script import Call, Script, Step
from gateway.runtime import Gateway, open_gateway
from gateway.types import Event

CODE = "from servers.support import hand_over\nprint(hand_over(summary={!r})['status'])"


def script(name: str, *steps: str) -> Script:
    made = tuple(Step(CODE.format(step), (Call("support.hand_over", {"summary": step}),)) for step in steps)
    return Script(name, f"{name}, please", made, f"{name}: a colleague has to approve this.")


ONE, TWO, DIRECT, REFUSED = script("one", "a"), script("two", "b", "c"), script("direct", "d"), script("refused", "e")


async def ask(gateway: Gateway, message: str, session: str, **options: Any) -> dict[str, dict[str, Any]]:
    events: list[Event] = []

    async def sink(event: Event) -> None:
        events.append(event)

    await (await gateway.chat.start(await gateway.sessions.get(session), message, sink, **options))
    return {event.kind: event.data for event in events}


async def decided(gateway: Gateway, session: str, *, approve: bool) -> None:
    (asked,) = await gateway.desk.find(ANNA, session=session, state="pending")
    assert asked.calls[0].view.tool == "support.hand_over"
    decide = gateway.desk.approve if approve else gateway.desk.deny
    await decide(ANNA, asked.id, note="as I said")
    async with asyncio.timeout(60):
        while (await gateway.desk.get(ANNA, asked.id)).resumed is None:
            await asyncio.sleep(0.05)


async def hand_overs(gateway: Gateway, session: str) -> list[str]:
    rows = await gateway.database.fetch("SELECT summary FROM handover WHERE session = %s ORDER BY id", (session,))
    return [row["summary"] for row in rows]


async def told(gateway: Gateway, session: str) -> str:
    """What the model was told last on the customer's side."""
    rows = await gateway.database.fetch("SELECT messages FROM turn WHERE session = %s ORDER BY index", (session,))
    return str(rows[-1]["messages"][0]["content"])


async def test_a_turn_ends_when_a_call_waits_and_the_next_one_knows_the_decision(
    tmp_path: Path, database_url: str
) -> None:
    with scripted_model(tmp_path, ONE, TWO, DIRECT, REFUSED) as env:
        settings = settings_for(
            tmp_path / "data",
            database_url,
            approvals={"look_s": 0.05, "roles": {"agent": {"per_session_hour": 0}}},
            openai_base_url=env["OPENAI_BASE_URL"],
            openai_api_key=env["OPENAI_API_KEY"],
        )
        async with open_gateway(settings) as gateway:
            session = (await gateway.sessions.create("shop", "chat", "agent", kernel=False)).id
            await _cells(gateway, session)
            await _no_words(gateway, session)
            await _direct(gateway, session)
    steps = [cell for cell in notebook_of(tmp_path / "data", session).cells if cell.cell_type == "code"]
    assert [each.metadata.omniops.calls[0].state for each in steps] == ["applied", "denied", "applied", "pending"]


async def _cells(gateway: Gateway, session: str) -> None:
    events = await ask(gateway, ONE.message, session)
    assert events["cell"]["status"] == "paused"
    assert events["end"]["reason"] == "paused"
    assert "A person has to approve this" in events["answer"]["text"]  # the scripted model repeats what it was told
    assert await hand_overs(gateway, session) == []
    await ask(gateway, "Is it done?", session)
    assert "still waits for a colleague" in await told(gateway, session)
    await decided(gateway, session, approve=True)
    assert await hand_overs(gateway, session) == ["a"]
    await ask(gateway, "And now?", session)
    notice = await told(gateway, session)
    for part in (
        "was approved by a colleague. They said: as I said",
        "support.hand_over: applied",
        "waiting",
        "And now?",
    ):
        assert part in notice
    await ask(gateway, "And now?", session)
    assert await told(gateway, session) == "And now?"  # once is enough


async def _no_words(gateway: Gateway, session: str) -> None:
    """A model that goes on acting instead of saying what there is to say is not followed."""
    events = await ask(gateway, TWO.message, session)
    assert (events["end"]["reason"], bool(events["answer"]["text"])) == ("paused", True)
    await decided(gateway, session, approve=False)
    await ask(gateway, "And now?", session)
    assert "was refused" in await told(gateway, session)
    assert await hand_overs(gateway, session) == ["a"]


async def _direct(gateway: Gateway, session: str) -> None:
    events = await ask(gateway, DIRECT.message, session, mode="direct")
    assert (events["call"]["state"], events["end"]["reason"]) == ("pending", "paused")
    await decided(gateway, session, approve=True)
    assert await hand_overs(gateway, session) == ["a", "d"]
    await ask(gateway, "And now?", session)
    assert "support.hand_over: applied" in await told(gateway, session)
    await ask(gateway, REFUSED.message, session, mode="direct")
    await decided(gateway, session, approve=False)
    assert await hand_overs(gateway, session) == ["a", "d"]
    await ask(gateway, "And now?", session)
    assert "was refused by a colleague" in await told(gateway, session)
    await ask(gateway, "And now?", session)
    assert await told(gateway, session) == "And now?"
