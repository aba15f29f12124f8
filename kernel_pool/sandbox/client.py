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
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from . import wire
from .exchange import HEADER_SIZE, Answer, abandon, ask, ask_async, is_alive, read_frame
from .tables import Unreadable
from .values import CallFailed as CallFailed
from .values import broken_off, encode, input_error, read_value, unreachable, value_of

#: Calls under way at once, from threads and from tasks; more wait. Together well below what the broker accepts of one
#: sandbox: results that stream have connections beside them.
CONNECTIONS = 32
TASKS = 16

#: Pause between two looks for a broker that went away, seconds: the first, doubled each time up to the second.
_LOOK_S = (0.02, 0.5)


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
        return value_of(tool, answer)

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
                    answer = await ask_async(connection, id, request)
                    break
                except Unreadable as error:
                    raise unreachable(tool, str(error)) from None
                except OSError as error:
                    await asyncio.sleep(self._pause(tool, error, patience))
            self._idle.append(connection)
        return value_of(tool, answer)

    def stream(
        self, tool: str, args: Mapping[str, object], as_error: Callable[[CallFailed], BaseException] | None = None
    ) -> Stream:
        """The parts of a result that streams. The call is made when the first of them is asked for.

        `as_error`: what the stream raises in place of CallFailed.
        """
        return Stream(self, tool, args, as_error or _itself)

    def _request(self, tool: str, args: Mapping[str, object]) -> tuple[str, bytes]:
        id = self._next_id()
        request = wire.frame(wire.CALL, wire.Call(id=id, tool=tool, args=encode(tool, args)))
        if len(request) - HEADER_SIZE > wire.MAX_REQUEST:
            raise input_error(tool, f"the arguments take {len(request):,} bytes; the most is {wire.MAX_REQUEST:,}")
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
                return connection, ask(connection, id, request)
            except Unreadable as error:
                raise unreachable(tool, str(error)) from None
            except OSError as error:
                time.sleep(self._pause(tool, error, patience))

    def _pause(self, tool: str, error: OSError, patience: _Patience) -> float:
        """How long to wait for another broker, seconds. Raises CallFailed where that makes no sense any more."""
        # no socket, and there never was one: this kernel has no broker, nor will it get one
        none = isinstance(error, FileNotFoundError) and not self._reached
        if none or patience.over:
            raise unreachable(tool, _what_broke(error)) from None
        return patience.pause()

    def _take(self) -> socket.socket:
        """An idle connection that is alive, or a new one. Raises OSError."""
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if is_alive(connection):
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
                return read_value(self._tool, answer.data, arrow=answer.arrow)
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
            end = CallFailed(answer) if isinstance(answer, wire.Error) else unreachable(self._tool, problem)
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
            abandon(connection, self._id)

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
                answer = read_frame(self._connection, self._id)
            except (OSError, Unreadable) as error:
                self._connection.close()
                self._connection = None
                raise broken_off(self._tool, self._taken, str(error)) from None
        if isinstance(answer, wire.Batch):
            with contextlib.suppress(OSError):  # a broker that has gone is found out by the next look
                self._connection.sendall(wire.frame(wire.NEXT, wire.Next(id=self._id)))
        return answer


def _itself(failed: CallFailed) -> BaseException:
    return failed


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


def _what_broke(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return f"there is no tool broker for this kernel ({error.strerror})"
    return f"the connection to the tool broker broke ({error.strerror or error})"
