"""A session's door: the unix socket in its kernel's folder. Which socket a call comes by says whose it is.

What comes in is untrusted. A frame is bounded before it is read (`framed`); what all of a session's calls hold is
bounded; a connection that breaks the protocol is closed and harms only itself.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable, Coroutine
from functools import partial
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
from .flights import Heard
from .framed import SMALL, Framed, Room, Violation
from .looks import Looks
from .one_call import Outcome
from .policy import MIB

log = structlog.get_logger(__name__)

#: Bytes of answers that the system may hold for a kernel, where it lets us: large ones then take few turns.
SENT = 1024 * 1024

#: Seconds that a refused call waits for its answer, so that a loop of them is no load.
REFUSED_PAUSE = 0.05

Frame = TypeVar("Frame", wire.Call, wire.Cancel, wire.Next, wire.Look)

_calls = msgspec.msgpack.Decoder(wire.Call)
_cancels = msgspec.msgpack.Decoder(wire.Cancel)
_nexts = msgspec.msgpack.Decoder(wire.Next)
_looks = msgspec.msgpack.Decoder(wire.Look)


class Answers(Protocol):
    """What is behind a door: `Calls`, or the journal alone."""

    def hear(
        self,
        grant: Grant,
        name: str,
        args: dict[str, Any],
        heard: Heard,
        *,
        size: int,
        request: str,
        parts: Parts | None,
    ) -> Callable[[], object]:
        """Begin a call; `heard` is told what comes of it. Returns what gives it up. Raises ToolError."""
        ...

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
        self._room = Room(2 * settings.request_mb * MIB)
        self._inbox = memoryview(bytearray(SMALL))
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained = False

    async def open(self) -> None:
        """Raises OSError where the folder cannot hold a socket."""
        listener = _listen(self._path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Connection(self), sock=listener, backlog=8)

    async def close(self, *, for_good: bool = True) -> None:
        """No way in any more. Calls under way go on; nobody hears how they end.

        Not `for_good`, the socket stays in its place: a kernel sees that nobody listens there now, and waits.
        """
        if self._server is not None:
            self._server.close()
        if for_good:
            self._path.unlink(missing_ok=True)
        for connection in self._connections:
            connection.drop()

    def _complain(self, violation: Violation) -> None:
        """Once per session: a log is no place for a kernel to write into."""
        if not self._complained:
            self._complained = True
            log.warning("a kernel broke the broker protocol", session=self._grant.session, reason=str(violation))


class _Connection(Framed):
    """One connection: calls in, answers out in any order."""

    def __init__(self, door: Door) -> None:
        settings = door._settings
        super().__init__(door._room, door._inbox, largest=settings.request_mb * MIB, stall_s=settings.stall_s)
        self._door = door
        self._settings = settings
        #: What is not answered, each with what gives it up.
        self._under_way: dict[str, Callable[[], object]] = {}
        self._streams: dict[str, _Parts] = {}
        self._calls = self._cancels = self._batches = self._nexts = 0

    def made(self, transport: Any) -> bool:
        if len(self._door._connections) >= self._settings.connections:
            return False
        self._door._connections.add(self)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT)
        return True

    def refuse(self, violation: Violation) -> None:
        self._door._complain(violation)
        self.drop()

    def gone(self) -> None:
        """Calls under way go on; nobody hears how they end."""
        self._door._connections.discard(self)
        for parts in self._streams.values():
            parts.close()

    def frame(self, kind: int, body: bytes | bytearray, room: int) -> None:
        if kind == wire.CALL:
            call = _decode(_calls, body)
            self._enter(call.id)
            self._call(call, room)
        elif kind == wire.LOOK:
            if len(body) > SMALL:
                raise Violation(f"a question of {len(body)} bytes")
            look = _decode(_looks, body)
            self._enter(look.id)
            self._run(look.id, self._look(look))
        elif kind == wire.CANCEL:
            self._cancels += 1
            if self._cancels > self._calls:
                raise Violation("more cancels than calls")
            if (give_up := self._under_way.get(_decode(_cancels, body).id)) is not None:
                give_up()
            self._room.give(room)
        elif kind == wire.NEXT:
            self._nexts += 1
            if self._nexts > self._batches:
                raise Violation("more credit than batches")
            if (parts := self._streams.get(_decode(_nexts, body).id)) is not None:
                parts.more()
            self._room.give(room)
        else:
            raise Violation(f"a frame of kind {kind}")

    def _enter(self, id: str) -> None:
        """Before anything is done about it."""
        if id in self._under_way or len(self._under_way) >= self._settings.concurrent_calls:
            raise Violation("an id used twice, or too many calls at once on one connection")
        self._calls += 1

    def _call(self, call: wire.Call, room: int) -> None:
        id, size = call.id, len(call.args)
        heard = partial(self._heard, id, call.tool, room)
        try:
            args = parse_arguments(call.args, max_values=self._settings.request_values)
            parts = self._streams[id] = _Parts(self, id)
            leave = self._door._calls.hear(
                self._door._grant, call.tool, args, heard, size=size, request=id, parts=parts
            )
        except Exception as failure:  # noqa: BLE001 - the boundary: a kernel gets an answer whatever happened
            heard(failure)
            return

        def give_up() -> None:
            self._over(id, room)
            leave()

        self._under_way[id] = give_up

    def _heard(self, id: str, tool: str, room: int, outcome: Outcome | Exception) -> None:
        """Answer a call."""
        if isinstance(outcome, BudgetExceeded | ToolDenied):
            later = self._loop.call_later(REFUSED_PAUSE, self._fail, id, tool, room, outcome)

            def give_up() -> None:
                self._over(id, room)
                later.cancel()

            self._under_way[id] = give_up
            return
        if isinstance(outcome, Exception):
            self._fail(id, tool, room, outcome)
            return
        self._over(id, room)
        if outcome.error is not None:
            self.send(wire.frame(wire.ERROR, wire.Error(id=id, **outcome.error)))
        elif outcome.streamed:
            self.send(wire.frame(wire.END, wire.End(id=id)))
        elif outcome.value.table is not None:
            self.send(*wire.frame_parts(wire.TABLE, wire.Table(id=id, data=memoryview(outcome.value.table))))
        else:
            text = outcome.value.text or "null"
            self.send(wire.frame(wire.RESULT, wire.Result(id=id, value=text.encode())))

    def _fail(self, id: str, tool: str, room: int, failure: Exception) -> None:
        self._over(id, room)
        error = self._door._calls.error_body(failure, tool[:200])
        self.send(wire.frame(wire.ERROR, wire.Error(id=id, **error)))

    def _over(self, id: str, room: int) -> None:
        self._under_way.pop(id, None)
        self._streams.pop(id, None)
        self._room.give(room)

    def _run(self, id: str, answer: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(answer)
        self._under_way[id] = task.cancel
        self._door._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._over(id, 0)
            self._door._tasks.discard(task)

        task.add_done_callback(over)

    async def _look(self, look: wire.Look) -> None:
        try:
            value = await self._door._looks.answer(look.what, look.args)
        except Exception as failure:  # noqa: BLE001 - the boundary: a kernel gets an answer whatever happened
            error = self._door._calls.error_body(failure, "")
            self.send(wire.frame(wire.ERROR, wire.Error(id=look.id, **error)))
        else:
            self.send(wire.frame(wire.FOUND, wire.Found(id=look.id, value=value)))

    async def batch(self, id: str, part: Value) -> None:
        """Send one part of a result that streams. How fast its reader is is his own affair: it costs him no more than
        the memory of a few parts, and the cell has a deadline."""
        table = part.table is not None
        data = part.table if part.table is not None else (part.text or "null").encode()
        self._batches += 1
        self.write(*wire.frame_parts(wire.BATCH, wire.Batch(id=id, arrow=table, data=memoryview(data))))
        await self.drained()

    def step(self, id: str, text: str) -> None:
        if not self.full:
            self.write(wire.frame(wire.STEP, wire.Step(id=id, text=text)))


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

    def step(self, text: str) -> None:
        """Left out where the reader has not taken what was sent so far."""
        if not self._closed:
            self._connection.step(self._id, text)

    def more(self) -> None:
        self._credit.release()

    def close(self) -> None:
        """The connection is gone."""
        self._closed = True
        self._credit.release()


def _decode(decoder: msgspec.msgpack.Decoder[Frame], body: bytes | bytearray) -> Frame:
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
