"""What the latest cell has said, kept for a gateway that comes back: the one before may have died in the middle.

Messages are kept as they were sent, in order, so that they can be sent again under their ids. Bounded: what comes
when the bound is reached is counted, except for the little that says how the cell ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

#: Bytes of messages that are kept, and how many on top of it for what matters most: value, error, end.
_KEEP = 16 * 1024 * 1024
_RESERVE = 1024 * 1024
_MATTERS = frozenset({"execute_result", "error", "status"})
#: What a message is charged beyond its bytes.
_OVERHEAD = 512
#: From so many messages on, text that follows text is added to the message before, up to that size: a cell that
#: flushes after every word keeps its output all the same.
_MANY = 2048
_JOINED = 64 * 1024
#: A stream's message: topic, delimiter, signature, header, parent, metadata, content; and how the content begins.
_STREAM_PARTS, _SIGNATURE = 7, 2
_STREAMS = (b'{"name":"stdout","text":"', b'{"name":"stderr","text":"')
#: A reply larger than this is not kept; the gateway would not read it.
_MAX_REPLY = 4 * 1024 * 1024


class Backlog:
    """The messages of one cell. The caller holds the lock of iopub, except for `keep_reply`."""

    def __init__(self) -> None:
        self.msg_id = ""
        #: The cell has not reported that it is over.
        self.executing = False
        self._messages: list[list[bytes]] = []
        self._kept = 0
        self._dropped = 0
        self._reply: bytes | None = None
        self._replied = False

    def begin(self, msg_id: str) -> None:
        """Forget the cell before; from now on it is about the one that `msg_id` asked for."""
        self.msg_id, self.executing = msg_id, True
        self._messages = []
        self._kept = self._dropped = 0
        self._reply, self._replied = None, False

    def keep(self, msg_type: str, parts: Sequence[bytes | memoryview]) -> None:
        """Keep a message of this cell, signed and ready to be sent."""
        size = sum(map(len, parts))
        if msg_type == "stream" and len(self._messages) >= _MANY and self._join(parts):
            return
        bound = _KEEP + _RESERVE if msg_type in _MATTERS else _KEEP
        if self._kept + size > bound:
            self._dropped += size
            return
        # the memory behind a buffer is the cell's to change
        self._messages.append([part if type(part) is bytes else bytes(part) for part in parts])
        self._kept += size + _OVERHEAD

    def keep_reply(self, msg_id: str, content: bytes) -> None:
        """Keep the cell's execute_reply."""
        if msg_id == self.msg_id:
            self._reply = content if len(content) <= _MAX_REPLY else None
            self._replied = True

    def messages(self, sign: Callable[[list[bytes]], bytes]) -> Iterator[list[bytes]]:
        """The messages, to be sent again. `sign` makes the signature of a message's four parts."""
        for parts in self._messages:
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
            "dropped_bytes": self._dropped,
            "replied": self._replied,
            "reply": None if self._reply is None else orjson.Fragment(self._reply),
        }

    def _join(self, parts: Sequence[bytes | memoryview]) -> bool:
        """Add a stream's text to the last message, if that is the same stream's."""
        last, content = self._messages[-1], bytes(parts[-1])
        start = next((start for start in _STREAMS if content.startswith(start)), None)
        if start is None or len(parts) != _STREAM_PARTS or len(last) != _STREAM_PARTS:
            return False
        if not last[-1].startswith(start) or not _KEEP - self._kept > len(content) or len(last[-1]) > _JOINED:
            return False
        last[-1] = last[-1].removesuffix(b'"}') + content[len(start) :]
        last[_SIGNATURE] = b""
        self._kept += len(content) - len(start)
        return True
