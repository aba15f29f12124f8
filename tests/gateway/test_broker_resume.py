"""Calls of a cell that outlives its gateway: known again by their ids, each write applied once."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import counting
import pytest
from broker_world import World
from test_broker_once import BOUNDARIES, CELL, begun, effects, open_gate

from gateway.types import CallRecord, Grant
from kernel_pool.sandbox import wire
from kernel_pool.sandbox.client import BrokerClient, CallFailed

GRANT = Grant(tenant="shop", principal="chat", session="s1", role="agent")


async def next_gateway(world: World, *, cell: str = "c1", rerun: bool = False, **limits: Any) -> None:
    """Another broker takes the place of one that is gone, and goes on with the cell or runs it again."""
    world.new_broker(**limits)
    if rerun:  # as the cell's row does it
        await world.database.execute("DELETE FROM request")
    await world.broker.begin_cell("s1", cell, resume=not rerun)
    await world.broker.arm(world.path("s1"), GRANT)


def patient(world: World) -> BrokerClient:
    return BrokerClient(str(world.path("s1")), patience_s=60)


async def send(world: World, id: str, tool: str, args: bytes) -> wire.Result | wire.Error:
    """One call under an id of our choice, on a connection of its own."""
    import msgspec

    reader, writer = await asyncio.open_unix_connection(world.path("s1"))
    writer.write(wire.frame(wire.CALL, wire.Call(id=id, tool=f"counting.{tool}", args=args)))
    size, kind = wire.HEADER.unpack(await reader.readexactly(wire.HEADER.size))
    body = await reader.readexactly(size)
    writer.close()
    return msgspec.msgpack.decode(body, type=wire.Result if kind == wire.RESULT else wire.Error)


async def test_a_call_in_the_middle_goes_on_with_the_next_gateway(world: World, call: Any) -> None:
    world.new_broker(settle_s=0)
    await world.armed()
    client = patient(world)
    pending = asyncio.create_task(call(client, "wait_and_add", gate="g"))
    await begun("g")
    await world.broker.close()
    open_gate("g")
    await next_gateway(world)
    assert await pending == {"name": "g", "total": 1}
    assert await world.total("g") == 1
    (record,) = await world.broker.end_cell("s1")
    assert (record.state, record.replayed) == ("applied", False)


async def test_a_new_call_after_the_restart_is_another_one(world: World, call: Any) -> None:
    await world.armed()
    client = patient(world)
    await call(client, "add", name="n")
    await world.broker.close()
    await next_gateway(world)
    await call(client, "add", name="n")
    assert await world.total("n") == 2
    assert [row["occurrence"] for row in await world.rows()] == [1, 2]
    records = await world.broker.end_cell("s1")
    assert [(record.state, record.replayed) for record in records] == [("applied", False)] * 2


async def test_an_answer_that_did_not_arrive_is_given_again(world: World) -> None:
    await world.armed()
    first = await send(world, "k-1", "add", b'{"name": "n"}')
    assert await send(world, "k-1", "add", b'{"name": "n"}') == first
    await world.broker.close()
    await next_gateway(world)
    assert await send(world, "k-1", "add", b'{"name": "n"}') == first
    assert await world.total("n") == 1
    (record,) = await world.broker.end_cell("s1")
    assert (record.state, record.replayed) == ("applied", False)


async def test_a_cell_that_is_run_again_counts_from_one_whatever_ids_its_kernel_had(world: World, call: Any) -> None:
    await world.armed()
    for _ in range(3):
        await call(patient(world), "add", name="n")
    await world.broker.close()
    await next_gateway(world, rerun=True)
    client = patient(world)
    await call(client, "add", name="n")
    await world.broker.close()
    await next_gateway(world)  # in the middle of the second run: it goes on with the second call
    await call(client, "add", name="n")
    await call(client, "add", name="n")
    assert await world.total("n") == 3
    await call(client, "add", name="n")
    assert await world.total("n") == 4
    records = await world.broker.end_cell("s1")
    assert [record.replayed for record in records] == [True, True, True, False]


async def test_equal_writes_under_way_at_the_kill_stay_two(world: World, call: Any) -> None:
    world.new_broker(settle_s=0)
    await world.armed()
    clients = [patient(world), patient(world)]
    pending = [asyncio.create_task(call(client, "wait_and_add", gate="g")) for client in clients]
    await begun("g")
    await world.broker.close()
    open_gate("g")
    await next_gateway(world)
    await asyncio.gather(*pending)
    assert await world.total("g") == 2


async def test_a_write_without_an_answer_is_looked_up_by_a_new_call_after_the_restart(world: World) -> None:
    await world.armed()
    assert isinstance(await send(world, "k-1", "add_without_answer", b'{"name": "n"}'), wire.Error)
    await world.broker.close()
    await next_gateway(world)
    assert isinstance(await send(world, "k-2", "add_without_answer", b'{"name": "n"}'), wire.Result)
    assert await world.total("n") == 1
    # the first had not had its answer after all: it is a write of its own
    await send(world, "k-1", "add_without_answer", b'{"name": "n"}')
    assert await world.total("n") == 2


async def test_an_id_is_no_way_to_another_calls_answer(world: World) -> None:
    await world.armed()
    await send(world, "k-1", "echo", b'{"value": "mine"}')
    stolen = await send(world, "k-1", "echo", b'{"value": "other"}')
    assert isinstance(stolen, wire.Error)
    assert "This call's id was another call's." in stolen.message
    await world.rerun("c2")
    again = await send(world, "k-1", "echo", b'{"value": "other"}')
    assert isinstance(again, wire.Result)
    assert again.value == b'"other"'


async def test_a_budget_goes_on_after_the_restart(world: World, call: Any) -> None:
    world.new_broker(calls_per_cell=3)
    await world.armed()
    client = patient(world)
    await call(client, "add", name="n")
    await call(client, "add", name="n")
    await world.broker.close()
    await next_gateway(world, calls_per_cell=3)
    await call(client, "add", name="n")
    with pytest.raises(CallFailed, match="calls_per_cell"):
        await call(client, "add", name="n")


KERNEL = f"""
import sys
sys.path.append({str(Path(__file__).parents[2] / "kernel_pool")!r})
from sandbox.stubs import install
install(*sys.argv[1:])
{CELL}
"""

GATEWAY = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import counting, httpx
from gateway.broker import Broker, Contexts, Journal
from gateway.db import Database
from gateway.settings import BrokerSettings, DatabaseSettings, load_settings
from gateway.tool_catalogue import Catalogue
from gateway.types import Grant

async def main(url, path, die_at, resume):
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
        await broker.begin_cell("s1", "c1", resume=resume)
        grant = Grant(tenant="shop", principal="chat", session="s1", role="agent")
        await broker.arm(Path(path), grant)
        print("armed", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        print([(r.tool, r.state) for r in await broker.end_cell("s1")], passed)
        await broker.close()
    await database.close()

asyncio.run(main(sys.argv[2], sys.argv[3], int(sys.argv[4]), bool(sys.argv[5])))
"""


async def gateway(world: World, url: str, die_at: int, *, resume: bool) -> asyncio.subprocess.Process:
    arguments = (str(Path(__file__).parent), url, str(world.path("s1")), str(die_at), "yes" if resume else "")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GATEWAY, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"armed\n"
    return process


@pytest.mark.parametrize("boundary", range(BOUNDARIES))
async def test_a_cell_outlives_a_gateway_killed_at_any_boundary(world: World, database_url: str, boundary: int) -> None:
    await world.broker.close()
    await world.session()
    (world.folder / "tools.json").write_bytes(counting.registry().index())
    (world.folder / "broker.json").write_text('{"patience_s": 120}')
    first = await gateway(world, database_url, boundary, resume=False)
    files = [str(world.folder / name) for name in ("tools.json", "s1/broker.sock", "broker.json")]
    kernel = await asyncio.create_subprocess_exec(sys.executable, "-c", KERNEL, *files, stdout=asyncio.subprocess.PIPE)
    assert await first.wait() == -signal.SIGKILL
    second = await gateway(world, database_url, -1, resume=True)
    output, _ = await kernel.communicate()
    assert output == b"0\n"
    told, _ = await second.communicate(b"")
    assert await effects(world) == ["a", "b", "b"]
    assert {row["state"] for row in await world.rows()} == {"applied"}
    assert told.count(b"'applied'") == 4


def test_every_record_is_kept_apart_by_its_own_key() -> None:
    """Two calls that differ in nothing but their id have two records, and one that comes again has one."""
    from gateway.broker.cells import Cell
    from gateway.broker.policy import CellBudget, SessionBudget
    from gateway.settings import BrokerSettings

    cell = Cell("c", CellBudget(BrokerSettings(), SessionBudget()))
    keys = [cell.key("s", "t.x", "h", id) for id in ("a", "b", "a")]
    assert [key.occurrence for key in keys] == [1, 2, 1]
    for key in keys:
        cell.note(key, CallRecord("s", "c", "t.x", {}, key.occurrence, "write", "applied", replayed=False))
    assert len(cell.records) == 2


async def test_the_first_call_of_a_kernel_between_two_gateways_waits_too(world: World, call: Any) -> None:
    await world.armed()
    await world.broker.disarm("s1", for_good=False)
    pending = asyncio.create_task(call(patient(world), "add", name="n"))
    await asyncio.sleep(0.1)
    await world.broker.close()
    await next_gateway(world)
    assert await pending == {"name": "n", "total": 1}


async def test_a_kernel_whose_session_has_ended_does_not_wait(world: World, call: Any) -> None:
    await world.armed()
    await world.broker.disarm("s1")
    with pytest.raises(CallFailed, match="there is no tool broker for this kernel"):
        await call(patient(world), "add", name="n")
