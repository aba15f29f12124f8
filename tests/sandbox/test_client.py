"""The kernel's side of a call: values, threads, interruption, a broker that goes away."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from door_double import HANG_UP, SILENCE, Answer, DoorDouble, Refuse

from kernel_pool.sandbox.client import CONNECTIONS, BrokerClient, CallFailed

OpenDoor = Callable[[Answer], DoorDouble]


def echo(tool: str, args: dict[str, Any]) -> Any:
    return args.get("value")


class Colour(enum.Enum):
    RED = "red"


def client(door: DoorDouble) -> BrokerClient:
    return BrokerClient(str(door.path))


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (np.int64(2**62), 2**62),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Timestamp("2026-01-02T03:04:05"), "2026-01-02T03:04:05"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (decimal.Decimal("12.30"), "12.30"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
        ({"a"}, ["a"]),
        ((1, 2), [1, 2]),
        (10**50, 10**50),
        ("\x00é🛍", "\x00é🛍"),
    ],
)
def test_what_notebooks_have_at_hand_is_a_value(value: object, arrives: object, door: OpenDoor) -> None:
    assert client(door(echo)).call("s.echo", {"value": value}) == arrives


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "echo: nan and inf are no values that a tool takes; use None."),
        ([np.float64("inf")], "echo: nan and inf are no values that a tool takes; use None."),
        (object(), "echo: a object is no value that a tool takes; pass"),
        (pd.DataFrame({"a": [1]}), "echo: a DataFrame is no value that a tool takes"),
        ("\ud800", "echo: a string among the arguments is no valid Unicode (a lone surrogate)."),
        ("x" * (17 * 1024 * 1024), "echo: the arguments take"),
    ],
)
def test_what_is_no_value_is_refused_before_it_goes_out(value: object, said: str, door: OpenDoor) -> None:
    opened = door(echo)
    with pytest.raises(CallFailed) as caught:
        client(opened).call("s.echo", {"value": value})
    assert caught.value.error.message.startswith(said)
    assert caught.value.error.type == "ToolInputError"
    assert opened.calls == []


def test_arguments_that_contain_themselves_are_refused(door: OpenDoor) -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(CallFailed, match="contain themselves"):
        client(door(echo)).call("s.echo", {"value": circle})


def test_an_error_comes_with_all_that_the_broker_said(door: OpenDoor) -> None:
    def refuse(tool: str, args: dict[str, Any]) -> Any:
        raise Refuse("RateLimited", "slow down", tool=tool, retryable=True, hint="wait", data={"retry_after": 2})

    with pytest.raises(CallFailed) as caught:
        client(door(refuse)).call("s.t", {})
    error = caught.value.error
    assert (error.type, error.message, error.tool, error.retryable) == ("RateLimited", "slow down", "s.t", True)
    assert (error.hint, error.data) == ("wait", {"retry_after": 2})


def test_one_thread_keeps_one_connection(door: OpenDoor) -> None:
    opened = door(echo)
    one = client(opened)
    assert [one.call("s.echo", {"value": i}) for i in range(10)] == list(range(10))
    assert opened.connections == 1


def test_nothing_is_opened_before_the_first_call(door: OpenDoor) -> None:
    opened = door(echo)
    client(opened)
    assert opened.connections == 0


def test_many_threads_share_a_bounded_number_of_connections(door: OpenDoor) -> None:
    opened = door(echo)
    one = client(opened)
    with ThreadPoolExecutor(3 * CONNECTIONS) as threads:
        answers = list(threads.map(lambda i: one.call("s.echo", {"value": i}), range(500)))
    assert answers == list(range(500))
    assert opened.most_at_once <= CONNECTIONS


async def test_calls_run_side_by_side_from_async_code(door: OpenDoor) -> None:
    meet = threading.Barrier(3, timeout=20)

    def together(tool: str, args: dict[str, Any]) -> Any:
        meet.wait()
        return args["value"]

    one = client(door(together))
    calls = (asyncio.to_thread(one.call, "s.echo", {"value": i}) for i in range(3))
    assert await asyncio.gather(*calls) == [0, 1, 2]


def test_a_broker_that_is_not_there_is_said(folder: Path) -> None:
    with pytest.raises(CallFailed, match="look: there is no tool broker for this kernel") as caught:
        BrokerClient(str(folder / "none.sock")).call("s.look", {})
    assert caught.value.error.type == "UpstreamError"


def test_a_call_that_loses_its_broker_for_good_fails(door: OpenDoor) -> None:
    opened = door(lambda tool, args: HANG_UP)
    with pytest.raises(CallFailed, match="the connection to the tool broker broke"):
        client(opened).call("s.write", {})
    assert len(opened.calls) == 1
    with pytest.raises(CallFailed, match="the connection to the tool broker broke"):
        BrokerClient(str(opened.path), patience_s=0.3).call("s.write", {})
    assert len(opened.calls) > 3


def test_a_call_is_sent_again_under_its_id_to_the_next_broker(folder: Path) -> None:
    path = folder / "broker.sock"
    first = DoorDouble(path, lambda tool, args: SILENCE)
    one = BrokerClient(str(path), patience_s=60)
    with ThreadPoolExecutor(1) as threads:
        pending = threads.submit(one.call, "s.write", {"value": 1})
        assert first.called.wait(10)
        first.hang_up()
        first.close()
        second = DoorDouble(path, echo)
        assert pending.result(30) == 1
    assert one.call("s.write", {"value": 1}) == 1
    assert first.ids[-1:] == second.ids[:1]
    assert len(set(second.ids)) == 2
    second.close()


def test_a_broker_that_was_there_is_waited_for_before_a_call_too(folder: Path) -> None:
    path = folder / "broker.sock"
    first = DoorDouble(path, echo)
    one = BrokerClient(str(path), patience_s=60)
    one.call("s.echo", {"value": 1})
    first.hang_up()
    first.close()
    with ThreadPoolExecutor(1) as threads:
        pending = threads.submit(one.call, "s.echo", {"value": 2})
        second = DoorDouble(path, echo)
        assert pending.result(30) == 2
    second.close()


def test_an_interrupt_ends_the_wait_for_a_broker(folder: Path) -> None:
    path = folder / "broker.sock"
    opened = DoorDouble(path, lambda tool, args: HANG_UP)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        opened.called.wait()
        opened.close()
        signal.pthread_kill(main, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        BrokerClient(str(path), patience_s=3600).call("s.write", {})
    interrupting.join()


def test_a_kept_connection_whose_broker_went_away_is_replaced(door: OpenDoor) -> None:
    opened = door(echo)
    one = client(opened)
    one.call("s.echo", {"value": 1})
    opened.hang_up()
    assert one.call("s.echo", {"value": 2}) == 2
    assert opened.connections == 2


def test_an_interrupt_tells_the_broker_and_the_next_call_works(door: OpenDoor) -> None:
    opened = door(lambda tool, args: SILENCE if tool == "s.slow" else args["value"])
    one = client(opened)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        opened.called.wait()
        signal.pthread_kill(main, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        one.call("s.slow", {})
    interrupting.join()
    assert opened.cancelled.wait(10)
    assert [id.endswith("-1") for id in opened.cancels] == [True]
    assert one.call("s.echo", {"value": "after"}) == "after"


FORK = """
import os, sys
sys.path.append(sys.argv[1])
from sandbox.client import BrokerClient
client = BrokerClient(sys.argv[2])
print(client.call("s.echo", {"value": "parent"}), flush=True)
if os.fork() == 0:
    print(client.call("s.echo", {"value": "child"}), flush=True)
    os._exit(0)
os.wait()
print(client.call("s.echo", {"value": "parent again"}), flush=True)
"""


def test_a_forked_child_has_connections_of_its_own(door: OpenDoor) -> None:
    opened = door(echo)
    sandbox = Path(__file__).parents[2] / "kernel_pool"
    arguments = [sys.executable, "-I", "-c", FORK, str(sandbox), str(opened.path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.split("\n") == ["parent", "child", "parent again", ""]
    assert opened.connections == 2
    parent, child, again = opened.ids
    assert parent.split("-")[0] == again.split("-")[0] != child.split("-")[0]
    assert len({parent, child, again}) == 3
