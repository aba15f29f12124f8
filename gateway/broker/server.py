"""A session's door: the unix socket in its kernel's folder. Which socket a call comes by says whose it is.

What comes in is untrusted. A frame is bounded before it is read; what all of a session's calls hold is bounded; a
connection that breaks the protocol is closed and harms only itself; a kernel that does not read its answers is
cut off; and after each frame the event loop serves the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from gateway.settings import BrokerSettings
from gateway.types import Grant
from kernel_pool.sandbox import wire
from servers.errors import BudgetExceeded, ToolDenied

from .attempt import Parts, ReaderGone, Value
from .canonical import parse_arguments
from .errors import ErrorBody
from .looks import Looks
from .one_call import Outcome
from .policy import MIB

log = structlog.get_logger(__name__)

#: Frames up to this size, in bytes, need no room of the session's share.
SMALL = 64 * 1024

#: Bytes of answers that the system may hold for a kernel, where it lets us: large ones then take few turns.
SENT = 1024 * 1024

#: Seconds that a refused call waits for its answer, so that a loop of them is no load.
REFUSED_PAUSE = 0.05

Frame = TypeVar("Frame", wire.Call, wire.Cancel, wire.Next, wire.Look)

_calls = msgspec.msgpack.Decoder(wire.Call)
_cancels = msgspec.msgpack.Decoder(wire.Cancel)
_nexts = msgspec.msgpack.Decoder(wire.Next)
_looks = msgspec.msgpack.Decoder(wire.Look)


class Violation(Exception):
    """The peer broke the protocol; our own client never does."""


class Answers(Protocol):
    """What is behind a door: `Calls`, or the journal alone."""

    async def call(
        self, grant: Grant, name: str, args: dict[str, Any], *, size: int, request: str, parts: Parts | None
    ) -> Outcome: ...

    @property
    def error_body(self) -> Callable[[Exception, str], ErrorBody]: ...


class Door:
    """One listening socket and its connections."""

    def __init__(self, path: Path, grant: Grant, calls: Answers, looks: Looks, settings: BrokerSettings) -> None:
        self._path = path
        self._grant = grant
        self._calls = calls
        self._looks = looks
        self._settings = settings
        self._room = _Room(2 * settings.request_mb * MIB)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._answers: set[asyncio.Task[None]] = set()
        self._complained = self._closing = False

    async def open(self) -> None:
        """Raises OSError where the folder cannot hold a socket."""
        listener = _listen(self._path)
        self._server = await asyncio.start_unix_server(self._connected, sock=listener, limit=SMALL, backlog=8)

    async def close(self, *, for_good: bool = True) -> None:
        """No way in any more. Calls under way go on; nobody hears how they end.

        Not `for_good`, the socket stays in its place: a kernel sees that nobody listens there now, and waits.
        """
        self._closing = True
        if self._server is not None:
            self._server.close()
        if for_good:
            self._path.unlink(missing_ok=True)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if len(self._connections) >= self._settings.connections or task is None:
            writer.transport.abort()
            return
        self._connections.add(task)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT)
        try:
            await _Connection(self, reader, writer).serve()
        except Violation as violation:
            self._complain(violation)
        except (OSError, EOFError, TimeoutError):
            pass  # the kernel went away, or stopped in the middle of a frame
        except asyncio.CancelledError:
            if not self._closing:  # else it is `close`, and asyncio would report the task as failed
                raise
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    def _complain(self, violation: Violation) -> None:
        """Once per session: a log is no place for a kernel to write into."""
        if not self._complained:
            self._complained = True
            log.warning("a kernel broke the broker protocol", session=self._grant.session, reason=str(violation))


class _Connection:
    """One connection: frames in, answers out in any order."""

    def __init__(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._door = door
        self._settings = door._settings
        self._reader = reader
        self._writer = writer
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._streams: dict[str, _Parts] = {}
        self._calls = self._cancels = self._batches = self._nexts = 0

    async def serve(self) -> None:
        """Until the peer closes. Raises Violation, OSError, TimeoutError."""
        try:
            await self._serve()
        finally:
            for parts in self._streams.values():
                parts.close()

    async def _serve(self) -> None:
        while header := await self._header():
            size, kind = header
            if size > self._settings.request_mb * MIB:
                raise Violation(f"a frame of {size} bytes")
            room = size if size > SMALL else 0
            await self._door._room.take(room)
            try:
                async with asyncio.timeout(self._settings.stall_s):
                    body = await self._reader.readexactly(size)
                self._dispatch(kind, body, room)
            except BaseException:
                self._door._room.give(room)
                raise
            await asyncio.sleep(0)

    async def _header(self) -> tuple[int, int] | None:
        try:
            size, kind = wire.HEADER.unpack(await self._reader.readexactly(wire.HEADER.size))
        except asyncio.IncompleteReadError:
            return None
        return size, kind

    def _dispatch(self, kind: int, body: bytes, room: int) -> None:
        """Start what the frame asks for; from then on the task answers for `room`."""
        if kind == wire.CALL:
            call = _decode(_calls, body)
            self._begin(call.id, room)(self._answer(call))
        elif kind == wire.LOOK:
            if len(body) > SMALL:
                raise Violation(f"a question of {len(body)} bytes")
            look = _decode(_looks, body)
            self._begin(look.id, room)(self._look(look))
        elif kind == wire.CANCEL:
            self._cancels += 1
            if self._cancels > self._calls:
                raise Violation("more cancels than calls")
            if (running := self._under_way.get(_decode(_cancels, body).id)) is not None:
                running.cancel()
            self._door._room.give(room)
        elif kind == wire.NEXT:
            self._nexts += 1
            if self._nexts > self._batches:
                raise Violation("more credit than batches")
            if (parts := self._streams.get(_decode(_nexts, body).id)) is not None:
                parts.more()
            self._door._room.give(room)
        else:
            raise Violation(f"a frame of kind {kind}")

    def _begin(self, id: str, room: int) -> Callable[[Coroutine[Any, Any, None]], None]:
        """What runs an answer; asked for first, so that none is made for a request that breaks the protocol."""
        if id in self._under_way or len(self._under_way) >= self._settings.concurrent_calls:
            raise Violation("an id used twice, or too many calls at once on one connection")
        self._calls += 1

        def run(answer: Coroutine[Any, Any, None]) -> None:
            task = asyncio.create_task(answer)
            self._under_way[id] = task
            self._door._answers.add(task)
            task.add_done_callback(lambda done: self._answered(id, done, room))

        return run

    def _answered(self, id: str, task: asyncio.Task[None], room: int) -> None:
        self._under_way.pop(id, None)
        self._streams.pop(id, None)
        self._door._answers.discard(task)
        self._door._room.give(room)

    async def _answer(self, call: wire.Call) -> None:
        grant, calls = self._door._grant, self._door._calls
        outcome: Outcome | None
        try:
            args = parse_arguments(call.args, max_values=self._settings.request_values)
            parts = self._streams[call.id] = _Parts(self, call.id)
            outcome = await calls.call(grant, call.tool, args, size=len(call.args), request=call.id, parts=parts)
            error = outcome.error
        except Exception as failure:  # noqa: BLE001 - the boundary: a kernel gets an answer whatever happened
            outcome, error = None, calls.error_body(failure, call.tool[:200])
            if isinstance(failure, BudgetExceeded | ToolDenied):
                await asyncio.sleep(REFUSED_PAUSE)
        if outcome is None or error is not None:
            await self._send(wire.frame(wire.ERROR, wire.Error(id=call.id, **(error or {}))))
        elif outcome.streamed:
            await self._send(wire.frame(wire.END, wire.End(id=call.id)))
        elif outcome.value.table is not None:
            table = wire.Table(id=call.id, data=memoryview(outcome.value.table))
            await self._send(*wire.frame_parts(wire.TABLE, table))
        else:
            text = outcome.value.text or "null"
            await self._send(wire.frame(wire.RESULT, wire.Result(id=call.id, value=text.encode())))

    async def _look(self, look: wire.Look) -> None:
        try:
            value = await self._door._looks.answer(look.what, look.args)
        except Exception as failure:  # noqa: BLE001 - the boundary: a kernel gets an answer whatever happened
            error = self._door._calls.error_body(failure, "")
            await self._send(wire.frame(wire.ERROR, wire.Error(id=look.id, **error)))
        else:
            await self._send(wire.frame(wire.FOUND, wire.Found(id=look.id, value=value)))

    async def batch(self, id: str, part: Value) -> None:
        """Send one part of a result that streams. How fast its reader is is his own affair: it costs him no more than
        the memory of a few parts, and the cell has a deadline."""
        table = part.table is not None
        data = part.table if part.table is not None else (part.text or "null").encode()
        self._batches += 1
        try:
            for piece in wire.frame_parts(wire.BATCH, wire.Batch(id=id, arrow=table, data=memoryview(data))):
                self._writer.write(piece)
            await self._writer.drain()
        except OSError:
            raise ReaderGone from None

    async def _send(self, *frame: bytes | memoryview) -> None:
        """A kernel that takes no answer in time is cut off; its calls are journaled all the same."""
        with contextlib.suppress(OSError):
            for piece in frame:
                self._writer.write(piece)
            if not self._writer.transport.get_write_buffer_size():
                return
            try:
                async with asyncio.timeout(self._settings.stall_s):
                    await self._writer.drain()
            except TimeoutError:
                self._writer.transport.abort()


class _Parts:
    """`attempt.Parts` of one call on a connection: as many batches as its kernel has given credit for."""

    def __init__(self, connection: _Connection, id: str) -> None:
        self._connection = connection
        self._id = id
        self._credit = asyncio.Semaphore(wire.WINDOW)
        self._closed = False

    async def put(self, part: Value) -> None:
        await self._credit.acquire()
        if self._closed:
            raise ReaderGone
        await self._connection.batch(self._id, part)

    def more(self) -> None:
        self._credit.release()

    def close(self) -> None:
        """The connection is gone."""
        self._closed = True
        self._credit.release()


class _Room:
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


def _decode(decoder: msgspec.msgpack.Decoder[Frame], body: bytes) -> Frame:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Violation(f"a frame that cannot be read: {error}") from None


def _listen(path: Path) -> socket.socket:
    """A socket that the kernel alone can reach: the folder belongs to its user or, in a container, to its group.

    It takes the place of one that an earlier gateway left; a kernel that waits for its broker sees no gap.
    """
    made = path.with_suffix(".new")
    made.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(made))
        folder = path.parent.stat()
        made.chmod(0o660 if folder.st_mode & (stat.S_IXGRP | stat.S_IXOTH) == stat.S_IXGRP else 0o600)
        if os.geteuid() == 0:
            os.chown(made, folder.st_uid, folder.st_gid, follow_symlinks=False)
        listener.listen(8)
        made.rename(path)
    except BaseException:
        listener.close()
        made.unlink(missing_ok=True)
        raise
    return listener
