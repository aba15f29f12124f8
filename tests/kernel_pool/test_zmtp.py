"""The ZMTP reader: whole messages out of any bytes, bounded memory, and libzmq on the other end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from kernel_pool.zmtp import MAX_FRAMES, Connection, Decoder, Oversized, ProtocolError, encode_message, encode_ready

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
HELLO = GREETING + encode_ready("ROUTER", b"")


def decode(data: bytes, sizes: Iterator[int], max_message: int = 10_000) -> list[list[bytes] | Oversized]:
    """What a decoder makes of `data` when it arrives in pieces of `sizes`."""
    decoder = Decoder(max_message)
    messages: list[list[bytes] | Oversized] = []
    while data:
        size = next(sizes)
        messages += decoder.feed(data[:size])
        data = data[size:]
    return messages


def always(size: int) -> Iterator[int]:
    while True:
        yield size


messages_st = st.lists(st.lists(st.binary(max_size=600), min_size=1, max_size=5), max_size=5)


@given(messages_st, st.integers(1, 5000))
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages: list[list[bytes]], size: int) -> None:
    data = HELLO + b"".join(map(encode_message, messages))
    assert decode(data, always(size)) == messages


@given(messages_st, messages_st, st.integers(1, 5000))
def test_a_message_over_the_limit_is_skipped_and_the_rest_read(
    before: list[list[bytes]], after: list[list[bytes]], size: int
) -> None:
    giant = [b"a" * 300, b"x" * 9_000, b"", b"y" * 9_000, b"end"]
    data = HELLO + b"".join(map(encode_message, [*before, giant, *after]))
    assert decode(data, always(size)) == [*before, Oversized(sum(map(len, giant))), *after]


def test_a_message_of_too_many_frames_is_skipped() -> None:
    data = HELLO + encode_message([b""] * (MAX_FRAMES + 1)) + encode_message([b"next"])
    assert decode(data, always(100)) == [Oversized(0), [b"next"]]


@given(st.binary(max_size=2000), st.integers(1, 500))
def test_garbage_after_the_handshake_is_refused_or_read_never_worse(garbage: bytes, size: int) -> None:
    decoder = Decoder(1000)
    list(decoder.feed(HELLO))
    try:
        for start in range(0, len(garbage), size):
            list(decoder.feed(garbage[start : start + size]))
    except ProtocolError:
        pass


@given(st.binary(min_size=64, max_size=200))
def test_a_peer_without_a_greeting_is_refused(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Decoder(1000).feed(garbage))


def test_a_frame_that_announces_an_absurd_size_takes_no_memory() -> None:
    decoder = Decoder(1000)
    list(decoder.feed(HELLO + b"\x02" + (2**64 - 1).to_bytes(8, "big")))
    for _ in range(100):
        assert list(decoder.feed(bytes(65536))) == []
    assert len(decoder._buffer) == 0


def test_a_message_without_end_takes_no_memory() -> None:
    decoder = Decoder(1000)
    list(decoder.feed(HELLO))
    for _ in range(100):
        list(decoder.feed(b"\x01\xff" + bytes(255)))
    assert len(decoder._buffer) == 0
    assert decoder._parts == []


async def connect(path: Path, kind: str) -> tuple[Connection, asyncio.Queue[list[bytes] | Oversized]]:
    inbox: asyncio.Queue[list[bytes] | Oversized] = asyncio.Queue()
    connection = await Connection.open(path, kind, b"me", 1_000_000, inbox.put_nowait, lambda _: None)
    return connection, inbox


async def test_requests_and_replies_pass_between_us_and_libzmq(tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(f"ipc://{tmp_path}/s")
        connection, inbox = await connect(tmp_path / "s", "DEALER")
        connection.send([b"question", b"x" * 100_000])
        assert await asyncio.to_thread(router.recv_multipart) == [b"me", b"question", b"x" * 100_000]
        router.send_multipart([b"me", b"", b"answer" * 50_000])
        assert await asyncio.wait_for(inbox.get(), 10) == [b"", b"answer" * 50_000]
        connection.close()


async def test_a_giant_from_libzmq_is_skipped_and_the_connection_stays(tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.bind(f"ipc://{tmp_path}/s")
        connection, inbox = await connect(tmp_path / "s", "SUB")
        assert await asyncio.to_thread(publisher.recv) == b"\x01"
        publisher.send_multipart([b"topic", bytes(5_000_000)])
        publisher.send_multipart([b"topic", b"small"])
        assert await asyncio.wait_for(inbox.get(), 10) == Oversized(5_000_005)
        assert await asyncio.wait_for(inbox.get(), 10) == [b"topic", b"small"]
        connection.close()


async def test_the_end_of_a_connection_is_told(tmp_path: Path) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{tmp_path}/s")
    await Connection.open(tmp_path / "s", "DEALER", b"me", 1000, lambda _: None, ended.set_result)
    router.close(linger=0)
    context.term()
    assert await asyncio.wait_for(ended, 10) == "the kernel closed the connection"
