"""Ids of calls are the kernel's own word: forged, repeated in floods, or another session's, they lead nowhere else."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from broker_world import World
from test_broker_resume import GRANT, next_gateway

from gateway.types import Grant
from kernel_pool.sandbox import wire

OTHER = Grant(tenant="rival", principal="chat", session="s2", role="agent")


async def send(world: World, session: str, id: str, tool: str, args: bytes) -> wire.Result | wire.Error | None:
    """One call on a connection of its own; None: the broker closed it."""
    reader, writer = await asyncio.open_unix_connection(world.path(session))
    body = msgspec.msgpack.encode({"id": id, "tool": f"counting.{tool}", "args": args})
    writer.write(wire.HEADER.pack(len(body), wire.CALL) + body)
    try:
        size, kind = wire.HEADER.unpack(await reader.readexactly(wire.HEADER.size))
        answer = await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None
    finally:
        writer.close()
    return msgspec.msgpack.decode(answer, type=wire.Result if kind == wire.RESULT else wire.Error)


async def two(world: World) -> None:
    """Two sessions, of two tenants, whose cells have the same id."""
    await world.armed("s1")
    await world.armed("s2", tenant="rival")


async def test_another_sessions_id_is_a_call_of_ones_own(world: World) -> None:
    await two(world)
    assert await send(world, "s1", "k-1", "whose", b"{}") is not None
    await send(world, "s1", "k-2", "add", b'{"name": "n"}')
    stolen = await send(world, "s2", "k-1", "whose", b"{}")
    assert isinstance(stolen, wire.Result)
    assert msgspec.json.decode(stolen.value)["tenant"] == "rival"
    await send(world, "s2", "k-2", "add", b'{"name": "n"}')
    assert await world.total("n") == 2
    assert sorted((row["session"], row["tool"]) for row in await world.rows()) == [
        *(("s1", "counting.add"), ("s1", "counting.whose"), ("s2", "counting.add"), ("s2", "counting.whose"))
    ]


async def test_another_sessions_id_is_none_after_a_restart_either(world: World) -> None:
    await two(world)
    await send(world, "s1", "k-1", "whose", b"{}")
    await send(world, "s1", "k-2", "add", b'{"name": "n"}')
    await world.broker.close()
    await next_gateway(world)
    await world.broker.begin_cell("s2", "c1", resume=True)
    await world.broker.arm(world.path("s2"), OTHER)
    stolen = await send(world, "s2", "k-1", "whose", b"{}")
    assert isinstance(stolen, wire.Result)
    assert msgspec.json.decode(stolen.value)["tenant"] == "rival"
    assert await send(world, "s2", "k-2", "add", b'{"name": "n"}') is not None
    assert await world.total("n") == 2
    assert [(record.tool, record.replayed) for record in await world.broker.end_cell("s2")] == [
        ("counting.whose", False),
        ("counting.add", False),
    ]
    assert [record.tool for record in await world.broker.end_cell(GRANT.session)] == ["counting.whose", "counting.add"]


async def test_one_id_in_a_flood_is_one_write_and_holds_up_nobody(world: World) -> None:
    world.new_broker(calls_per_cell=150)
    await two(world)
    await send(world, "s1", "k-1", "add", b'{"name": "n"}')
    await world.broker.close()
    await next_gateway(world, calls_per_cell=150)
    await world.broker.begin_cell("s2", "c1", resume=True)
    await world.broker.arm(world.path("s2"), OTHER)

    async def flood() -> list[wire.Result | wire.Error | None]:
        return [await send(world, "s1", "k-1", "add", b'{"name": "n"}') for _ in range(50)]

    flooding = [asyncio.create_task(flood()) for _ in range(4)]
    assert isinstance(await send(world, "s2", "k-1", "add", b'{"name": "other"}'), wire.Result)
    answers = [answer for each in await asyncio.gather(*flooding) for answer in each]
    results = {answer.value for answer in answers if isinstance(answer, wire.Result)}
    refused = [answer for answer in answers if isinstance(answer, wire.Error)]
    assert (results, await world.total("n")) == ({b'{"name":"n","total":1}'}, 1)
    assert len(refused) >= 50  # a call that comes again is a call for the cell's budget
    assert {error.type for error in refused} == {"BudgetExceeded"}
    assert [row["occurrence"] for row in await world.rows() if row["session"] == "s1"] == [1]


async def test_ids_of_many_calls_sent_in_another_order_after_a_restart(world: World) -> None:
    """Which write an id was is what the journal says, not what order they come in, nor what they say now."""
    await world.armed("s1")
    for number in range(5):
        await send(world, "s1", f"k-{number}", "add", b'{"name": "n%d"}' % number)
    await world.broker.close()
    await next_gateway(world)
    for number in reversed(range(5)):
        again = await send(world, "s1", f"k-{number}", "add", b'{"name": "n%d"}' % number)
        assert isinstance(again, wire.Result)
        forged = await send(world, "s1", f"k-{number}", "add", b'{"name": "n%d"}' % ((number + 1) % 5))
        assert isinstance(forged, wire.Error)
        assert "another call's" in forged.message
    assert [await world.total(f"n{number}") for number in range(5)] == [1] * 5


@pytest.mark.parametrize(
    "id", ["", "k-1.1", "k 1", "k\x001", "k-1\n", "é", "../k", "k" * 49, "'; DROP TABLE call; --"], ids=ascii
)
async def test_an_id_that_no_kernel_of_ours_gives_closes_its_connection(world: World, id: str) -> None:
    """A dot is of the parts of a batch, which the broker numbers itself."""
    await two(world)
    assert await send(world, "s1", id, "add", b'{"name": "n"}') is None
    assert isinstance(await send(world, "s1", "k-1", "add", b'{"name": "n"}'), wire.Result)
    assert isinstance(await send(world, "s2", "k-1", "add", b'{"name": "other"}'), wire.Result)
    assert await world.total("n") == 1
