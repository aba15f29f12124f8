"""The client's end of a ZeroMQ connection to a kernel (ZMTP 3.0, https://rfc.zeromq.org/spec/23/), on asyncio.

The kernel's end is libzmq. This end is not, because what a kernel sends is hostile until proven otherwise: libzmq
holds a multipart message until its last frame, however many there are, closes the connection for good when one frame
is too large, and ends the process on some broken input. Here a message over the limits is skipped while it arrives,
and the next one is read as if nothing had happened. One process reads all kernels, so this is also the shorter way:
no thread in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_MORE, _LONG, _COMMAND = 1, 2, 4
_RESERVED = 0xF8
_READ_SIZE = 64 * 1024

#: Frames of one message that are read.
MAX_FRAMES = 256
#: Bytes of a command, of which only the handshake has any.
_MAX_COMMAND = 4096


class ProtocolError(Exception):
    """The other end does not speak ZMTP 3 as a kernel does."""


@dataclass(frozen=True)
class Oversized:
    """A message over the limits went by and was skipped. `size` counts its bytes."""

    size: int


def encode_message(parts: Sequence[bytes]) -> bytes:
    """A multipart message as it goes over the wire."""
    last = len(parts) - 1
    return b"".join(_frame(part, _MORE if i < last else 0) for i, part in enumerate(parts))


def _frame(body: bytes, flags: int) -> bytes:
    if len(body) > 255:
        return bytes((flags | _LONG,)) + len(body).to_bytes(8, "big") + body
    return bytes((flags, len(body))) + body


def encode_ready(socket_type: str, identity: bytes) -> bytes:
    """The READY command that follows the greeting."""
    properties = ((b"Socket-Type", socket_type.encode()), (b"Identity", identity))
    body = b"\x05READY" + b"".join(
        bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value for name, value in properties
    )
    return _frame(body, _COMMAND)


class Decoder:
    """Bytes in, messages out. Holds at most one message of `max_message` bytes and `MAX_FRAMES` frames."""

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._buffer = bytearray()
        self._parts: list[bytes] = []
        self._size = 0
        self._skip = 0
        self._skipping = False
        self._last_skipped = False
        self._greeted = False
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether the handshake is over."""
        return self._ready

    def feed(self, data: bytes | memoryview) -> Iterator[list[bytes] | Oversized]:
        """The messages that end in `data`. Raises ProtocolError; the connection is then of no more use."""
        if self._skip:
            gone = min(self._skip, len(data))
            self._skip -= gone
            data = data[gone:]
            if self._skip:
                return
            yield from self._skipped()
        self._buffer += data
        if not self._greeted and not self._greet():
            return
        offset = 0
        while (header := self._header(offset)) is not None:
            flags, size, start = header
            if flags & _COMMAND:
                if size > _MAX_COMMAND:
                    raise ProtocolError(f"a command of {size} bytes")
                if len(self._buffer) < start + size:
                    break
                self._command(bytes(self._buffer[start : start + size]))
                offset = start + size
                continue
            if not self._ready:
                raise ProtocolError("a message before the handshake")
            if not self._admit(size):
                self._last_skipped = not flags & _MORE
                here = min(size, len(self._buffer) - start)
                self._skip = size - here
                offset = start + here
                if self._skip:
                    break
                yield from self._skipped()
                continue
            if len(self._buffer) < start + size:
                break
            self._parts.append(bytes(self._buffer[start : start + size]))
            self._size += size
            offset = start + size
            if not flags & _MORE:
                yield self._parts
                self._parts, self._size = [], 0
        del self._buffer[:offset]

    def _greet(self) -> bool:
        if len(self._buffer) < 64:
            return False
        greeting = self._buffer[:64]
        if greeting[0] != 0xFF or greeting[9] != 0x7F or greeting[10] < 3 or greeting[12:32].rstrip(b"\0") != b"NULL":
            raise ProtocolError("the greeting is not that of a ZMTP 3 peer without security")
        del self._buffer[:64]
        self._greeted = True
        return True

    def _header(self, offset: int) -> tuple[int, int, int] | None:
        """Flags, size and start of the frame at `offset`, or None while its header is not all there."""
        buffer = self._buffer
        if len(buffer) < offset + 2:
            return None
        flags = buffer[offset]
        if flags & _RESERVED:
            raise ProtocolError(f"frame flags {flags:#x}")
        if not flags & _LONG:
            return flags, buffer[offset + 1], offset + 2
        if len(buffer) < offset + 9:
            return None
        return flags, int.from_bytes(buffer[offset + 1 : offset + 9], "big"), offset + 9

    def _admit(self, size: int) -> bool:
        """Whether the next frame may be kept; if not, its message is skipped from here on."""
        if not self._skipping and self._size + size <= self._max_message and len(self._parts) < MAX_FRAMES:
            return True
        self._skipping = True
        self._parts = []
        self._size += size
        return False

    def _skipped(self) -> Iterator[Oversized]:
        """A skipped frame has gone by; if it was its message's last one, reading starts again."""
        if self._last_skipped:
            yield Oversized(self._size)
            self._skipping, self._size = False, 0

    def _command(self, body: bytes) -> None:
        if body.startswith(b"\x05READY"):
            self._ready = True
        elif body.startswith(b"\x05ERROR"):
            raise ProtocolError(f"the peer refused the connection: {body[6:70]!r}")


class Connection(asyncio.BufferedProtocol):
    """One connection. `receive` gets every message, `lost` one sentence when it ends; neither may raise."""

    def __init__(
        self,
        socket_type: str,
        identity: bytes,
        max_message: int,
        receive: Callable[[list[bytes] | Oversized], None],
        lost: Callable[[str], None],
    ) -> None:
        self._decoder = Decoder(max_message)
        self._hello = encode_ready(socket_type, identity)
        # Subscribe to everything; the peer must have said READY before it gets a message.
        self._first = encode_message([b"\x01"]) if socket_type == "SUB" else b""
        self._receive = receive
        self._lost = lost
        self._chunk = bytearray(_READ_SIZE)
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(
        cls,
        path: Path,
        socket_type: str,
        identity: bytes,
        max_message: int,
        receive: Callable[[list[bytes] | Oversized], None],
        lost: Callable[[str], None],
    ) -> Connection:
        """Connect to the unix socket `path` and shake hands. Raises OSError or ProtocolError."""
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_unix_connection(
            lambda: cls(socket_type, identity, max_message, receive, lost), str(path)
        )
        try:
            await connection.ready
        except BaseException:
            transport.abort()
            raise
        return connection

    def send(self, parts: Sequence[bytes]) -> None:
        """Queue a message. After the connection is lost it goes nowhere."""
        if self._transport is not None:
            self._transport.write(encode_message(parts))

    def hold(self, wait: bool) -> None:
        """Stop reading, or go on; messages that have been read already still come."""
        if self._transport is None or self._transport.is_closing():
            return
        if wait and self._transport.is_reading():
            self._transport.pause_reading()
        elif not wait and not self._transport.is_reading():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(_GREETING + self._hello)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._chunk

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for message in self._decoder.feed(memoryview(self._chunk)[:nbytes]):
                self._receive(message)
        except ProtocolError as error:
            self._end(error)
            self.close()
            return
        if self._decoder.ready and not self.ready.done():
            self.ready.set_result(None)
            if self._transport is not None and self._first:
                self._transport.write(self._first)

    def eof_received(self) -> None:
        """The transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end(exc or ConnectionResetError("the kernel closed the connection"))

    def _end(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
        self._lost(str(error))
