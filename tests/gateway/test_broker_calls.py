"""Calls through a session's socket: checked, pinned, journaled, answered."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import counting
import pytest
from broker_world import World

from kernel_pool.sandbox.client import CallFailed
from kernel_pool.sandbox.wire import Error
from servers.errors import BudgetExceeded, ToolDenied, ToolInputError


async def failure(awaitable: Any) -> Error:
    with pytest.raises(CallFailed) as caught:
        await awaitable
    return caught.value.error


async def test_a_call_is_answered_and_journaled(world: World, call: Any) -> None:
    client = await world.armed()
    assert await call(client, "add", name="n", amount=2) == {"name": "n", "total": 2}
    (row,) = await world.rows()
    assert (row["session"], row["cell"], row["tool"], row["state"]) == ("s1", "c1", "counting.add", "applied")
    assert (row["tenant"], row["principal"], row["effect"]) == ("shop", "chat", "write")
    assert json.loads(row["result"]) == {"name": "n", "total": 2}
    assert row["ended"] >= row["started"]


async def test_arguments_are_journaled_sorted_and_with_defaults(world: World, call: Any) -> None:
    client = await world.armed()
    await call(client, "add", name="n")
    (row,) = await world.rows()
    assert list(row["args"].items()) == [("amount", 1), ("name", "n")]


async def test_written_defaults_and_left_out_ones_are_the_same_call(world: World, call: Any) -> None:
    client = await world.armed()
    await call(client, "add", name="n")
    await world.rerun()
    await call(client, "add", amount=1, name="n")
    assert await world.total("n") == 1


async def test_end_of_a_cell_gives_its_calls_in_order(world: World, call: Any) -> None:
    client = await world.armed()
    await call(client, "look", name="n")
    await call(client, "add", name="n")
    await failure(call(client, "add", nam="n"))
    records = await world.broker.end_cell("s1")
    assert [(r.tool, r.state, r.effect) for r in records[:2]] == [
        ("counting.look", "applied", "read"),
        ("counting.add", "applied", "write"),
    ]
    assert records[1].result == {"name": "n", "total": 1}
    assert records[2].state == "failed"
    assert records[2].error is not None
    assert records[2].error["type"] == "ToolInputError"


async def test_results_arrive_and_replay_exactly(world: World, call: Any) -> None:
    client = await world.armed()
    first = await call(client, "exact")
    await world.rerun()
    again = await call(client, "exact")
    for got in (first, again):
        assert repr(got) == repr(counting.EXACT)  # -0.0, 1.0 and 1, key order, lone surrogates
    assert math.copysign(1, again["floats"][3]) == -1


async def test_text_of_arguments_arrives_exactly(world: World, call: Any) -> None:
    client = await world.armed()
    value = {"\x00": "\x00", "é": "🛍", "n": [10**40, 0.1, None, True]}
    assert await call(client, "echo", value=value) == value


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"nam": "x"}, "unknown argument 'nam'; missing argument 'name'. Valid: name*, amount (* required). Did you"),
        ({"name": "x", "amount": "lots"}, "amount is 'lots', which is not int"),
        ({"name": "x", "tenant": "other"}, "the tenant is the session's own and no argument"),
        ({"name": "\ud800"}, "lone surrogate"),
        ({f"a{i}": 1 for i in range(100)}, "100 arguments"),
        ({"x" * 1000: 1}, "longer than"),
    ],
)
async def test_wrong_arguments_are_refused_and_nothing_happens(world: World, args: Any, said: str, call: Any) -> None:
    client = await world.armed()
    error = await failure(call(client, "add", **args))
    assert said in error.message
    assert await world.rows() == []


async def test_an_unknown_tool_is_refused_with_the_likely_one(world: World, call: Any) -> None:
    error = await failure(call(await world.armed(), "lok", name="x"))
    assert error.type == "ToolNotFound"
    assert "Did you mean counting.look?" in error.message


async def test_a_name_of_megabytes_is_refused_without_a_search(world: World, call: Any) -> None:
    error = await failure(call(await world.armed(), "x" * 5_000_000))
    assert error.type == "ToolNotFound"
    assert len(error.message) < 200


async def test_no_cell_no_call(world: World, call: Any) -> None:
    client = await world.armed()
    await world.broker.end_cell("s1")
    error = await failure(call(client, "add", name="n"))
    assert (error.type, await world.total("n")) == ("ToolDenied", 0)


async def test_an_analyst_reads_only(world: World, call: Any) -> None:
    client = await world.armed(role="analyst")
    await call(client, "look", name="n")
    assert (await failure(call(client, "add", name="n"))).type == "ToolDenied"
    assert await world.total("n") == 0


async def test_what_is_critical_waits_for_a_person(world: World, call: Any) -> None:
    assert (await failure(call(await world.armed(), "wipe"))).type == "ApprovalRequired"


async def test_the_socket_says_whose_call_it_is(world: World, call: Any) -> None:
    one = await world.armed("s1", tenant="one")
    two = await world.armed("s2", tenant="two")
    assert await call(one, "whose") == {"tenant": "one", "session": "s1", "customer": None}
    assert await call(two, "whose") == {"tenant": "two", "session": "s2", "customer": None}


async def test_a_customer_is_pinned_once_and_for_later_kernels_too(world: World, call: Any) -> None:
    client = await world.armed()
    await call(client, "verify", customer=7)
    assert (await call(client, "whose"))["customer"] == 7
    assert (await failure(call(client, "verify", customer=8))).type == "ToolDenied"
    await world.broker.close()
    await world.new_broker().begin_cell("s1", "c2")
    grant = counting_grant()
    assert await world.broker.call(grant, "counting.whose", {}) == {"tenant": "shop", "session": "s1", "customer": 7}


def counting_grant() -> Any:
    from gateway.types import Grant

    return Grant(tenant="shop", principal="chat", session="s1", role="agent")


@pytest.mark.parametrize(
    ("how", "kind", "retryable"),
    [
        ("upstream", "UpstreamError", False),
        ("slow down", "RateLimited", True),
        ("denied", "ToolDenied", False),
        ("input", "ToolInputError", False),
        ("shape", "OutputSchemaError", False),
        ("object", "OutputSchemaError", False),
        ("bug", "UpstreamError", False),
    ],
)
async def test_errors_come_as_what_they_are(world: World, how: str, kind: str, retryable: bool, call: Any) -> None:
    error = await failure(call(await world.armed(), "fail", how=how))
    assert (error.type, error.retryable, error.tool) == (kind, retryable, "counting.fail")


async def test_a_bug_is_told_by_reference_and_logged_without_secrets(
    world: World, call: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    error = await failure(call(await world.armed(), "fail", how="bug"))
    assert "RuntimeError" not in error.message
    logged = capsys.readouterr().out
    assert error.data["reference"] in logged
    assert "RuntimeError: could not reach" in logged
    assert "cs_0123" not in logged
    assert "hunter2222" not in logged


async def test_no_secret_is_in_an_error_its_hint_its_data_or_the_journal(world: World, call: Any) -> None:
    error = await failure(call(await world.armed(), "fail", how="upstream"))
    (row,) = await world.rows()
    for text in (repr(error), repr(row)):
        assert "hunter2222" not in text
        assert "[secret]" in text


async def test_no_configured_secret_is_in_a_result(world: World, call: Any) -> None:
    client = await world.armed()
    assert await call(client, "echo", value={"a": "key hunter2222!"}) == {"a": "key [secret]!"}


async def test_parallel_calls_from_threads_all_arrive(world: World, call: Any) -> None:
    client = await world.armed()
    totals = await asyncio.gather(*(call(client, "add", name=f"n{i % 5}") for i in range(40)))
    assert len(totals) == 40
    assert [await world.total(f"n{i}") for i in range(5)] == [8] * 5


async def test_direct_calls_take_the_same_way(world: World) -> None:
    grant = await world.session()
    await world.broker.begin_cell("s1", "direct-1")
    assert await world.broker.call(grant, "counting.add", {"name": "n"}) == {"name": "n", "total": 1}
    with pytest.raises(ToolInputError, match="unknown argument 'nam'"):
        await world.broker.call(grant, "counting.add", {"nam": "n"})
    with pytest.raises(ToolDenied):
        await world.broker.call(grant, "counting.fail", {"how": "denied"})
    assert [r.state for r in await world.broker.end_cell("s1")] == ["applied", "failed", "failed"]


async def test_calls_of_a_cell_are_limited_and_what_was_spent_is_said(world: World, call: Any) -> None:
    world.new_broker(calls_per_cell=3)
    client = await world.armed()
    for _ in range(3):
        await call(client, "look", name="n")
    error = await failure(call(client, "look", name="n"))
    assert error.type == "BudgetExceeded"
    assert error.message == "The budget calls_per_cell of 3 is used up: 3 tool calls in this cell."
    assert error.data["calls_in_cell"] == 3
    assert await world.looks("n") == 3
    await world.rerun("c2")
    await call(client, "look", name="n")


async def test_calls_of_a_session_are_limited_over_a_restart(world: World, call: Any) -> None:
    world.new_broker(calls_per_session=3)
    client = await world.armed()
    for _ in range(3):
        await call(client, "look", name="n")
    assert (await failure(call(client, "look", name="n"))).data["calls_in_session"] == 3
    await world.broker.close()
    await world.new_broker(calls_per_session=3).begin_cell("s1", "c2")
    with pytest.raises(BudgetExceeded, match="calls_per_session"):
        await world.broker.call(counting_grant(), "counting.look", {"name": "n"})


async def test_replayed_calls_use_up_no_session_budget(world: World, call: Any) -> None:
    world.new_broker(calls_per_session=3)
    client = await world.armed()
    for _ in range(3):
        await call(client, "look", name="n")
        await world.rerun()
    await call(client, "add", name="n")
    await call(client, "add", name="m")
    assert await world.looks("n") == 1


async def test_a_result_that_is_too_big_is_refused(world: World, call: Any) -> None:
    world.new_broker(result_mb=1)
    client = await world.armed()
    assert len(await call(client, "big", size=1_000_000)) == 1_000_000
    error = await failure(call(client, "big", size=2_000_000))
    assert (error.type, error.data["result_bytes"]) == ("BudgetExceeded", 2_000_002)


async def test_bytes_of_a_cell_are_limited(world: World, call: Any) -> None:
    world.new_broker(cell_mb=1)
    client = await world.armed()
    await call(client, "big", size=700_000)
    error = await failure(call(client, "big", size=700_001))
    assert (error.type, error.data["budget"]) == ("BudgetExceeded", "cell_mb")


async def test_time_of_a_call_is_limited(world: World, call: Any) -> None:
    world.new_broker(call_timeout_s=0.1)
    error = await failure(call(await world.armed(), "wait_and_look", gate="never"))
    assert (error.type, error.retryable) == ("UpstreamError", True)
    assert "no answer within 0.1 s" in error.message


async def test_time_of_a_cells_calls_is_limited(world: World, call: Any) -> None:
    world.new_broker(seconds_per_cell=1e-9)
    client = await world.armed()
    await call(client, "look", name="n")
    assert (await failure(call(client, "look", name="n"))).data["budget"] == "seconds_per_cell"


async def test_calls_at_once_are_limited_and_the_others_wait(world: World, call: Any) -> None:
    world.new_broker(concurrent_calls=2)
    client = await world.armed()
    calls = [asyncio.create_task(call(client, "wait_and_look", gate=f"g{i}")) for i in range(3)]
    while len(counting.BEGUN) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert len(counting.BEGUN) == 2
    for i in range(3):
        counting.GATES.setdefault(f"g{i}", asyncio.Event()).set()
    assert len(await asyncio.gather(*calls)) == 3


async def test_a_socket_in_a_folder_of_a_group_is_the_groups_too(world: World) -> None:
    path = world.path("contained")
    path.parent.chmod(0o750)
    await world.armed("contained")
    assert path.stat().st_mode & 0o777 == 0o660
    assert path.stat().st_gid == path.parent.stat().st_gid


async def test_a_socket_is_its_folders_owners_alone_and_goes_with_the_session(world: World, call: Any) -> None:
    client = await world.armed()
    path = world.path()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_uid == path.parent.stat().st_uid
    await world.broker.disarm("s1")
    assert not path.exists()
    assert "no tool broker" in (await failure(call(client, "look", name="n"))).message


async def test_a_kernels_old_socket_is_closed_when_the_session_gets_another_kernel(world: World, call: Any) -> None:
    old = await world.armed()
    await call(old, "look", name="n")
    await world.broker.arm(world.path("s1-again"), counting_grant())
    assert (await failure(call(old, "look", name="n"))).type == "UpstreamError"


async def test_a_cell_can_be_ended_after_its_kernel_is_gone(world: World, call: Any) -> None:
    client = await world.armed()
    await call(client, "add", name="n")
    await world.broker.disarm("s1")
    assert [r.tool for r in await world.broker.end_cell("s1")] == ["counting.add"]
    assert await world.broker.end_cell("s1") == ()


async def test_an_observer_sees_every_boundary_and_cannot_break_a_call(world: World, call: Any) -> None:
    seen: list[tuple[str, str]] = []

    async def observer(boundary: str, record: Any) -> None:
        seen.append((boundary, record.state))
        raise RuntimeError("an observer's bug")

    world.observers.append(observer)
    client = await world.armed()
    assert await call(client, "add", name="n") == {"name": "n", "total": 1}
    assert seen == [("before", "executing"), ("sent", "executing"), ("after", "applied")]


async def test_a_call_fails_in_order_when_the_journal_is_gone(world: World, call: Any) -> None:
    client = await world.armed()
    await world.database.execute("ALTER TABLE call RENAME TO gone")
    error = await failure(call(client, "add", name="n"))
    assert (error.type, await world.total("n")) == ("UpstreamError", 0)
