"""What a kernel may send: nothing of it harms the broker, another session, or more than its own connection."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import counting
import msgspec
import pytest
from broker_world import World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.broker.canonical import canonical, decode_result, encode_result, parse_arguments
from kernel_pool.sandbox import wire
from kernel_pool.sandbox.client import BrokerClient, CallFailed
from servers.errors import ToolInputError


def frame(kind: int, body: bytes, size: int | None = None) -> bytes:
    return struct.pack("<IB", len(body) if size is None else size, kind) + body


def call_frame(id: int = 1, tool: str = "counting.look", args: bytes = b'{"name": "n"}') -> bytes:
    return wire.frame(wire.CALL, wire.Call(id=str(id), tool=tool, args=args))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.builds(lambda id, tool, args: msgspec.msgpack.encode({"id": id, "tool": tool, "args": args}),
              st.integers(-(2**63), 2**64 - 1) | st.text(max_size=60), st.text(max_size=20), st.binary(max_size=50)),
    st.builds(lambda what, args: msgspec.msgpack.encode({"id": "7", "what": what, "args": json.dumps(args).encode()}),
              st.sampled_from(["servers", "server", "tool", "pyi", "search"]) | st.text(max_size=20), json_values
              | st.dictionaries(st.sampled_from(["name", "query", "limit", "after"]), json_values)),
    st.builds(lambda id, value: msgspec.msgpack.encode({"id": id, "tool": "counting.echo",
                                                        "args": json.dumps({"value": value}).encode()}),
              st.sampled_from(["0", "1", "2"]), json_values),
)  # fmt: skip
frames = st.builds(
    frame,
    st.sampled_from([wire.CALL, wire.CANCEL, wire.RESULT, wire.ERROR, wire.LOOK, wire.FOUND, 0, 255]),
    bodies,
    st.none() | st.integers(0, 2**32 - 1),
)
streams = st.lists(frames | st.just(call_frame()), min_size=1, max_size=6).map(b"".join)


class Gateway:
    """A world in a thread of its own, so that a synchronous test can talk to it."""

    def __init__(self, world: World, loop: asyncio.AbstractEventLoop) -> None:
        self.world = world
        self.loop = loop

    def attack(self, data: bytes) -> None:
        """Send, then leave without waiting for an answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.world.path("bad")))
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(10)
                while connection.recv(65536):
                    pass
            except OSError:
                pass


@pytest.fixture
async def two_sessions(world: World) -> World:
    """One that misbehaves, one that must not notice."""
    world.new_broker(calls_per_cell=10**9, calls_per_session=10**9, stall_s=0.5)
    await world.armed("bad")
    await world.armed("good")
    return world


@contextmanager
def watched(loop: asyncio.AbstractEventLoop) -> Iterator[list[dict[str, Any]]]:
    """What the event loop would only have logged: exceptions that nobody took."""
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    yield problems
    loop.set_exception_handler(None)


async def test_no_stream_of_bytes_harms_the_broker_or_another_session(two_sessions: World) -> None:
    world = two_sessions
    gateway = Gateway(world, asyncio.get_running_loop())
    good = BrokerClient(str(world.path("good")))

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(streams)
    def attack(data: bytes) -> None:
        gateway.attack(data)
        assert good.call("counting.echo", {"value": 1}) == 1

    with watched(gateway.loop) as problems:
        await asyncio.to_thread(attack)
    assert problems == []
    again = BrokerClient(str(world.path("bad")))
    assert await asyncio.to_thread(again.call, "counting.echo", {"value": 2}) == 2


async def closed_by_broker(world: World, data: bytes, session: str = "bad") -> bool:
    reader, writer = await asyncio.open_unix_connection(world.path(session))
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(1), 10) == b""
    except ConnectionError:
        return True
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        frame(wire.CALL, b"", 2**32 - 1),
        frame(wire.CALL, b"", 16 * 1024 * 1024 + 1),
        wire.frame(wire.LOOK, wire.Look(id="1", what="search", args=b" " * 65_536)),
        frame(wire.LOOK, msgspec.msgpack.encode({"id": "1", "what": "servers", "tenant": "other"})),
        frame(wire.CALL, b"\x80"),
        frame(wire.CALL, b"\xc1"),
        frame(wire.CALL, b"\x91" * 100_000),
        frame(wire.RESULT, b"\x80"),
        frame(99, b""),
        wire.frame(wire.CANCEL, wire.Cancel(id="1")),
        frame(wire.CALL, msgspec.msgpack.encode({"id": "1", "tool": "x", "args": b"{}", "tenant": "other"})),
        frame(wire.CALL, msgspec.msgpack.encode({"id": 1, "tool": "x", "args": b"{}"})),
        *(
            frame(wire.CALL, msgspec.msgpack.encode({"id": id, "tool": "x", "args": b"{}"}))
            for id in ("", "x" * 49, "a\0b", "1\n", "\N{SNOWMAN}")
        ),
        call_frame(args=b'{"gate": "g"}', tool="counting.wait_and_look") * 2,
    ],
    ids=[
        "endless",
        "too big",
        "a long question",
        "a question with more",
        "no fields",
        "no msgpack",
        "nested",
        "answer",
        "kind",
        "cancel",
        "field",
        "type",
        "no id",
        "long id",
        "NUL",
        "line",
        "other letters",
        "same id",
    ],
)
async def test_a_broken_frame_closes_its_connection_and_no_other(two_sessions: World, data: bytes) -> None:
    assert await closed_by_broker(two_sessions, data)
    for session in ("bad", "good"):
        client = BrokerClient(str(two_sessions.path(session)))
        assert await asyncio.to_thread(client.call, "counting.echo", {"value": 1}) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"value": ' + b"[" * 900 + b"]" * 900 + b"}", ""),
        (b"[" + b"[]," * 300_000 + b"[]]", "more than 200,000 values"),
        (b'{"value": ' + b"9" * 5000 + b"}", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"\xff\xfe{\x00}\x00", "no JSON object"),
        (b'{"value": NaN}', "nan and inf"),
        (b'{"value": 1e999}', "nan and inf"),
        (b'{"value": "\\ud800"}', "lone surrogate"),
        (b'{"vlaue": {"' + b"a" * 1_000_000 + b'": 1}}', "Did you mean value?"),
    ],
)
async def test_arguments_made_to_hurt_get_an_error(two_sessions: World, args: bytes, said: str) -> None:
    reader, writer = await asyncio.open_unix_connection(two_sessions.path("bad"))
    writer.write(call_frame(tool="counting.echo", args=args))
    size, kind = wire.HEADER.unpack(await reader.readexactly(5))
    body = await reader.readexactly(size)
    writer.close()
    if said:
        assert kind == wire.ERROR
        error = msgspec.msgpack.decode(body, type=wire.Error)
        assert said in error.message
        assert len(error.message) < 2000


async def test_a_frame_that_never_ends_is_given_up(two_sessions: World) -> None:
    assert await closed_by_broker(two_sessions, frame(wire.CALL, b"x" * 10, 1000))


async def test_half_frames_on_many_connections_hold_no_memory_and_nobody_up(two_sessions: World) -> None:
    open_ones = [await asyncio.open_unix_connection(two_sessions.path("bad")) for _ in range(20)]
    for _, writer in open_ones:
        writer.write(frame(wire.CALL, b"x", 16 * 1024 * 1024))
    good = BrokerClient(str(two_sessions.path("good")))
    assert await asyncio.to_thread(good.call, "counting.echo", {"value": 1}) == 1
    bad = BrokerClient(str(two_sessions.path("bad")))
    assert await asyncio.to_thread(bad.call, "counting.echo", {"value": 1}) == 1
    for reader, writer in open_ones:
        assert await asyncio.wait_for(reader.read(1), 30) == b""
        writer.close()


async def test_a_connection_too_many_is_closed(two_sessions: World) -> None:
    world = two_sessions
    world.new_broker(connections=2)
    await world.armed("narrow")
    kept = [await asyncio.open_unix_connection(world.path("narrow")) for _ in range(2)]
    assert await closed_by_broker(world, call_frame(), "narrow")
    for reader, writer in kept:
        writer.write(call_frame())
        assert await reader.readexactly(5)
        writer.close()


async def test_descriptors_that_come_with_a_frame_are_not_kept(two_sessions: World) -> None:
    """A message may bring open files (SCM_RIGHTS); nobody here asked for any."""
    before = len(os.listdir("/proc/self/fd"))
    pipe = os.pipe()
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(str(two_sessions.path("bad")))
        for id in range(50):
            call = call_frame(id, "counting.echo", b'{"value": 1}')
            await asyncio.to_thread(socket.send_fds, door, [call], [pipe[0]] * 200)
            assert await asyncio.to_thread(door.recv, 4096)
        os.close(pipe[0])
        good = BrokerClient(str(two_sessions.path("good")))
        assert await asyncio.to_thread(good.call, "counting.echo", {"value": 1}) == 1
        with pytest.raises(BrokenPipeError):  # the reading end is in nobody's hands
            await asyncio.to_thread(_write_until_it_breaks, pipe[1])
        assert len(os.listdir("/proc/self/fd")) <= before + 6
    os.close(pipe[1])


def _write_until_it_breaks(fd: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        os.write(fd, b"x")
        time.sleep(0.05)


async def test_a_flood_of_connections_does_not_starve_another_session(two_sessions: World) -> None:
    path, stop = str(two_sessions.path("bad")), threading.Event()
    made = []

    def flood() -> None:
        while not stop.is_set():
            with socket.socket(socket.AF_UNIX) as door, suppress(OSError):
                door.setblocking(False)
                door.connect(path)
                made.append(1)

    flooding = [asyncio.create_task(asyncio.to_thread(flood)) for _ in range(3)]
    good = BrokerClient(str(two_sessions.path("good")))
    for _ in range(30):
        assert await asyncio.to_thread(good.call, "counting.echo", {"value": 1}) == 1
    stop.set()
    await asyncio.gather(*flooding)
    assert len(made) > 30
    bad = BrokerClient(path)
    assert await asyncio.to_thread(bad.call, "counting.echo", {"value": 1}) == 1


@pytest.mark.parametrize(
    "more", [{"tenant": "other"}, {"session": "good"}, {"role": "ops"}, {"grant": {"tenant": "x"}}]
)
async def test_whose_call_it_is_cannot_be_said_in_the_call(two_sessions: World, more: dict[str, Any]) -> None:
    """Not as a field of the frame, and not among the arguments."""
    field = frame(
        wire.CALL, msgspec.msgpack.encode({"id": 1, "tool": "counting.look", "args": b'{"name": "n"}', **more})
    )
    assert await closed_by_broker(two_sessions, field)
    bad = BrokerClient(str(two_sessions.path("bad")))
    with pytest.raises(CallFailed, match=r"no argument|unexpected|does not take|[Uu]nknown"):
        await asyncio.to_thread(bad.call, "counting.look", {"name": "n", **more})
    assert {row["session"] for row in await two_sessions.rows()} <= {"bad"}


async def test_a_kernel_that_takes_no_answers_is_cut_off_and_holds_up_nobody(two_sessions: World) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(two_sessions.path("bad")))
        for id in range(8):
            deaf.sendall(call_frame(id, "counting.big", b'{"size": 3000000}'))
        good = BrokerClient(str(two_sessions.path("good")))
        assert await asyncio.to_thread(good.call, "counting.echo", {"value": 1}) == 1
        hung_up = select.poll()
        hung_up.register(deaf, 0)
        assert await asyncio.to_thread(hung_up.poll, 20_000) == [(deaf.fileno(), select.POLLHUP)]


async def test_answers_come_in_any_order_on_one_connection(two_sessions: World) -> None:
    reader, writer = await asyncio.open_unix_connection(two_sessions.path("bad"))
    writer.write(
        call_frame(1, "counting.wait_and_look", b'{"gate": "g"}') + call_frame(2, "counting.echo", b'{"value": 5}')
    )
    _, body = await read(reader)
    assert msgspec.msgpack.decode(body, type=wire.Result) == wire.Result(id="2", value=b"5")
    counting.GATES["g"].set()
    _, body = await read(reader)
    assert msgspec.msgpack.decode(body, type=wire.Result).id == "1"
    writer.close()


async def read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    size, kind = wire.HEADER.unpack(await reader.readexactly(5))
    return kind, await reader.readexactly(size)


async def test_a_flood_of_refused_calls_does_not_starve_another_session(world: World) -> None:
    world.new_broker(calls_per_cell=5)
    bad, good = await world.armed("bad"), await world.armed("good")
    stop = threading.Event()
    refused: list[str] = []

    def flood() -> None:
        while not stop.is_set():
            try:
                bad.call("counting.look", {"name": "n"})
            except CallFailed as failed:
                refused.append(failed.error.type)

    flooding = [asyncio.create_task(asyncio.to_thread(flood)) for _ in range(4)]
    while len(refused) < 10:
        await asyncio.to_thread(good.call, "counting.echo", {"value": 1})
        await world.rerun("c2", "good")
    stop.set()
    await asyncio.gather(*flooding)
    assert set(refused) == {"BudgetExceeded"}
    assert await world.looks("n") == 5


@given(json_values)
def test_results_are_the_same_after_the_journal(value: Any) -> None:
    assert repr(decode_result(encode_result("t", value))) == repr(value)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_canonical_text_does_not_depend_on_order(args: dict[str, Any]) -> None:
    backwards = dict(reversed(args.items()))
    try:
        text, digest = canonical(args)
    except ToolInputError:
        with pytest.raises(ToolInputError):
            canonical(backwards)
    else:
        assert canonical(backwards) == (text, digest)
        assert parse_arguments(text.encode(), max_values=10**6) == args


@given(st.binary(max_size=300))
def test_parsing_arguments_raises_nothing_else(data: bytes) -> None:
    with suppress(ToolInputError):
        assert isinstance(parse_arguments(data, max_values=50), dict)
