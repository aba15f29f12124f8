"""A way to a server that can be cut: every connection over it ends, and for a while there is no other."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Way:
    port: int
    _until: float = 0.0
    _links: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)

    def cut(self, seconds: float) -> None:
        """End what is connected; refuse everything for so long."""
        self._until = time.monotonic() + seconds
        for link in self._links:
            for end in link:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._links.clear()

    def take(self, client: socket.socket, target: int) -> None:
        if time.monotonic() < self._until:
            client.close()
            return
        server = socket.create_connection(("127.0.0.1", target))
        self._links.append((client, server))
        threading.Thread(target=_carry, args=(client, server), daemon=True).start()


def _carry(client: socket.socket, server: socket.socket) -> None:
    others = {client: server, server: client}
    with selectors.DefaultSelector() as ready, client, server, contextlib.suppress(OSError):
        for end in others:
            ready.register(end, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                end = key.fileobj
                assert isinstance(end, socket.socket)
                data = end.recv(65536)
                if not data:
                    return
                others[end].sendall(data)


@contextmanager
def way_to(target: int) -> Iterator[Way]:
    """To a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        way = Way(listener.getsockname()[1])

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    way.take(listener.accept()[0], target)

        threading.Thread(target=accept, daemon=True).start()
        yield way
        way.cut(60)
