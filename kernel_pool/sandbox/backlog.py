"""What the latest cell has said, kept for a gateway that comes back: the one before may have died in the middle.

Messages are kept as they were sent, in order, so that they can be sent again under their ids. Bounded: the oldest go
first, which the gateway has by then; while there is none, who prints waits instead (`iopub`). A position counts what a
cell has said before: a gateway that knows how far it has come skips what it has, and sees what is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

#: Bytes of messages that are kept: more than can be on its way to a gateway, and wait there for its disk. And how many
#: on top of it for what matters most: value, error, end.
_KEEP = 24 * 1024 * 1024
_RESERVE = 1024 * 1024
_MATTERS = frozenset({"execute_result", "error", "status"})
_OUTPUTS = frozenset({"stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"})
#: What a message is charged beyond its bytes.
_OVERHEAD = 512
#: From so many messages on, text that follows text is added to the message before, up to that size: a cell that
#: flushes after every word keeps its output all the same.
_MANY = 2048
_JOINED = 64 * 1024
#: A stream's message: topic, delimiter, signature, header, parent, metadata, content; and how the content begins.
_STREAM_PARTS, _SIGNATURE = 7, 2
#: Of every message; and how far its content is from it.
_DELIMITER, _CONTENT = b"<IDS|MSG>", 5
_STREAMS = (b'{"name":"stdout","text":"', b'{"name":"stderr","text":"')
#: A reply larger than this is not kept; the gateway would not read it.
_MAX_REPLY = 4 * 1024 * 1024


def weight(msg_type: str, content: bytes | memoryview) -> int:
    """By how much a message moves its cell's position on. Of text that is cut or joined the sum stays the same."""
    if msg_type not in _OUTPUTS:
        return 0
    if msg_type == "stream" and (start := stream_start(content)):
        return len(content) - len(start) - 2
    return len(content)


def stream_start(content: bytes | memoryview) -> bytes:
    """How the content of a stream's message begins, up to its text; empty where it is written otherwise."""
    begins = bytes(content[: len(_STREAMS[0])])
    return begins if begins in _STREAMS and bytes(content[-2:]) == b'"}' else b""


class Backlog:
    """The messages of one cell. The caller holds the lock of iopub, except for `keep_reply`."""

    def __init__(self) -> None:
        self.msg_id = ""
        #: The cell has not reported that it is over.
        self.executing = False
        #: With what each moves the position on, and what it is charged.
        self._messages: deque[tuple[list[bytes], int, int]] = deque()
        self._kept = 0
        #: Of the first message that is kept.
        self.position = 0
        self._reply: bytes | None = None
        self._replied = False

    def begin(self, msg_id: str) -> None:
        """Forget the cell before; from now on it is about the one that `msg_id` asked for."""
        self.msg_id, self.executing = msg_id, True
        self._messages.clear()
        self._kept = self.position = 0
        self._reply, self._replied = None, False

    def full(self, size: int, msg_type: str = "stream") -> bool:
        """Whether an output of the cell that runs, of so many bytes, would push out others."""
        if msg_type in _MATTERS or msg_type not in _OUTPUTS or not self.executing:
            return False
        return bool(self._messages) and self._kept + size > _KEEP

    def keep(self, msg_type: str, parts: Sequence[bytes | memoryview]) -> None:
        """Keep a message of this cell, signed and ready to be sent."""
        size = sum(map(len, parts))
        if msg_type == "stream" and len(self._messages) >= _MANY and self._join(parts):
            return
        bound = _KEEP + _RESERVE if msg_type in _MATTERS else _KEEP
        while self._messages and self._kept + size > bound:
            _, weighs, charged = self._messages.popleft()
            self.position += weighs
            self._kept -= charged
        # the memory behind a buffer is the cell's to change
        kept = [part if type(part) is bytes else bytes(part) for part in parts]
        content = kept[kept.index(_DELIMITER) + _CONTENT]
        self._messages.append((kept, weight(msg_type, content), size + _OVERHEAD))
        self._kept += size + _OVERHEAD

    def keep_reply(self, msg_id: str, content: bytes) -> None:
        """Keep the cell's execute_reply."""
        if msg_id == self.msg_id:
            self._reply = content if len(content) <= _MAX_REPLY else None
            self._replied = True

    def messages(self, sign: Callable[[list[bytes]], bytes]) -> Iterator[list[bytes]]:
        """The messages, to be sent again. `sign` makes the signature of a message's four parts."""
        for parts, _, _ in self._messages:
            if not parts[_SIGNATURE]:
                parts[_SIGNATURE] = sign(parts[_SIGNATURE + 1 :])
            yield parts

    def report(self) -> dict[str, Any]:
        """Content of resume_reply."""
        return {
            "status": "ok",
            "msg_id": self.msg_id,
            "executing": self.executing,
            "kept_bytes": self._kept,
            "replied": self._replied,
            "reply": None if self._reply is None else orjson.Fragment(self._reply),
        }

    def _join(self, parts: Sequence[bytes | memoryview]) -> bool:
        """Add a stream's text to the last message, if that is the same stream's."""
        (last, weighs, charged), content = self._messages[-1], bytes(parts[-1])
        start = stream_start(content)
        if not start or len(parts) != _STREAM_PARTS or len(last) != _STREAM_PARTS:
            return False
        if not last[-1].startswith(start) or not _KEEP - self._kept > len(content) or len(last[-1]) > _JOINED:
            return False
        last[-1] = last[-1].removesuffix(b'"}') + content[len(start) :]
        last[_SIGNATURE] = b""
        more = len(content) - len(start) - 2
        self._messages[-1] = (last, weighs + more, charged + more)
        self._kept += more
        return True
