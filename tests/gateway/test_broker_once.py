"""Every write once: over re-runs, lost answers, kills of the calling kernel and kills of the gateway."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import counting
import pytest
from broker_world import World

from gateway.types import CallRecord
from kernel_pool.sandbox import wire
from kernel_pool.sandbox.client import CallFailed

SANDBOX_PARENT = Path(__file__).parents[2] / "kernel_pool"

#: A read, a write that depends on it, and two equal writes at the same time.
CELL = """
from concurrent.futures import ThreadPoolExecutor
from servers.counting import add, look

before = look(name="a")["total"]
add(name="a", amount=1 + before)
with ThreadPoolExecutor(2) as threads:
    list(threads.map(lambda name: add(name=name), ["b", "b"]))
print(before)
"""
BOUNDARIES = 3 * 4

KERNEL = f"""
import sys
sys.path.append({str(SANDBOX_PARENT)!r})
from sandbox.stubs import install
install(sys.argv[1], sys.argv[2])
{CELL}
"""


async def begun(gate: str) -> None:
    await counting.BEGUN.setdefault(gate, asyncio.Event()).wait()


def open_gate(gate: str) -> None:
    counting.GATES.setdefault(gate, asyncio.Event()).set()


async def effects(world: World) -> list[str]:
    return sorted(row["name"] for row in await world.database.fetch("SELECT name FROM effect"))


async def raw_call(world: World, tool: str, args: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(world.path())
    writer.write(wire.frame(wire.CALL, wire.Call(id="1", tool=f"counting.{tool}", args=args)))
    return reader, writer


async def test_a_cell_that_runs_again_is_answered_from_the_journal(world: World, call: Any) -> None:
    client = await world.armed()
    first = [await call(client, "look", name="n"), await call(client, "add", name="n")]
    await world.rerun()
    again = [await call(client, "look", name="n"), await call(client, "add", name="n")]
    assert again == first
    assert (await world.total("n"), await world.looks("n")) == (1, 1)
    records = await world.broker.end_cell("s1")
    assert [record.replayed for record in records] == [True, True]
    assert [record.result for record in records] == first


async def test_the_journal_outlives_the_gateway(world: World, call: Any) -> None:
    client = await world.armed()
    first = await call(client, "add", name="n")
    await world.broker.close()
    world.new_broker()
    client = await world_armed_again(world, "s1")
    assert await call(client, "add", name="n") == first
    assert await world.total("n") == 1


async def world_armed_again(world: World, session: str) -> Any:
    from gateway.types import Grant
    from kernel_pool.sandbox.client import BrokerClient

    await world.broker.arm(world.path(session), Grant(tenant="shop", principal="chat", session=session, role="agent"))
    await world.broker.begin_cell(session, "c1")
    return BrokerClient(str(world.path(session)))


async def test_another_cell_is_another_call(world: World, call: Any) -> None:
    client = await world.armed()
    await call(client, "add", name="n")
    await world.rerun("c2")
    await call(client, "add", name="n")
    assert await world.total("n") == 2


async def test_equal_calls_in_one_cell_are_as_many_calls(world: World, call: Any) -> None:
    client = await world.armed()
    for _ in range(2):
        for _ in range(3):
            await call(client, "add", name="n")
        await world.rerun()
    assert await world.total("n") == 3
    assert [row["occurrence"] for row in await world.rows()] == [1, 2, 3]


async def test_parallel_calls_replay_in_any_order(world: World, call: Any) -> None:
    client = await world.armed()
    names = [f"n{i}" for i in range(10)]
    await asyncio.gather(*(call(client, "add", name=name) for name in names))
    await world.rerun()
    await asyncio.gather(*(call(client, "add", name=name) for name in reversed(names)))
    assert await effects(world) == sorted(names)


async def test_a_failed_call_fails_the_same_way_again_without_going_out(world: World, call: Any) -> None:
    client = await world.armed()
    failures = []
    for _ in range(2):
        with pytest.raises(CallFailed) as caught:
            await call(client, "fail", how="upstream")
        failures.append(caught.value.error)
        await world.rerun()
    first, again = ((e.type, e.message, e.tool, e.retryable, e.hint, e.data) for e in failures)
    assert first == again
    assert await world.looks("upstream") == 1


async def test_a_write_without_an_answer_is_looked_up_when_the_cell_tries_again(world: World, call: Any) -> None:
    client = await world.armed()
    with pytest.raises(CallFailed):
        await call(client, "add_without_answer", name="n")
    assert [row["state"] for row in await world.rows()] == ["unknown"]
    assert await call(client, "add_without_answer", name="n") == {"name": "n", "total": 1}
    assert [row["state"] for row in await world.rows()] == ["applied"]


async def test_a_write_without_an_answer_is_looked_up_when_the_cell_runs_again(world: World, call: Any) -> None:
    client = await world.armed()
    with pytest.raises(CallFailed):
        await call(client, "add_without_answer", name="n")
    await world.rerun()
    assert await call(client, "add_without_answer", name="n") == {"name": "n", "total": 1}


async def test_a_write_over_its_time_is_looked_up(world: World, call: Any) -> None:
    world.new_broker(call_timeout_s=1)
    client = await world.armed()
    with pytest.raises(CallFailed):
        await call(client, "wait_and_add", gate="g")
    open_gate("g")
    await call(client, "wait_and_add", gate="g")
    assert [row["state"] for row in await world.rows()] == ["applied"]
    assert await world.total("g") == 1


@pytest.mark.parametrize("tool", ["wait_and_add", "wait_and_look"])
async def test_a_call_under_way_survives_its_kernel_and_the_rerun_awaits_it(world: World, tool: str, call: Any) -> None:
    await world.armed()
    _, writer = await raw_call(world, tool, b'{"gate": "g"}')
    await begun("g")
    writer.transport.abort()
    await world.broker.disarm("s1")
    counting.BEGUN.clear()
    client = await world_armed_again(world, "s1")
    again = asyncio.create_task(call(client, tool, gate="g"))
    await asyncio.sleep(0.1)  # the rerun has most likely arrived; where it has not, the journal answers it
    open_gate("g")
    assert (await again)["name"] == "g"
    assert "g" not in counting.BEGUN
    (record,) = await world.broker.end_cell("s1")
    assert (record.state, record.replayed) == ("applied", True)


async def test_a_cancelled_read_is_given_up_and_made_anew_by_the_rerun(world: World, call: Any) -> None:
    client = await world.armed()
    _, writer = await raw_call(world, "wait_and_look", b'{"gate": "g"}')
    await begun("g")
    writer.write(wire.frame(wire.CANCEL, wire.Cancel(id="1")))
    while [row["state"] for row in await world.rows()] != ["unknown"]:
        await asyncio.sleep(0.01)
    writer.close()
    while world.broker._calls._flights:  # the row is written a moment before the call is over
        await asyncio.sleep(0.01)
    (record,) = await world.rerun()
    assert record.state == "unknown"
    open_gate("g")
    assert await call(client, "wait_and_look", gate="g") == {"name": "g", "total": 0}


async def test_a_rerun_does_not_join_a_read_that_is_being_cancelled(world: World) -> None:
    grant = await world.session()
    await world.broker.begin_cell("s1", "c1")
    first = asyncio.create_task(world.broker.call(grant, "counting.wait_and_look", {"gate": "g"}))
    await begun("g")
    open_gate("g")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await world.rerun()
    again = await world.broker.call(grant, "counting.wait_and_look", {"gate": "g"})
    assert again == {"name": "g", "total": 0}


async def test_a_cancelled_write_goes_on_and_is_journaled(world: World, call: Any) -> None:
    client = await world.armed()
    _, writer = await raw_call(world, "wait_and_add", b'{"gate": "g"}')
    await begun("g")
    writer.write(wire.frame(wire.CANCEL, wire.Cancel(id="1")))
    await writer.drain()
    writer.close()
    ending = asyncio.create_task(world.rerun())
    await asyncio.sleep(0)
    open_gate("g")
    (record,) = await ending
    assert record.state == "applied"
    await call(client, "wait_and_add", gate="g")
    assert await world.total("g") == 1


async def test_a_write_that_takes_long_is_reported_as_under_way(world: World, call: Any) -> None:
    world.new_broker(settle_s=0)
    client = await world.armed()
    running = asyncio.create_task(call(client, "wait_and_add", gate="g"))
    await begun("g")
    (record,) = await world.broker.end_cell("s1")
    assert record.state == "executing"
    open_gate("g")
    await running


async def test_a_cancelled_direct_read_ends_and_a_write_goes_on(world: World) -> None:
    grant = await world.session()
    await world.broker.begin_cell("s1", "direct-1")
    for tool in ("wait_and_look", "wait_and_add"):
        running = asyncio.create_task(world.broker.call(grant, f"counting.{tool}", {"gate": tool}))
        await begun(tool)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        open_gate(tool)
    records = await world.broker.end_cell("s1")
    assert [record.state for record in records] == ["unknown", "applied"]


async def test_a_gateway_that_stops_leaves_calls_to_be_taken_up(world: World, call: Any) -> None:
    world.new_broker(settle_s=0)
    await world.armed()
    _, writer = await raw_call(world, "wait_and_add", b'{"gate": "g"}')
    await begun("g")
    await world.broker.close()
    writer.close()
    open_gate("g")
    world.new_broker()
    client = await world_armed_again(world, "s1")
    await call(client, "wait_and_add", gate="g")
    assert await world.total("g") == 1


async def test_a_write_that_is_new_in_a_restored_session_is_never_made_however_often_it_is_restored(
    world: World, call: Any
) -> None:
    client = await world.armed()
    await call(client, "add", name="old")
    for _ in range(2):
        await world.broker.end_cell("s1")
        await world.broker.begin_cell("s1", "c1", replay=True)
        await call(client, "add", name="old")
        with pytest.raises(CallFailed, match="the session is being restored"):
            await call(client, "add", name="new")
    assert await effects(world) == ["old"]


async def run_kernel(world: World, die_at: int = -1) -> tuple[str, int]:
    """The cell in a process of its own; killed at the boundary of that number. What it printed; boundaries passed."""
    index = world.folder / "tools.json"
    index.write_bytes(counting.registry().index())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KERNEL, str(index), str(world.path()), stdout=asyncio.subprocess.PIPE
    )
    passed = 0

    async def observer(boundary: str, record: CallRecord) -> None:
        nonlocal passed
        if passed == die_at:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        passed += 1

    world.observers[:] = [observer]
    output, _ = await process.communicate()
    return output.decode(), passed


async def test_the_cell_of_the_kill_tests_passes_so_many_boundaries(world: World) -> None:
    await world.armed()
    assert await run_kernel(world) == ("0\n", BOUNDARIES)
    assert await effects(world) == ["a", "b", "b"]


@pytest.mark.parametrize("boundary", range(BOUNDARIES))
async def test_a_kernel_killed_at_any_boundary_leaves_every_write_applied_once(world: World, boundary: int) -> None:
    await world.armed()
    output, _ = await run_kernel(world, die_at=boundary)
    assert output == ""
    await world.rerun()
    output, _ = await run_kernel(world)
    assert output == "0\n"
    assert await effects(world) == ["a", "b", "b"]
    assert {row["state"] for row in await world.rows()} == {"applied"}


GATEWAY = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[1])
import counting, httpx
from gateway.broker import Broker, Contexts, Journal
from gateway.db import Database
from gateway.settings import BrokerSettings, DatabaseSettings, load_settings
from gateway.tool_catalogue import Catalogue
from gateway.types import Grant

async def main(url, die_at):
    passed = 0
    async def observer(boundary, record):
        nonlocal passed
        if passed == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1
    database = Database(url, DatabaseSettings(pool_size=4))
    await database.open()
    async with httpx.AsyncClient() as http:
        contexts = Contexts(load_settings(), database, http)
        broker = Broker(Catalogue(counting.registry()), Journal(database), contexts, BrokerSettings(), [observer])
        grant = Grant(tenant="shop", principal="chat", session="s1", role="agent")
        await broker.begin_cell("s1", "c1")
        call = lambda tool, **args: broker.call(grant, f"counting.{tool}", args)
        before = (await call("look", name="a"))["total"]
        await call("add", name="a", amount=1 + before)
        await asyncio.gather(*(call("add", name=name) for name in ["b", "b"]))
        print(before)
        await broker.close()
    await database.close()

asyncio.run(main(sys.argv[2], int(sys.argv[3])))
"""


async def run_gateway(url: str, die_at: int = -1) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GATEWAY, str(Path(__file__).parent), url, str(die_at), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.parametrize("boundary", range(BOUNDARIES))
async def test_a_gateway_killed_at_any_boundary_leaves_every_write_applied_once(
    world: World, database_url: str, boundary: int
) -> None:
    await world.session()
    assert await run_gateway(database_url, die_at=boundary) == ""
    assert await run_gateway(database_url) == "0\n"
    assert await effects(world) == ["a", "b", "b"]
