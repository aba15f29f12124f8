"""What a client may send, at random: a frame is a message that its kernel can read, or it is refused. Nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from socket_client import pack, unpack

from gateway.jupyter.wire import Asked, BadMessage, Posted, asked
from kernel_pool.channels import Incoming

_FEW = settings(max_examples=150, deadline=None)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=8), JSON, max_size=5)
HEADERS = st.fixed_dictionaries(
    {"msg_id": st.text(max_size=300) | JSON, "msg_type": st.sampled_from(["execute_request", "x"]) | JSON},
    optional={name: JSON for name in ("date", "version", "session", "username")},
)
CHANNELS = st.sampled_from(["shell", "control", "stdin", "iopub", ""]) | st.text(max_size=5)
BUFFERS = st.lists(st.binary(max_size=20), max_size=3)


def taken(frame: str | bytes, *, v1: bool) -> Asked | None:
    """The message, whose parts a kernel can read; None for one that was refused."""
    try:
        found = asked(frame, v1=v1)
    except BadMessage:
        return None
    for part in found.request.parts:
        assert isinstance(json.loads(part.decode()), dict)
    header = json.loads(found.request.parts[0])
    assert {"msg_id", "msg_type", "username", "session", "date", "version"} <= header.keys()
    assert found.request.channel in ("shell", "control", "stdin")
    assert (header["msg_id"], header["msg_type"]) == (found.request.msg_id, found.msg_type)
    return found


@_FEW
@given(st.binary(max_size=200) | st.text(max_size=200), st.booleans())
def test_anything(frame: str | bytes, v1: bool) -> None:
    taken(frame, v1=v1)


@_FEW
@given(HEADERS, OBJECTS | JSON, OBJECTS | JSON, CHANNELS, BUFFERS)
def test_messages_of_the_default_protocol(
    header: dict[str, Any], content: Any, metadata: Any, channel: str, buffers: list[bytes]
) -> None:
    message = {"header": header, "content": content, "metadata": metadata, "channel": channel}
    text = json.dumps(message)
    for frame in (text, pack([text.encode(), *buffers], ">I", end=False)):
        found = taken(frame, v1=False)
        if found is not None:
            assert json.loads(found.request.parts[3]) == (content or {})
            assert list(found.request.buffers) == ([] if frame is text else buffers)


@_FEW
@given(HEADERS, OBJECTS, CHANNELS, BUFFERS, st.data())
def test_messages_of_v1_that_were_damaged_on_the_way(
    header: dict[str, Any], content: Any, channel: str, buffers: list[bytes], data: st.DataObject
) -> None:
    parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
    frame = pack([channel.encode(errors="replace"), *parts, *buffers], "<Q", end=True)
    start = data.draw(st.integers(0, len(frame)))
    end = data.draw(st.integers(start, min(len(frame), start + 16)))
    taken(frame, v1=True)
    taken(frame[:start] + data.draw(st.binary(max_size=16)) + frame[end:], v1=True)


@pytest.mark.parametrize("levels", [400, 700, 980, 100_000])
@pytest.mark.parametrize("part", [1, 2, 3])
def test_what_is_nested_deeper_than_parsers_go_is_refused(part: int, levels: int) -> None:
    parts = [b'{"msg_id":"m","msg_type":"x"}', b"{}", b"{}", b"{}"]
    parts[part] = b'{"a":' + b"[" * levels + b"]" * levels + b"}"
    found = taken(pack([b"shell", *parts], "<Q", end=True), v1=True)
    assert (found is not None) == (levels == 400)


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b'"\xff"', b"01", b"'a'", b"[,]", b'"\x00"'])
def test_what_is_no_json_of_the_standard_is_refused(value: bytes) -> None:
    content = b'{"code":' + value + b"}"
    for v1, frame in (
        (True, pack([b"shell", b'{"msg_id":"m","msg_type":"x"}', b"{}", b"{}", content], "<Q", end=True)),
        (False, pack([b'{"header":{"msg_id":"m","msg_type":"x"},"content":' + content + b"}"], ">I", end=False)),
    ):
        assert taken(frame, v1=v1) is None


@_FEW
@given(OBJECTS, OBJECTS, OBJECTS, BUFFERS)
def test_what_a_kernel_says_reaches_clients_as_it_is(
    header: dict[str, Any], metadata: dict[str, Any], content: dict[str, Any], buffers: list[bytes]
) -> None:
    header |= {"msg_id": "m"}
    parts = [json.dumps(part).encode() for part in (header, {}, metadata, content)]
    posted = Posted(Incoming("iopub", "stream", "", (parts[0], parts[1], parts[2], parts[3]), tuple(buffers)))
    if not posted.sound:
        return
    channel, *rest = unpack(posted.v1, "<Q")
    assert (channel, rest) == (b"iopub", [*parts, *buffers])
    text, *got = [posted.json, *()] if isinstance(posted.json, str) else unpack(posted.json, ">I")
    message = json.loads(text)
    assert (message["header"], message["content"], message["metadata"]) == (header, content, metadata)
    assert got == buffers
