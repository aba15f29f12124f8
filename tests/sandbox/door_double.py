"""A broker's socket that answers as a test says: a real unix socket, the real wire protocol, no gateway behind it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from kernel_pool.sandbox import wire

#: Gets tool and arguments; returns the result, or raises wire-level errors as `Refuse`, or never answers (`SILENCE`).
Answer = Callable[[str, dict[str, Any]], Any]

SILENCE = object()
HANG_UP = object()


class Refuse(Exception):
    def __init__(self, type: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.error = wire.Error(id="", type=type, message=message, **details)


class DoorDouble:
    """Serves each connection in a thread; keeps every call and cancel."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path = path
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.cancels: list[str] = []
        self.ids: list[str] = []
        self.connections = self.most_at_once = 0
        self.called = threading.Event()
        self.cancelled = threading.Event()
        self._open = 0
        self._lock = threading.Lock()
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(100)
        self._peers: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        self.path.unlink()

    def hang_up(self) -> None:
        """Close every connection."""
        with self._lock:
            for peer in self._peers:
                peer.close() if peer.fileno() < 0 else peer.shutdown(socket.SHUT_RDWR)
            self._peers.clear()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._peers.append(peer)
                self.connections += 1
                self._open += 1
                self.most_at_once = max(self.most_at_once, self._open)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as stream:
            try:
                while header := stream.read(wire.HEADER.size):
                    size, kind = wire.HEADER.unpack(header)
                    if not self._handle(peer, kind, stream.read(size)):
                        break
            except OSError:
                pass
            finally:
                with self._lock:
                    self._open -= 1
                    if peer in self._peers:
                        self._peers.remove(peer)

    def _handle(self, peer: socket.socket, kind: int, body: bytes) -> bool:
        if kind == wire.CANCEL:
            self.cancels.append(msgspec.msgpack.decode(body, type=wire.Cancel).id)
            self.cancelled.set()
            return True
        if kind == wire.LOOK:
            return False  # it knows nothing of tools
        call = msgspec.msgpack.decode(body, type=wire.Call)
        args = json.loads(call.args)
        self.calls.append((call.tool, args))
        self.ids.append(call.id)
        self.called.set()
        try:
            value = self._answer(call.tool, args)
        except Refuse as refused:
            error = msgspec.structs.replace(refused.error, id=call.id)
            peer.sendall(wire.frame(wire.ERROR, error))
            return True
        if value is HANG_UP:
            return False
        if value is not SILENCE:
            peer.sendall(wire.frame(wire.RESULT, wire.Result(id=call.id, value=json.dumps(value).encode())))
        return True
