"""Connections, held by uvicorn's protocols: bounded in their number, in how slowly clients may send, and in what waits
for a client that does not read. Whoever goes beyond is cut off alone."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from gateway.settings import ServerSettings

#: Bytes of pongs, among other things, that may wait for a client.
_UNREAD = 1024 * 1024
#: Pieces of one message; clients that cut messages up make some dozens.
_PIECES = 4096
#: Pings between two messages of a client.
_PINGS = 1000
_POLICY = 1008


def protocols(settings: ServerSettings) -> tuple[type[H11Protocol], type[WebSocketsSansIOProtocol]]:
    """For HTTP and for websockets, with these limits."""

    class Http(_Http):
        limits = settings

    class Websocket(_Websocket):
        limits = settings

    return Http, Websocket


class _Http(H11Protocol):
    """A request's head comes within `head_s`, from the connection on or from its first byte; there are so many."""

    limits: ServerSettings
    _refused = False
    _upgraded = False
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.limits.connections:
            self._refused = True
            transport.abort()
            return
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._upgraded or (self.cycle is not None and not self.cycle.response_complete):
            self._unwatch()
        elif self._head is None:
            self._watch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._upgraded = True
        super().handle_websocket_upgrade(event)

    def _watch(self) -> None:
        self._head = self.loop.call_later(self.limits.head_s, self._cut)

    def _unwatch(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _cut(self) -> None:
        self._head = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class _Websocket(WebSocketsSansIOProtocol):
    """A message comes whole within `message_s`, in not too many pieces; a flood of pings is none."""

    limits: ServerSettings
    _partial: asyncio.TimerHandle | None = None
    _pings = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        incomplete = bool(self.frames) or bool(self.conn.reader.buffer)
        if not incomplete or self.close_sent:
            self._unwatch()
        elif self._partial is None:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def send_receive_event_to_app(self) -> None:
        self._pings = 0
        super().send_receive_event_to_app()

    def handle_cont(self, event: Frame) -> None:
        super().handle_cont(event)
        if len(self.frames) > _PIECES:
            self._fail(f"a message of more than {_PIECES} pieces")

    def handle_ping(self) -> None:
        self._pings += 1
        if self._pings > _PINGS or self.transport.get_write_buffer_size() > _UNREAD:
            self._fail("too many pings")
            return
        super().handle_ping()

    def _watch(self) -> None:
        self._partial = self.loop.call_later(self.limits.message_s, self._late)

    def _unwatch(self) -> None:
        if self._partial is not None:
            self._partial.cancel()
            self._partial = None

    def _late(self) -> None:
        self._partial = None
        if self.read_paused:  # it is the gateway that takes its time
            self._watch()
        else:
            self._fail(f"a message did not come to its end in {self.limits.message_s:g} s")

    def _fail(self, reason: str) -> None:
        """Close with a code and a reason; what comes after is not looked at."""
        if self.close_sent or self.transport.is_closing():
            return
        self.frames = []
        if self.handshake_complete:
            self.conn.data_to_send()
            self.conn.fail(_POLICY, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": _POLICY, "reason": reason})
        self._end()

    def _end(self) -> None:
        """A client that does not read is not waited for."""
        if self.transport.get_write_buffer_size() > _UNREAD:
            self.transport.abort()
        else:
            self.transport.close()
