"""One call on one connection: the request out, frames of its answer in. A broken connection is closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Any

import msgspec

from . import wire
from .progress import Shown
from .tables import Unreadable

HEADER_SIZE = wire.HEADER.size
_DECODERS: Mapping[int, msgspec.msgpack.Decoder[Any]] = {
    wire.RESULT: msgspec.msgpack.Decoder(wire.Result),
    wire.ERROR: msgspec.msgpack.Decoder(wire.Error),
    wire.TABLE: msgspec.msgpack.Decoder(wire.Table),
    wire.BATCH: msgspec.msgpack.Decoder(wire.Batch),
    wire.END: msgspec.msgpack.Decoder(wire.End),
    wire.STEP: msgspec.msgpack.Decoder(wire.Step),
}

#: What a broker answers.
Answer = wire.Result | wire.Error | wire.Table | wire.Batch | wire.End


def ask(connection: socket.socket, id: str, request: bytes) -> Answer:
    """Raises OSError where the connection breaks; it is closed then."""
    try:
        connection.sendall(request)
        return read_frame(connection, id)
    except (OSError, Unreadable):
        connection.close()
        raise
    except BaseException:
        abandon(connection, id)
        raise


async def ask_async(connection: socket.socket, id: str, request: bytes) -> Answer:
    """`_ask` on the running loop."""
    loop = asyncio.get_running_loop()

    async def read(size: int) -> bytearray:
        buffer = bytearray(size)
        rest = memoryview(buffer)
        while rest:
            received = await loop.sock_recv_into(connection, rest)
            if not received:
                raise ConnectionResetError("closed by the broker")
            rest = rest[received:]
        return buffer

    try:
        connection.setblocking(False)
        await loop.sock_sendall(connection, request)
        with Shown() as shown:
            while True:
                size, kind = _head(await read(HEADER_SIZE))
                answer = _decode(kind, await read(size), id)
                if not isinstance(answer, wire.Step):
                    break
                shown.step(answer.text)
        connection.setblocking(True)
        return answer
    except (OSError, Unreadable):
        connection.close()
        raise
    except BaseException:
        abandon(connection, id)
        raise


def read_frame(connection: socket.socket, id: str) -> Answer:
    """Its steps are shown, its answer is returned."""
    with Shown() as shown:
        while True:
            size, kind = _head(_read(connection, HEADER_SIZE))
            answer = _decode(kind, _read(connection, size), id)
            if not isinstance(answer, wire.Step):
                return answer
            shown.step(answer.text)


def _head(header: bytearray) -> tuple[int, int]:
    size, kind = wire.HEADER.unpack(header)
    if size > wire.MAX_REPLY:
        raise Unreadable(f"the tool broker sent a reply of {size:,} bytes; the most is {wire.MAX_REPLY:,}")
    return size, kind


def _decode(kind: int, body: bytearray, id: str) -> Answer | wire.Step:
    """Raises Unreadable for what is no answer to this call."""
    try:
        answer: Answer | wire.Step = _DECODERS[kind].decode(body)
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError):
        raise Unreadable("the tool broker sent what cannot be read") from None
    if answer.id != id:
        raise Unreadable("the tool broker answered another call")
    return answer


def _read(connection: socket.socket, size: int) -> bytearray:
    buffer = bytearray(size)
    rest = memoryview(buffer)
    while rest:
        received = connection.recv_into(rest)
        if not received:
            raise ConnectionResetError("closed by the broker")
        rest = rest[received:]
    return buffer


def is_alive(connection: socket.socket) -> bool:
    """An idle connection has nothing to read; one whose broker went away has its end."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def abandon(connection: socket.socket, id: str) -> None:
    with contextlib.suppress(OSError):
        connection.settimeout(1.0)
        connection.sendall(wire.frame(wire.CANCEL, wire.Cancel(id=id)))
    connection.close()
