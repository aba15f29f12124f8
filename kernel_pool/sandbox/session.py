"""A `jupyter_client` session for a kernel that answers within a millisecond.

The wire format is Jupyter's (messaging protocol 5.4, HMAC-SHA256 signatures). What differs from the stock session:
messages leave whole even if a signal handler raises in the middle of sending, anything that JSON cannot hold is
made presentable instead of lost, and one message is never larger than `MAX_MESSAGE`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from hmac import compare_digest
from itertools import count
from types import FrameType
from typing import Any

import orjson
import zmq
from jupyter_client.jsonutil import json_default
from jupyter_client.session import DELIM, Session, extract_header

#: Largest content of one message, bytes. Larger ones are cut down here; the gateway refuses much larger ones.
MAX_MESSAGE = 16 * 1024 * 1024

#: A string longer than this is cut when its message is too large.
_CUT = 64 * 1024

_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
_PROTOCOL = "5.4"
_backend_send = zmq.backend.Socket.send


class _Sending(threading.local):
    """Whether this thread is in the middle of a message, and whether it was interrupted there."""

    now = False
    interrupted = False


_sending = _Sending()


def interrupt_cell(signum: int, frame: FrameType | None) -> None:
    """Handler of SIGINT while a cell runs: raises KeyboardInterrupt, if need be after the message on its way."""
    if _sending.now:
        _sending.interrupted = True
        return
    _sending.interrupted = False
    raise KeyboardInterrupt


def send_whole(socket: zmq.Socket[bytes], parts: Sequence[bytes | memoryview]) -> None:
    """Send one multipart message, all of it or nothing.

    pyzmq runs signal handlers after every frame. One that raises there would glue the rest of this message to the
    next one. `interrupt_cell` waits; for handlers of user code, an empty frame ends the broken message, which its
    reader then drops.
    """
    flags = [zmq.SNDMORE] * (len(parts) - 1) + [0]
    _sending.now = True
    try:
        deque(map(_backend_send, (socket,) * len(parts), parts, flags), maxlen=0)
    except BaseException:
        with contextlib.suppress(zmq.ZMQError):
            _backend_send(socket, b"", zmq.NOBLOCK)
        raise
    finally:
        _sending.now = False
    if _sending.interrupted:
        _sending.interrupted = False
        raise KeyboardInterrupt


def pack(value: object) -> bytes:
    """JSON of `value`. NaN becomes null, lone surrogates are escaped, unknown objects become their repr."""
    try:
        return orjson.dumps(value, option=_OPTIONS, default=_plain)
    except (TypeError, RecursionError):
        return _pack_odd(value)


def _pack_odd(value: object) -> bytes:
    try:
        return orjson.dumps(_clean(value, 0), option=_OPTIONS, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        evalue = f"this cannot be written as JSON: {str(error)[:200]!a}"
        return orjson.dumps({"status": "error", "ename": "ValueError", "evalue": evalue, "traceback": []})


def _plain(value: object) -> object:
    try:
        return json_default(value)
    except TypeError:
        return repr(value)


def _clean(value: object, depth: int) -> object:
    """A copy of `value` that JSON can hold. What is nested deeper than 200 levels is left out."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if depth > 200:
        return "..."
    if isinstance(value, dict):
        return {str(_clean(str(k), depth + 1)): _clean(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return float(value) if abs(value) < 2**1000 else str(value)
    return value


def _cut(value: object) -> object:
    if isinstance(value, str) and len(value) > _CUT:
        return f"{value[:_CUT]}... [{len(value) - _CUT} characters cut: a message holds {MAX_MESSAGE} bytes]"
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item) for item in value]
    return value


def bounded(msg_type: str, content: dict[str, Any], packed: bytes) -> bytes:
    """`packed`, or a smaller stand-in that says so if it is larger than `MAX_MESSAGE`."""
    if len(packed) <= MAX_MESSAGE:
        return packed
    if msg_type in ("display_data", "update_display_data", "execute_result"):
        note = f"[output of {len(packed)} bytes not shown: a message holds {MAX_MESSAGE}]"
        return pack({**content, "data": {"text/plain": note}, "metadata": {}})
    smaller = pack(_cut(content))
    if len(smaller) <= MAX_MESSAGE:
        return smaller
    evalue = f"a {msg_type} of {len(packed)} bytes does not fit into a message of {MAX_MESSAGE}"
    status = {key: content[key] for key in ("execution_count",) if isinstance(content.get(key), int)}
    return pack({**status, "status": "error", "ename": "ValueError", "evalue": evalue, "traceback": []})


def _tell_unshown(msg_type: str) -> None:
    """In a forked child: what is printed there is shown, but an output of other kinds has no way out."""
    if msg_type in ("display_data", "update_display_data", "error"):
        os.write(2, f"[{msg_type} of a forked process is not shown; print it]\n".encode())


class KernelSession(Session):
    """The session of one forked kernel: `renew` gives it the identity and key that are this kernel's own."""

    def renew(self, key: bytes) -> None:
        self.key = key
        self.session = os.urandom(16).hex()
        self.pid = os.getpid()
        self._numbers = count(1)
        self.forked = False

    #: True in a process that user code forked: its sockets are the parent's.
    forked = False
    _numbers = count(1)

    def msg_header(self, msg_type: str) -> dict[str, Any]:
        return {
            "msg_id": f"{self.session}_{next(self._numbers)}",
            "msg_type": msg_type,
            "username": "kernel",
            "session": self.session,
            "date": datetime.now(UTC),
            "version": _PROTOCOL,
        }

    def msg(
        self,
        msg_type: str,
        content: dict[str, Any] | None = None,
        parent: dict[str, Any] | None = None,
        header: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        header = header or self.msg_header(msg_type)
        return {
            "header": header,
            "msg_id": header["msg_id"],
            "msg_type": header["msg_type"],
            "parent_header": extract_header(parent) if parent else {},
            "content": content or {},
            "metadata": metadata or {},
        }

    def serialize(self, msg: dict[str, Any], ident: list[bytes] | bytes | None = None) -> list[bytes]:
        content = msg.get("content") or {}
        packed = content if isinstance(content, bytes) else bounded(msg["msg_type"], content, pack(content))
        parts = [pack(msg["header"]), pack(msg["parent_header"]), pack(msg["metadata"]), packed]
        idents = ident if isinstance(ident, list) else [] if ident is None else [ident]
        return [*idents, DELIM, self.sign(parts), *parts]

    def send(  # type: ignore[override]  # the stock signature, with a wider idea of what a stream is
        self,
        stream: Any,
        msg_or_type: dict[str, Any] | str,
        content: dict[str, Any] | None = None,
        parent: dict[str, Any] | None = None,
        ident: bytes | list[bytes] | None = None,
        buffers: Sequence[bytes | memoryview] | None = None,
        track: bool = False,
        header: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Build, sign and send a message through a socket or through `IOPub`. None in a forked child."""
        if isinstance(msg_or_type, str):
            message = self.msg(msg_or_type, content, parent, header, metadata)
        else:
            message = msg_or_type
        if self.forked:
            _tell_unshown(message["msg_type"])
            return None
        if stream is None:
            return None
        parts: list[Any] = self.serialize(message, ident)
        for index, buffer in enumerate(buffers or message.get("buffers") or ()):
            view = memoryview(buffer)
            if not view.contiguous:
                raise ValueError(f"Buffer {index} ({buffer!r}) is not contiguous")
            parts.append(view.cast("B") if view.format != "B" or view.ndim != 1 else view)
        if isinstance(stream, zmq.Socket):
            send_whole(stream, parts)
        else:
            stream.send_multipart(parts)
        return message

    def deserialize(self, msg_list: list[Any], content: bool = True, copy: bool = True) -> dict[str, Any]:
        """Unpack and check a message. Raises ValueError if it is malformed or its signature is wrong."""
        if not copy:
            msg_list = [bytes(frame.bytes) for frame in msg_list]
        if len(msg_list) < 5:
            raise ValueError(f"a message has at least 5 parts, not {len(msg_list)}")
        if self.auth is not None and not compare_digest(msg_list[0], self.sign(msg_list[1:5])):
            raise ValueError("the message is not signed with this kernel's key")
        header = orjson.loads(msg_list[1])
        return {
            "header": header,
            "msg_id": header["msg_id"],
            "msg_type": header["msg_type"],
            "parent_header": orjson.loads(msg_list[2]),
            "metadata": orjson.loads(msg_list[3]),
            "content": orjson.loads(msg_list[4]) if content else msg_list[4],
            "buffers": [memoryview(part) for part in msg_list[5:]],
        }
