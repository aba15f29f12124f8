"""Calls from a kernel to its broker: synchronous, from any thread, over a few kept connections.

A connection carries one call at a time. On Ctrl-C in the middle of a call the broker is told (CANCEL), the connection
is given up, because its stream is out of step, and KeyboardInterrupt goes on to the cell.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import threading
from collections.abc import Mapping, Set
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec

from . import wire

#: Calls under way at once; more threads wait. Well below what the broker accepts of one sandbox.
CONNECTIONS = 32

_HEADER_SIZE = wire.HEADER.size
_result = msgspec.msgpack.Decoder(wire.Result)
_error = msgspec.msgpack.Decoder(wire.Error)


class CallFailed(Exception):
    """The call came to an error: the broker's, or one found on the way there."""

    def __init__(self, error: wire.Error) -> None:
        super().__init__(error.message)
        self.error = error


class BrokerClient:
    """All calls of one kernel. Opens nothing before the first call, so it may be made before a fork."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._ids = itertools.count(1)
        self._after_fork()
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        """A child has connections of its own: two processes cannot share a stream."""
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        self._idle: list[socket.socket] = []

    def call(self, tool: str, args: Mapping[str, object]) -> Any:
        """The tool's result, as plain Python values.

        Raises:
            CallFailed: whatever went wrong, as the broker words it.
            KeyboardInterrupt: interrupted while waiting; a read is given up, a write goes on.
        """
        number = next(self._ids)
        request = wire.frame(wire.CALL, wire.Call(id=number, tool=tool, args=_encode(tool, args)))
        if len(request) - _HEADER_SIZE > wire.MAX_REQUEST:
            raise _input_error(tool, f"the arguments take {len(request):,} bytes; the most is {wire.MAX_REQUEST:,}")
        with self._slots:
            kind, body = self._exchange(tool, number, request)
        if kind == wire.RESULT:
            return json.loads(_result.decode(body).value)
        raise CallFailed(_error.decode(body))

    def _exchange(self, tool: str, number: int, request: bytes) -> tuple[int, bytearray]:
        connection = self._take(tool)
        try:
            connection.sendall(request)
            answer = _read_frame(connection)
        except OSError as error:
            connection.close()
            raise _unreachable(tool, f"the connection to the tool broker broke ({error})") from None
        except BaseException:
            _abandon(connection, number)
            raise
        self._idle.append(connection)
        return answer

    def _take(self, tool: str) -> socket.socket:
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if _alive(connection):
                    return connection
                connection.close()
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise _unreachable(tool, f"there is no tool broker for this kernel ({error.strerror})") from None
        return connection


def _read_frame(connection: socket.socket) -> tuple[int, bytearray]:
    size, kind = wire.HEADER.unpack(_read(connection, _HEADER_SIZE))
    if size > wire.MAX_REPLY:
        raise OSError(f"a reply of {size:,} bytes; the most is {wire.MAX_REPLY:,}")
    return kind, _read(connection, size)


def _read(connection: socket.socket, size: int) -> bytearray:
    buffer = bytearray(size)
    rest = memoryview(buffer)
    while rest:
        received = connection.recv_into(rest)
        if not received:
            raise OSError("closed by the broker")
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


def _abandon(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):
        connection.settimeout(1.0)
        connection.sendall(wire.frame(wire.CANCEL, wire.Cancel(id=number)))
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
    return CallFailed(wire.Error(id=0, type="ToolInputError", message=f"{name}: {problem}.", tool=tool))


def _unreachable(tool: str, problem: str) -> CallFailed:
    message = f"{tool.rpartition('.')[2]}: {problem}. The session may have ended."
    return CallFailed(wire.Error(id=0, type="UpstreamError", message=message, tool=tool))
