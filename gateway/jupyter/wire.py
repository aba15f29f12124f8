"""Messages on a websocket, in both of Jupyter's protocols. Pure functions; what comes from clients is checked here.

The default protocol: JSON text, or, with buffers, binary with 4-byte big-endian offsets. The other, V1: binary with
8-byte little-endian offsets; the JSON parts are passed on as they are.
https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html
"""

from __future__ import annotations

import itertools
import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, cast

import msgspec

from kernel_pool.channels import Channel, Incoming, Request, decode

V1 = "v1.kernel.websocket.jupyter.org"

_MAX_BUFFERS = 1024
_MAX_ID = 256
#: Levels of a message. Parsers, this one too, go about twice as deep: Python's limit, which the frames count in.
_MAX_DEPTH = 450
_PYTHONS_DEPTH = 950
_SURELY_FLAT = 200
_VERSION = re.compile(r"\d{1,3}(\.\d{1,3}){0,2}\Z")
_FROM_CLIENTS = ("shell", "control", "stdin")
_OBJECT = dict[str, msgspec.Raw]
_NULL = msgspec.Raw(b"null")
_NOTHING = (b"", b"null")


class BadMessage(Exception):
    """What a client sent is no message. The text says why, and is short enough for a close frame."""


@dataclass(frozen=True)
class Asked:
    """One message of a client, checked."""

    msg_type: str
    header: bytes
    request: Request

    @property
    def size(self) -> int:
        return sum(map(len, self.request.parts)) + sum(map(len, self.request.buffers))


class _Header(msgspec.Struct):
    msg_id: str
    msg_type: str


class _Text(msgspec.Struct):
    header: msgspec.Raw
    parent_header: msgspec.Raw = msgspec.Raw(b"{}")
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    content: msgspec.Raw = msgspec.Raw(b"{}")
    channel: str | None = "shell"


def asked(data: str | bytes, *, v1: bool) -> Asked:
    """A client's frame as a message. Raises BadMessage."""
    if not v1:
        if isinstance(data, str):
            return _of_json(data, ())
        parts = _split(data, 4)
        return _of_json(parts[0], tuple(parts[1:]))
    if isinstance(data, str):
        raise BadMessage(f"{V1} has binary frames only")
    channel, *rest = _split(data, 8)
    if len(rest) < 4:
        raise BadMessage("a message has a header, a parent header, metadata and content")
    name = channel.decode(errors="replace")
    return _checked(name, (rest[0], rest[1], rest[2], rest[3]), tuple(rest[4:]))


def _of_json(data: str | bytes, buffers: tuple[bytes, ...]) -> Asked:
    try:
        text = msgspec.json.decode(data, type=_Text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError) as error:
        raise BadMessage(f"not a message as JSON: {error}") from error
    parts = (bytes(text.header), bytes(text.parent_header), bytes(text.metadata), bytes(text.content))
    return _checked(text.channel or "shell", parts, buffers)


def _checked(channel: str, parts: tuple[bytes, bytes, bytes, bytes], buffers: tuple[bytes, ...]) -> Asked:
    if channel not in _FROM_CLIENTS:
        raise BadMessage(f"clients cannot send on channel {channel[:20]!r}")
    header = decode(parts[0], _Header)
    if header is None or not header.msg_id or not header.msg_type:
        raise BadMessage("the header wants msg_id and msg_type, both text")
    if max(len(header.msg_id), len(header.msg_type)) > _MAX_ID or not (header.msg_id + header.msg_type).isprintable():
        raise BadMessage(f"msg_id and msg_type are printable, {_MAX_ID} characters at most")
    others = [b"{}" if part in _NOTHING else part for part in parts[1:]]
    fields = [decode(part, _OBJECT) for part in (parts[0], *others)]
    for part in (parts[0], *others):
        _check_kernels_can_read(part)
    if any(each is None for each in fields):
        raise BadMessage("header, parent header, metadata and content are JSON objects")
    head = _mended(parts[0], fields[0] or {})
    request = Request(cast(Channel, channel), header.msg_id, (head, others[0], others[1], others[2]), buffers)
    return Asked(header.msg_type, head, request)


def _check_kernels_can_read(part: bytes) -> None:
    """What a kernel cannot parse it does not answer, and its queue would wait. Raises BadMessage."""
    try:
        part.decode()
    except UnicodeDecodeError:
        raise BadMessage("the message is no UTF-8") from None
    if part.count(b"[") + part.count(b"{") > _SURELY_FLAT:
        around = _PYTHONS_DEPTH - _MAX_DEPTH
        if decode(b"[" * around + part + b"]" * around, msgspec.Raw) is None:
            raise BadMessage(f"the message is no JSON, or nested deeper than some {_MAX_DEPTH} levels")


def _mended(header: bytes, fields: dict[str, msgspec.Raw]) -> bytes:
    """The header as kernels want it. Clients leave fields out; Jupyter Server's own sends a number as date."""
    version = decode(fields.get("version", _NULL), str)
    mends: dict[str, str] = {} if version is not None and _VERSION.match(version) else {"version": "5.3"}
    mends |= {name: "" for name in ("username", "session") if decode(fields.get(name, _NULL), str) is None}
    if decode(fields.get("date", _NULL), str) is None:
        mends["date"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    if not mends:
        return header
    return msgspec.json.encode({**fields, **{name: msgspec.Raw(msgspec.json.encode(mends[name])) for name in mends}})


def _split(data: bytes, width: int) -> list[bytes]:
    """The parts of a binary frame: their number, where each begins, and, with 8 bytes, where the last one ends."""
    long = width == 8
    code = "<Q" if long else ">I"
    if len(data) < width:
        raise BadMessage("the frame ends in its offsets")
    (count,) = struct.unpack_from(code, data)
    if not 1 <= count <= _MAX_BUFFERS + 8 or len(data) < width * (count + 1):
        raise BadMessage("the frame has a wrong number of offsets")
    offsets = [*struct.unpack_from(f"{code[0]}{count}{code[1]}", data, width)]
    if not long:
        offsets.append(len(data))
    if offsets[0] < width * (count + 1) or offsets[-1] > len(data) or offsets != sorted(offsets):
        raise BadMessage("the frame's offsets are wrong")
    return [data[start:end] for start, end in itertools.pairwise(offsets)]


class Posted:
    """A message to clients; each of the two forms is made once, when the first client wants it."""

    def __init__(self, message: Incoming) -> None:
        self.message = message
        self.size = sum(map(len, message.parts)) + sum(map(len, message.buffers)) + 512

    @cached_property
    def sound(self) -> bool:
        """Whether its parts are JSON objects, and their text is UTF-8: the kernel is not trusted with that."""
        try:
            for part in self.message.parts:
                part.decode()
        except UnicodeDecodeError:
            return False
        return all(decode(part, _OBJECT) is not None for part in self.message.parts)

    @cached_property
    def json(self) -> str | bytes:
        """In the default protocol."""
        message = self.message
        header, parent, metadata, content = message.parts
        msg_id = decode(header, _Id)
        text = b"".join(
            (
                b'{"header":' + header + b',"msg_id":',
                msgspec.json.encode(msg_id.msg_id if msg_id else ""),
                b',"msg_type":' + msgspec.json.encode(message.msg_type),
                b',"parent_header":' + parent + b',"metadata":' + metadata + b',"content":' + content,
                b',"channel":"' + message.channel.encode() + b'","buffers":[]}',
            )
        )
        if not message.buffers:
            return text.decode()
        return _joined((text, *message.buffers), ">I", end=False)

    @cached_property
    def v1(self) -> bytes:
        """In the other one."""
        message = self.message
        return _joined((message.channel.encode(), *message.parts, *message.buffers), "<Q", end=True)


class _Id(msgspec.Struct):
    msg_id: str = ""


def _joined(parts: tuple[bytes, ...], code: str, *, end: bool) -> bytes:
    count = len(parts) + end
    offsets = [struct.calcsize(code) * (count + 1)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return b"".join((struct.pack(f"{code[0]}{count + 1}{code[1]}", count, *offsets[:count]), *parts))


def fields(data: bytes) -> dict[str, Any]:
    """A part of a message, as plain data; {} for what is none."""
    return decode(data, dict[str, Any]) or {}
