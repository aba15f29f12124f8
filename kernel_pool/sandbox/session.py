"""A `jupyter_client` session for a kernel that answers within a millisecond.

The wire format is Jupyter's (messaging protocol 5.4, HMAC-SHA256 signatures). What differs from the stock session:
messages leave whole even if a signal handler raises in the middle of sending, anything that JSON cannot hold is
made presentable instead of lost, and one message is never larger than `packing.MAX_MESSAGE`.
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
from jupyter_client.session import DELIM, Session, extract_header

from .backlog import Backlog
from .packing import pack, pack_content

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
        self.backlog = Backlog()

    #: True in a process that user code forked: its sockets are the parent's.
    forked = False
    backlog = Backlog()
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
        packed = content if isinstance(content, bytes) else pack_content(msg["msg_type"], content)
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
        if not isinstance(stream, zmq.Socket):
            stream.send_multipart(parts, about=message)
            return message
        if message["msg_type"] == "execute_reply":
            self.backlog.keep_reply(message["parent_header"].get("msg_id"), parts[-1])
        send_whole(stream, parts)
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
