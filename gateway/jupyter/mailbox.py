"""What one client of a kernel has still to be sent: bounded while it is there, and kept while it is away."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from gateway.jupyter.answers import notice
from gateway.jupyter.wire import Posted

#: Codes of RFC 6455 and its registry.
REPLACED, GONE, BAD, RESTART, TRY_LATER = 1000, 1001, 1007, 1012, 1013


@dataclass(eq=False)
class Seat:
    """One connection of a client."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    code: int = 1000
    reason: str = ""

    def end(self, code: int, reason: str) -> None:
        """Close it; the first reason counts."""
        if not self.ended.is_set():
            self.code, self.reason = code, reason
            self.ended.set()
            self.wake.set()


class Mailbox:
    """One client's, whichever connection it has at the moment. `put` never waits."""

    def __init__(self, session_id: str, *, unread: int, absent: int) -> None:
        """`unread`, `absent`: bytes that may wait while the client is there, and while it is away."""
        self.session_id = session_id
        self.seat: Seat | None = None
        self._unread = unread
        self._absent = absent
        self._waiting: deque[Posted] = deque()
        self._bytes = 0
        self._dropped = 0

    def put(self, posted: Posted) -> None:
        """One more message."""
        self._waiting.append(posted)
        self._bytes += posted.size
        if self.seat is None or self.seat.ended.is_set():
            self._make_room(self._absent)
            return
        if self._bytes > self._unread:
            self.seat.end(TRY_LATER, "read too slowly; connect again with the same session_id")
            self._make_room(self._absent)
        self.seat.wake.set()

    def enter(self) -> Seat:
        """A connection for the client; one that it had ends."""
        if self.seat is not None:
            self.seat.end(REPLACED, "another connection with the same session_id took its place")
        self.seat = Seat()
        if self._dropped:
            told = notice(f"[{self._dropped} earlier messages were not kept for this client]")
            self._waiting.appendleft(told)
            self._bytes += told.size
            self._dropped = 0
        return self.seat

    def leave(self, seat: Seat) -> None:
        """The end of a connection."""
        if seat is self.seat:
            self.seat = None
            self._make_room(self._absent)

    async def next(self, seat: Seat) -> Posted | None:
        """The next message; None when the connection is to end."""
        while not seat.ended.is_set():
            if self._waiting:
                posted = self._waiting.popleft()
                self._bytes -= posted.size
                return posted
            seat.wake.clear()
            await seat.wake.wait()
        return None

    def _make_room(self, most: int) -> None:
        """Drop the oldest outputs; what says how a request ended goes last, for it may come before its outputs."""
        if self._bytes <= most:
            return
        for droppable in (_is_output, _is_anything):
            kept: deque[Posted] = deque()
            for posted in self._waiting:
                # some more than has to be, so that it is not done anew for every message
                if self._bytes > most - most // 4 and droppable(posted):
                    self._bytes -= posted.size
                    self._dropped += 1
                else:
                    kept.append(posted)
            self._waiting = kept
            if self._bytes <= most:
                return


def _is_output(posted: Posted) -> bool:
    return posted.message.channel == "iopub" and posted.message.msg_type not in ("status", "error", "execute_input")


def _is_anything(posted: Posted) -> bool:
    return True
