"""The two actors by themselves."""

from __future__ import annotations

import asyncio
import json

from actor_doubles import GRANT, Notebook, Tools, function

from gateway.agent.cells import CellActor
from gateway.agent.direct import DirectActor
from gateway.agent.types import Action, ToolCall
from gateway.types import Event
from servers.errors import RateLimited


async def ignore(event: Event) -> None:
    pass


def cell(code: str, key: str = "a") -> Action:
    return Action(key, "run_cell", {"code": code})


async def test_a_cell_that_ignores_the_interrupt_is_abandoned(notebook: Notebook) -> None:
    notebook.deaf = True
    actor = CellActor(system="", run_cell=notebook.run_cell, interrupt=notebook.interrupt, stop_s=0.2)
    task = asyncio.create_task(
        actor.act(1, [cell("import asyncio; await asyncio.sleep(3600)"), cell("2", "b")], ignore)
    )
    await notebook.running.wait()
    task.cancel()
    acted = await task
    assert acted.cancelled
    assert acted.runs == ()
    assert [message["tool_call_id"] for message in acted.messages] == ["a", "b"]
    assert "outcome is not known" in acted.messages[0]["content"]


async def test_a_second_cancellation_does_not_wait(notebook: Notebook) -> None:
    notebook.deaf = True
    actor = CellActor(system="", run_cell=notebook.run_cell, interrupt=notebook.interrupt, stop_s=3600)
    task = asyncio.create_task(actor.act(1, [cell("import asyncio; await asyncio.sleep(3600)")], ignore))
    await notebook.running.wait()
    task.cancel()
    while not notebook.interrupts:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_cell_too_large_is_refused(notebook: Notebook) -> None:
    actor = CellActor(system="", run_cell=notebook.run_cell, interrupt=notebook.interrupt, code_kb=1)
    fault = actor.check(ToolCall("a", "run_cell", json.dumps({"code": "#" * 2000})))
    assert isinstance(fault, str)
    assert "1 KiB" in fault


async def test_direct_results_are_compact_json(direct: DirectActor, tools: Tools) -> None:
    acted = await direct.act(1, [Action("a", "shop.lookup", {"order_id": "W1"})], ignore)
    assert acted.messages[0] == {
        "role": "tool",
        "tool_call_id": "a",
        "content": '{"id":"W1","status":"pending"}',
    }
    assert [record.tool for record in acted.calls] == ["shop.lookup"]
    assert acted.cells == tuple(tools.cells)


async def test_direct_errors_are_shown_with_their_hint(direct: DirectActor) -> None:
    acted = await direct.act(1, [Action("a", "shop.lookup", {"order_id": 5})], ignore)
    assert json.loads(acted.messages[0]["content"]) == {
        "error": {
            "type": "ToolInputError",
            "message": "lookup: order_id must be a string",
            "retryable": False,
            "hint": "order_id='W1'",
        }
    }


async def test_each_direct_step_is_a_pseudo_cell_of_its_own(direct: DirectActor, tools: Tools) -> None:
    actions = [Action(key, "shop.lookup", {"order_id": key}) for key in ("a", "b")]
    await direct.act(1, actions, ignore)
    await direct.act(2, actions, ignore)
    assert len(set(tools.cells)) == 2


async def test_watchers_hear_each_direct_call(direct: DirectActor) -> None:
    heard: list[Event] = []

    async def sink(event: Event) -> None:
        heard.append(event)

    await direct.act(3, [Action("a", "shop.lookup", {"order_id": "W1"})], sink)
    assert [event.kind for event in heard] == ["step", "call"]
    assert heard[0].data["code"] == "shop.lookup(order_id='W1')"
    assert heard[1].data["tool"] == "shop.lookup"
    assert heard[1].data["state"] == "applied"


async def test_a_large_direct_result_is_cut(tools: Tools) -> None:
    async def everything() -> object:
        return ["x" * 1000] * 100

    tools.functions["shop.all"] = everything
    actor = DirectActor(
        system="", functions={"shop.all": function("shop__all")}, broker=tools, grant=GRANT, result_kb=1
    )
    acted = await actor.act(1, [Action("a", "shop.all", {})], ignore)
    assert len(acted.messages[0]["content"]) < 1200
    assert "truncated" in acted.messages[0]["content"]


async def test_cancelled_direct_calls_are_answered_and_the_cell_closed(direct: DirectActor, tools: Tools) -> None:
    calling = asyncio.Event()

    async def slow(order_id: str) -> object:
        calling.set()
        await asyncio.sleep(3600)
        return None

    tools.functions["shop.lookup"] = slow
    actions = [Action(key, "shop.lookup", {"order_id": key}) for key in ("a", "b")]
    task = asyncio.create_task(direct.act(1, actions, ignore))
    await calling.wait()
    task.cancel()
    acted = await task
    assert acted.cancelled
    assert [message["tool_call_id"] for message in acted.messages] == ["a", "b"]
    assert "Stopped" in acted.messages[0]["content"]
    assert "Not called" in acted.messages[1]["content"]
    assert tools.cell == ""


async def test_retryable_errors_say_so(tools: Tools, direct: DirectActor) -> None:
    async def busy(order_id: str) -> object:
        raise RateLimited("the shop asks to wait 3 s", data={"retry_after": 3})

    tools.functions["shop.lookup"] = busy
    acted = await direct.act(1, [Action("a", "shop.lookup", {"order_id": "W1"})], ignore)
    assert json.loads(acted.messages[0]["content"])["error"]["retryable"] is True
