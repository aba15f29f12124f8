"""One connection of a kernel: frames in, one a turn of the event loop; answers out, as fast as their reader takes them.

What comes in is untrusted: a frame is bounded before it is read, what is large waits until the session has room for it,
what stops in the middle is given up, and who does not take his answers is not read on, and then cut off.

The event loop calls this directly: a stream reader and a task for each call cost a small one a third of its time.
"""

from __future__ import annotations

import asyncio
from typing import Any

from kernel_pool.sandbox import wire

from .attempt import ReaderGone

#: Frames up to this size, in bytes, need no room of the session's share.
SMALL = 64 * 1024


class Violation(Exception):
    """The peer broke the protocol; our own client never does."""


class Room:
    """Bytes that a session's large requests may hold together; who finds no room waits, and others with him."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: list[asyncio.Future[None]] = []

    async def take(self, size: int) -> None:
        while size > self._free:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._free -= size

    def give(self, size: int) -> None:
        self._free += size
        if size:
            for turn in self._waiting:
                if not turn.done():
                    turn.set_result(None)
            self._waiting.clear()


class Framed(asyncio.BufferedProtocol):
    """The framing. `frame`, `made`, `refuse` and `gone` are the subclass's."""

    def __init__(self, room: Room, inbox: memoryview, *, largest: int, stall_s: float) -> None:
        """`inbox`: where what arrives is put first, shared by connections of one event loop. `largest`: bytes of a
        frame. `stall_s`: how long a frame may take, and its reader to take an answer."""
        self._room = room
        self._inbox = inbox
        self._largest = largest
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        #: What has come of small frames, and of a large one.
        self._small = bytearray()
        self._large: bytearray | None = None
        self._filled = self._kind = 0
        #: The next frame waits for a turn of the event loop, or for room.
        self._held = False
        self._waits: asyncio.Task[None] | None = None
        self._stalled: asyncio.TimerHandle | None = None
        #: More is written than the reader has taken.
        self._full = False
        self._untaken: asyncio.TimerHandle | None = None
        self._drained: list[asyncio.Future[None]] = []

    def made(self, transport: Any) -> bool:
        """False: it is one too many."""
        raise NotImplementedError

    def frame(self, kind: int, body: bytes | bytearray, room: int) -> None:
        """A whole frame; from now on the subclass answers for `room`. Raises Violation."""
        raise NotImplementedError

    def refuse(self, violation: Violation) -> None:
        raise NotImplementedError

    def gone(self) -> None:
        """The connection is over."""
        raise NotImplementedError

    def drop(self) -> None:
        """End it; what was not sent is not."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def full(self) -> bool:
        """More is written than the reader has taken."""
        return self._full

    def write(self, *pieces: bytes | memoryview) -> None:
        if self._transport is not None and not self._transport.is_closing():
            for piece in pieces:
                self._transport.write(piece)

    def send(self, *pieces: bytes | memoryview) -> None:
        """An answer. A kernel that takes none in time is cut off; its calls are journaled all the same."""
        self.write(*pieces)
        if self._full and self._untaken is None:
            self._untaken = self._loop.call_later(self._stall_s, self.drop)
            self._read_on()

    async def drained(self) -> None:
        """There is room for more. Raises ReaderGone."""
        if self._transport is None:
            raise ReaderGone
        if self._full:
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._drained.append(waiting)
            await waiting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # of a socket: it reads and writes
        if not self.made(transport):
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for timer in (self._stalled, self._untaken):
            if timer is not None:
                timer.cancel()
        if self._waits is not None:
            self._waits.cancel()
        if self._large is not None:
            self._room.give(len(self._large))
            self._large = None
        for waiting in self._drained:
            if not waiting.done():
                waiting.set_exception(ReaderGone())
        self.gone()

    def eof_received(self) -> bool:
        self.drop()
        return False

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None
            self._read_on()
        for waiting in self._drained:
            if not waiting.done():
                waiting.set_result(None)
        self._drained.clear()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._inbox if self._large is None else memoryview(self._large)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._large is None:
            self._small += self._inbox[:nbytes]
            self._next()
            return
        self._filled += nbytes
        self._end_large()

    def _next(self) -> None:
        """Take the next frame, where it is here."""
        small, head = self._small, wire.HEADER.size
        if self._held or len(small) < head:
            return
        size, kind = wire.HEADER.unpack_from(small)
        if size > self._largest:
            self.refuse(Violation(f"a frame of {size} bytes"))
        elif size > SMALL:
            self._hold(True)
            self._waits = self._loop.create_task(self._begin_large(size, kind))
        elif len(small) < head + size:
            self._watch()
        else:
            body = bytes(small[head : head + size])
            del small[: head + size]
            self._take(kind, body, 0)

    def _take(self, kind: int, body: bytes | bytearray, room: int) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        if self._small:  # the others first
            self._hold(True)
            self._loop.call_soon(self._turn)
        try:
            self.frame(kind, body, room)
        except Violation as violation:
            self._room.give(room)
            self.refuse(violation)

    def _turn(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._hold(False)
            self._next()

    async def _begin_large(self, size: int, kind: int) -> None:
        await self._room.take(size)
        come = self._small[wire.HEADER.size : wire.HEADER.size + size]
        del self._small[: wire.HEADER.size + len(come)]
        self._large, self._kind, self._filled = bytearray(size), kind, len(come)
        self._large[: len(come)] = come
        self._waits = None
        self._hold(False)
        self._watch()
        self._end_large()

    def _end_large(self) -> None:
        if self._large is not None and self._filled == len(self._large):
            body, self._large = self._large, None
            self._take(self._kind, body, len(body))

    def _watch(self) -> None:
        """The rest of the frame is to come in time."""
        if self._stalled is None:
            self._stalled = self._loop.call_later(self._stall_s, self.drop)

    def _hold(self, held: bool) -> None:
        self._held = held
        self._read_on()

    def _read_on(self) -> None:
        """Or not."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._held or self._untaken is not None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
