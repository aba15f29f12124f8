"""Calls from a kernel to its broker: from any thread, or awaited, over a few kept connections.

A connection carries one call at a time. On Ctrl-C in the middle of a call, or when the task that awaits it is
cancelled, the broker is told (CANCEL), the connection is given up, because its stream is out of step, and the exception
goes on.

A broker that goes away in the middle of a call is waited for: the gateway was ended, and another one takes its place.
The same call goes to it under the same id, so that what was done is not done again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Set
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec

from . import wire
from .tables import Unreadable, frame_of

#: Calls under way at once, from threads and from tasks; more wait. Together well below what the broker accepts of one
#: sandbox: results that stream have connections beside them.
CONNECTIONS = 32
TASKS = 16

#: Pause between two looks for a broker that went away, seconds: the first, doubled each time up to the second.
_LOOK_S = (0.02, 0.5)

_HEADER_SIZE = wire.HEADER.size
_DECODERS: Mapping[int, msgspec.msgpack.Decoder[Any]] = {
    wire.RESULT: msgspec.msgpack.Decoder(wire.Result),
    wire.ERROR: msgspec.msgpack.Decoder(wire.Error),
    wire.TABLE: msgspec.msgpack.Decoder(wire.Table),
    wire.BATCH: msgspec.msgpack.Decoder(wire.Batch),
    wire.END: msgspec.msgpack.Decoder(wire.End),
}


class CallFailed(Exception):
    """The call came to an error: the broker's, or one found on the way there."""

    def __init__(self, error: wire.Error) -> None:
        super().__init__(error.message)
        self.error = error


class BrokerClient:
    """All calls of one kernel. Opens nothing before the first call, so it may be made before a fork."""

    def __init__(self, path: str, patience_s: float = 0.0) -> None:
        """`patience_s`: how long one call waits, all in all, for a broker that went away."""
        self._path = path
        self._patience_s = patience_s
        self._after_fork()
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        """A child has connections and ids of its own: two processes cannot share a stream."""
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        self._naming = threading.Lock()
        self._nonce = ""
        self._reached = False
        self._numbers = itertools.count(1)
        self._idle: list[socket.socket] = []
        self._tasks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    def call(self, tool: str, args: Mapping[str, object]) -> Any:
        """The tool's result, as plain Python values; a table as a DataFrame.

        Raises:
            CallFailed: whatever went wrong, as the broker words it.
            KeyboardInterrupt: interrupted while waiting; a read is given up, a write goes on.
        """
        id, request = self._request(tool, args)
        with self._slots:
            connection, answer = self._exchange(tool, id, request)
            self._idle.append(connection)
        return _value(tool, answer)

    async def call_async(self, tool: str, args: Mapping[str, object]) -> Any:
        """`call`, awaited: others of the loop run meanwhile. Cancelled, it gives a read up; a write goes on.

        Raises:
            CallFailed
        """
        id, request = self._request(tool, args)
        slots = self._tasks.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(TASKS))
        async with slots:
            patience = _Patience(self._patience_s)
            while True:
                try:
                    connection = self._take()
                    answer = await _ask_async(connection, id, request)
                    break
                except Unreadable as error:
                    raise _unreachable(tool, str(error)) from None
                except OSError as error:
                    await asyncio.sleep(self._pause(tool, error, patience))
            self._idle.append(connection)
        return _value(tool, answer)

    def stream(
        self, tool: str, args: Mapping[str, object], as_error: Callable[[CallFailed], BaseException] | None = None
    ) -> Stream:
        """The parts of a result that streams. The call is made when the first of them is asked for.

        `as_error`: what the stream raises in place of CallFailed.
        """
        return Stream(self, tool, args, as_error or _itself)

    def _request(self, tool: str, args: Mapping[str, object]) -> tuple[str, bytes]:
        id = self._next_id()
        request = wire.frame(wire.CALL, wire.Call(id=id, tool=tool, args=_encode(tool, args)))
        if len(request) - _HEADER_SIZE > wire.MAX_REQUEST:
            raise _input_error(tool, f"the arguments take {len(request):,} bytes; the most is {wire.MAX_REQUEST:,}")
        return id, request

    def _next_id(self) -> str:
        """Drawn at the first call, which comes after the last fork: kernels of one template have different ids."""
        with self._naming:
            self._nonce = self._nonce or os.urandom(8).hex()
            return f"{self._nonce}-{next(self._numbers)}"

    def _exchange(self, tool: str, id: str, request: bytes) -> tuple[socket.socket, Answer]:
        """The first answer, from whichever broker gives it. Raises CallFailed when there is none for too long."""
        patience = _Patience(self._patience_s)
        while True:
            try:
                connection = self._take()
                return connection, _ask(connection, id, request)
            except Unreadable as error:
                raise _unreachable(tool, str(error)) from None
            except OSError as error:
                time.sleep(self._pause(tool, error, patience))

    def _pause(self, tool: str, error: OSError, patience: _Patience) -> float:
        """How long to wait for another broker, seconds. Raises CallFailed where that makes no sense any more."""
        # no socket, and there never was one: this kernel has no broker, nor will it get one
        none = isinstance(error, FileNotFoundError) and not self._reached
        if none or patience.over:
            raise _unreachable(tool, _what_broke(error)) from None
        return patience.pause()

    def _take(self) -> socket.socket:
        """An idle connection that is alive, or a new one. Raises OSError."""
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if _alive(connection):
                    return connection
                connection.close()
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        self._reached = True
        return connection


class Stream:
    """The parts of a result that streams, one after the other: `for part in stream`, or `async for`.

    It ends with the cell that began to read it. Left before its end, close it, or let go of it: its upstream is told.
    """

    def __init__(
        self,
        client: BrokerClient,
        tool: str,
        args: Mapping[str, object],
        as_error: Callable[[CallFailed], BaseException],
    ) -> None:
        self._over = True  # should the next lines fail
        self._as_error = as_error
        self._client = client
        self._tool = tool
        self._id, self._first = client._request(tool, args)
        self._connection: socket.socket | None = None
        self._taken = 0
        self._over = False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        """Raises what a call would."""
        if self._over:
            raise StopIteration
        try:
            answer = self._answer()
            if isinstance(answer, wire.Batch):
                self._taken += 1
                return _read_value(self._tool, answer.data, arrow=answer.arrow)
        except CallFailed as failed:
            self.close()
            error = self._as_error(failed)
        except BaseException:
            self.close()
            raise
        else:
            self._over, connection, self._connection = True, self._connection, None
            if connection is not None:
                self._client._idle.append(connection)
            if isinstance(answer, wire.End):
                raise StopIteration
            problem = "the tool broker answered a call that streams with one result"
            end = CallFailed(answer) if isinstance(answer, wire.Error) else _unreachable(self._tool, problem)
            error = self._as_error(end)
        raise error

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        """Raises what a call would."""
        over = object()
        try:
            part = await asyncio.to_thread(next, self, over)
        except asyncio.CancelledError:
            self.close()
            raise
        if part is over:
            raise StopAsyncIteration
        return part

    def close(self) -> None:
        """No more of it: the tool stops where it is. Safe to call again."""
        self._over, connection, self._connection = True, self._connection, None
        if connection is not None:
            _abandon(connection, self._id)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self.close()

    def _answer(self) -> Answer:
        """The next frame, the credit for another one sent. Raises CallFailed."""
        if self._connection is None:
            self._connection, answer = self._client._exchange(self._tool, self._id, self._first)
        else:
            try:
                answer = _read_frame(self._connection, self._id)
            except (OSError, Unreadable) as error:
                self._connection.close()
                self._connection = None
                raise _broken_off(self._tool, self._taken, str(error)) from None
        if isinstance(answer, wire.Batch):
            with contextlib.suppress(OSError):  # a broker that has gone is found out by the next look
                self._connection.sendall(wire.frame(wire.NEXT, wire.Next(id=self._id)))
        return answer


def _itself(failed: CallFailed) -> BaseException:
    return failed


#: What a broker answers.
Answer = wire.Result | wire.Error | wire.Table | wire.Batch | wire.End


class _Patience:
    """How long a call has waited for a broker that went away, and how long it waits next, seconds."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._waited, self._next = 0.0, _LOOK_S[0]

    @property
    def over(self) -> bool:
        return self._waited >= self._most_s

    def pause(self) -> float:
        pause, self._next = self._next, min(2 * self._next, _LOOK_S[1])
        self._waited += pause
        return pause


def _ask(connection: socket.socket, id: str, request: bytes) -> Answer:
    """Raises OSError where the connection breaks; it is closed then."""
    try:
        connection.sendall(request)
        return _read_frame(connection, id)
    except (OSError, Unreadable):
        connection.close()
        raise
    except BaseException:
        _abandon(connection, id)
        raise


async def _ask_async(connection: socket.socket, id: str, request: bytes) -> Answer:
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
        size, kind = _head(await read(_HEADER_SIZE))
        answer = _decode(kind, await read(size), id)
        connection.setblocking(True)
        return answer
    except (OSError, Unreadable):
        connection.close()
        raise
    except BaseException:
        _abandon(connection, id)
        raise


def _value(tool: str, answer: Answer) -> Any:
    """The result of a call that was answered at once. Raises CallFailed."""
    match answer:
        case wire.Result():
            return _read_value(tool, answer.value, arrow=False)
        case wire.Table():
            return _read_value(tool, answer.data, arrow=True)
        case wire.Error():
            raise CallFailed(answer)
    raise _unreachable(tool, "the tool broker sent parts of a result that was asked for as one")


def _read_value(tool: str, data: bytes | memoryview, *, arrow: bool) -> Any:
    try:
        return frame_of(memoryview(data)) if arrow else json.loads(bytes(data))
    except (Unreadable, ValueError) as error:
        raise _unreachable(tool, f"the tool broker sent what cannot be read ({error})") from None


def _what_broke(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return f"there is no tool broker for this kernel ({error.strerror})"
    return f"the connection to the tool broker broke ({error.strerror or error})"


def _read_frame(connection: socket.socket, id: str) -> Answer:
    size, kind = _head(_read(connection, _HEADER_SIZE))
    return _decode(kind, _read(connection, size), id)


def _head(header: bytearray) -> tuple[int, int]:
    size, kind = wire.HEADER.unpack(header)
    if size > wire.MAX_REPLY:
        raise Unreadable(f"the tool broker sent a reply of {size:,} bytes; the most is {wire.MAX_REPLY:,}")
    return size, kind


def _decode(kind: int, body: bytearray, id: str) -> Answer:
    """Raises Unreadable for what is no answer to this call."""
    try:
        answer: Answer = _DECODERS[kind].decode(body)
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


def _alive(connection: socket.socket) -> bool:
    """An idle connection has nothing to read; one whose broker went away has its end."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _abandon(connection: socket.socket, id: str) -> None:
    with contextlib.suppress(OSError):
        connection.settimeout(1.0)
        connection.sendall(wire.frame(wire.CANCEL, wire.Cancel(id=id)))
    connection.close()


def _encode(tool: str, args: Mapping[str, object]) -> bytes:
    try:
        text = json.dumps(args, default=_plain, allow_nan=False, ensure_ascii=False)
        return text.encode()
    except RecursionError:
        raise _input_error(tool, "the arguments are nested too deeply, or contain themselves") from None
    except UnicodeEncodeError:
        raise _input_error(tool, "a string among the arguments is no valid Unicode (a lone surrogate)") from None
    except ValueError as error:
        if "Circular" in str(error):
            raise _input_error(tool, "the arguments contain themselves") from None
        raise _input_error(tool, "nan and inf are no values that a tool takes; use None") from None
    except TypeError as error:
        raise _input_error(tool, str(error)) from None


def _plain(value: object) -> object:
    """What notebooks have at hand (NumPy and pandas scalars, arrays, dates, Decimal) as JSON has it."""
    for method in ("tolist", "isoformat"):
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    match value:
        case Enum():
            return value.value
        case Decimal() | UUID():
            return str(value)
        case Mapping():
            return dict(value)
        case Set():
            return list(value)
    raise TypeError(
        f"a {type(value).__name__} is no value that a tool takes; pass plain numbers, strings, lists, dicts"
    )


def _input_error(tool: str, problem: str) -> CallFailed:
    name = tool.rpartition(".")[2]
    return CallFailed(wire.Error(id="", type="ToolInputError", message=f"{name}: {problem}.", tool=tool))


def _unreachable(tool: str, problem: str) -> CallFailed:
    message = f"{tool.rpartition('.')[2]}: {problem}. The session may have ended."
    return CallFailed(wire.Error(id="", type="UpstreamError", message=message, tool=tool))


def _broken_off(tool: str, parts: int, problem: str) -> CallFailed:
    message = f"{tool.rpartition('.')[2]}: the result broke off after {parts:,} parts ({problem}). Call again."
    return CallFailed(wire.Error(id="", type="UpstreamError", message=message, tool=tool, retryable=True))
