"""The broker protocol: frames over a unix stream socket, both ends.

Frame: length of the body (u32, little endian), kind (u8), body. Bodies are msgpack maps. A connection may have
several calls under way; answers carry the call's id and come in any order. A call whose connection broke is sent again
under the same id: ids are unique among all calls of a kernel, so that the broker knows it again.

`args` and `value` are JSON text in UTF-8: the standard library's json keeps integers of any size, floats and strings
exactly, and the text that the kernel gets is the text that the journal keeps. `data` of a TABLE is one whole Arrow IPC
stream (https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format); of a BATCH too where `arrow` is true,
else it is JSON text.

    CALL    kernel -> broker  {id, tool, args}
    CANCEL  kernel -> broker  {id}                the answer is not wanted any more
    NEXT    kernel -> broker  {id}                a batch was taken: the credit for one more
    LOOK    kernel -> broker  {id, what, args}    a question about tools, not a call
    RESULT  broker -> kernel  {id, value}
    ERROR   broker -> kernel  {id, type, message, tool, retryable, hint, data}
    TABLE   broker -> kernel  {id, data}          a result that is a table
    BATCH   broker -> kernel  {id, arrow, data}   one part of a result that streams
    END     broker -> kernel  {id}                there are no more parts
    FOUND   broker -> kernel  {id, value}         the answer to LOOK
    STEP    broker -> kernel  {id, text}          how far a call is; any number before its answer

A call is answered by one RESULT, TABLE or ERROR; or by any number of BATCHes and then one END or ERROR. Of a stream,
WINDOW batches come unasked, each further one for a NEXT.

What a kernel sends is untrusted: the reader bounds frames before it allocates, and knows no pickle.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any

import msgspec

HEADER = struct.Struct("<IB")

CALL, CANCEL, RESULT, ERROR, TABLE, BATCH, NEXT, END, LOOK, FOUND, STEP = range(1, 12)

#: Batches of a stream that may be on the way or waiting in a kernel.
WINDOW = 2

#: Largest body that the broker reads from a kernel, and that a kernel reads from the broker.
MAX_REQUEST = 16 * 1024 * 1024
MAX_REPLY = 256 * 1024 * 1024


#: A call's id, as long and of such characters as a database keeps without a thought.
CallId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,48}\Z")]


class Call(msgspec.Struct, forbid_unknown_fields=True):
    id: CallId
    tool: str
    #: A JSON object.
    args: bytes


class Cancel(msgspec.Struct, forbid_unknown_fields=True):
    id: CallId


class Next(msgspec.Struct, forbid_unknown_fields=True):
    id: CallId


class Look(msgspec.Struct, forbid_unknown_fields=True):
    id: CallId
    what: str
    #: A JSON object.
    args: bytes = b"{}"


class Result(msgspec.Struct):
    id: str
    #: Any JSON value, and NaN, Infinity, -Infinity.
    value: bytes


class Error(msgspec.Struct):
    id: str
    type: str
    message: str
    tool: str = ""
    retryable: bool = False
    hint: str = ""
    data: dict[str, Any] = {}


class Table(msgspec.Struct):
    id: str
    data: memoryview


class Batch(msgspec.Struct):
    id: str
    arrow: bool
    data: memoryview


class End(msgspec.Struct):
    id: str


class Found(msgspec.Struct):
    id: str
    #: Any JSON value.
    value: bytes


class Step(msgspec.Struct):
    id: str
    #: One line.
    text: str


encoder = msgspec.msgpack.Encoder()


def frame(kind: int, body: msgspec.Struct) -> bytes:
    """One whole frame."""
    payload = encoder.encode(body)
    return HEADER.pack(len(payload), kind) + payload


def frame_parts(kind: int, body: Table | Batch) -> tuple[bytes, memoryview]:
    """One whole frame in two parts, so that `data`, its last field, is not copied: it may have many megabytes."""
    data, body.data = body.data, memoryview(b"")
    head = encoder.encode(body)
    body.data = data
    assert head.endswith(_EMPTY)
    head = head[: -len(_EMPTY)] + _BIN32.pack(0xC6, data.nbytes)
    return HEADER.pack(len(head) + data.nbytes, kind) + head, data


#: Bytes in msgpack: none of them, and the head of so many.
_EMPTY = b"\xc4\x00"
_BIN32 = struct.Struct(">BI")
