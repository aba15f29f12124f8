"""The broker protocol: frames over a unix stream socket, both ends.

Frame: length of the body (u32, little endian), kind (u8), body. Bodies are msgpack maps. A connection may have
several calls under way; answers carry the call's id and come in any order.

`args` and `value` are JSON text in UTF-8: the standard library's json keeps integers of any size, floats and strings
exactly, and the text that the kernel gets is the text that the journal keeps.

    CALL    kernel -> broker  {id, tool, args}
    CANCEL  kernel -> broker  {id}
    RESULT  broker -> kernel  {id, value}
    ERROR   broker -> kernel  {id, type, message, tool, retryable, hint, data}

What a kernel sends is untrusted: the reader bounds frames before it allocates, and knows no pickle.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

HEADER = struct.Struct("<IB")

CALL, CANCEL, RESULT, ERROR = 1, 2, 3, 4

#: Largest body that the broker reads from a kernel, and that a kernel reads from the broker.
MAX_REQUEST = 16 * 1024 * 1024
MAX_REPLY = 256 * 1024 * 1024


class Call(msgspec.Struct, forbid_unknown_fields=True):
    id: int
    tool: str
    #: A JSON object.
    args: bytes


class Cancel(msgspec.Struct, forbid_unknown_fields=True):
    id: int


class Result(msgspec.Struct):
    id: int
    #: Any JSON value, and NaN, Infinity, -Infinity.
    value: bytes


class Error(msgspec.Struct):
    id: int
    type: str
    message: str
    tool: str = ""
    retryable: bool = False
    hint: str = ""
    data: dict[str, Any] = {}


encoder = msgspec.msgpack.Encoder()


def frame(kind: int, body: msgspec.Struct) -> bytes:
    """One whole frame."""
    payload = encoder.encode(body)
    return HEADER.pack(len(payload), kind) + payload
