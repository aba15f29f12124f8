"""Conversations where no kernel is to be had, and after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from gateway_world import notebook_of, own_database, running_shop, scripted_model, settings_for

from demo.model.script import Call, Script, Step
from gateway.runtime import Gateway, open_gateway
from gateway.types import Event

LOOK = Script(
    "look",
    "What do you have?",
    (Step("1", (Call("catalog.search_by_category", {"category": "shoes"}),)),),
    "Nothing yet.",
)
KEEP = Script("keep", "Remember", (Step("kept = 7", ()),), "I do.")
RECALL = Script("recall", "What was it?", (Step("print(kept)", ()),), "Seven.")


async def ask(gateway: Gateway, message: str, session: str | None = None) -> tuple[str, list[Event]]:
    events: list[Event] = []

    async def sink(event: Event) -> None:
        events.append(event)

    info = await (
        gateway.sessions.create("shop", "test", "agent", kernel=False)
        if session is None
        else gateway.sessions.get(session)
    )
    await (await gateway.chat.start(info, message, sink))
    return info.id, events


def model(env: dict[str, str]) -> dict[str, Any]:
    return {"openai_base_url": env["OPENAI_BASE_URL"], "openai_api_key": env["OPENAI_API_KEY"]}


async def test_without_a_kernel_the_turn_goes_on_with_direct_calls_and_says_so(
    tmp_path: Path, database_url: str
) -> None:
    with scripted_model(tmp_path, LOOK) as env, running_shop() as shop:
        pool = {"warm": 1, "maximum": 1, "preload": (), "lease_timeout_s": 0.1}
        settings = settings_for(tmp_path / "data", database_url, shop, pool=pool, **model(env))
        async with open_gateway(settings) as gateway:
            blocker = await wait_for_kernel(gateway)
            session, events = await ask(gateway, LOOK.message)
            await gateway.sessions.end(blocker)
    kinds = [event.kind for event in events if event.kind not in ("text", "step")]
    assert kinds == ["fallback", "call", "answer", "end"]
    assert events[-1].data["mode"] == "direct"
    cells = notebook_of(tmp_path / "data", session).cells
    assert [cell.metadata.omniops.get("who", "calls") for cell in cells] == ["customer", "calls", "note", "agent"]
    assert "Cells could not run" in cells[2].source
    assert cells[1].metadata.omniops.calls[0].tool == "catalog.search_by_category"
    assert cells[1].outputs[0].text.startswith("ToolNotFound: ")


async def wait_for_kernel(gateway: Gateway) -> str:
    """A session that holds the only kernel."""
    while not gateway.pool.status().ready:
        await asyncio.sleep(0.02)
    return (await gateway.sessions.create("shop", "test", "agent")).id


async def test_a_conversation_goes_on_after_a_restart(postgres: str, tmp_path: Path) -> None:
    with own_database(postgres) as url, scripted_model(tmp_path, KEEP, RECALL) as env:
        settings = settings_for(tmp_path / "data", url, **model(env))
        async with open_gateway(settings) as first:
            session, _ = await ask(first, KEEP.message)
        async with open_gateway(settings) as second:
            _, events = await ask(second, RECALL.message, session)
            assert [event.data["text"] for event in events if event.kind == "output"] == ["7\n"]
            assert events[-1].data["reason"] == "answered"
            said = await second.database.fetch(
                "SELECT seq, role, text, intents, started = min(at) OVER () AS begun FROM chat_message"
                " WHERE tenant = 'shop' AND conversation = %s ORDER BY seq",
                (session,),
            )
    told = [(row["seq"], row["role"], row["text"], row["intents"]) for row in said]
    assert [row for row in told if row[1] == "customer"] == [
        (1, "customer", KEEP.message, []),
        (3, "customer", RECALL.message, []),
    ]
    assert [(row[0], row[3]) for row in told if row[1] == "agent"] == [(2, ["answered"]), (4, ["answered"])]
    assert all(row["begun"] for row in said)
    sources = [cell.source for cell in notebook_of(tmp_path / "data", session).cells if cell.cell_type == "code"]
    assert sources == ["kept = 7", "print(kept)"]


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
async def test_a_turn_that_is_cancelled_early_ends_in_order(tmp_path: Path, database_url: str, steps: int) -> None:
    events: list[Event] = []

    async def sink(event: Event) -> None:
        events.append(event)

    with scripted_model(tmp_path, KEEP) as env:
        async with open_gateway(settings_for(tmp_path / "data", database_url, **model(env))) as gateway:
            info = await gateway.sessions.create("shop", "test", "agent", kernel=False)
            turn = await gateway.chat.start(info, KEEP.message, sink)
            await asyncio.sleep(0)
            for _ in range(steps):
                await asyncio.sleep(0.001)
            turn.cancel()
            await asyncio.wait([turn])
    assert [event.data["reason"] for event in events if event.kind == "end"] == ["cancelled"]
    assert notebook_of(tmp_path / "data", info.id).cells[-1].metadata.omniops.usage.reason == "cancelled"
