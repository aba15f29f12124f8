"""What stands between the gateway and Postgres: a unix socket whose connections break when a test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

#: "request lost": it never comes to the server. "answer lost": the server has committed, and nobody hears of it.
Fault = Literal["request lost", "answer lost"]

_SOCKET = ".s.PGSQL.5432"
#: ReadyForQuery, idle: the statement is committed. https://www.postgresql.org/docs/current/protocol-message-formats.html
_READY = b"Z\x00\x00\x00\x05I"


@dataclass
class Proxy:
    target: str
    _fault: Fault | None = None
    _holding: bytes = b""
    #: Connections that were broken.
    broken: int = 0
    _links: set[asyncio.Task[None]] = field(default_factory=set)

    def arm(self, fault: Fault, holding: bytes = b"") -> None:
        """The next that a client sends, and that holds these bytes, is the last of its connection."""
        self._fault, self._holding = fault, holding

    def _take(self, data: bytes) -> Fault | None:
        if self._fault is None or self._holding not in data:
            return None
        fault, self._fault = self._fault, None
        self.broken += 1
        return fault

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(self.target)
        #: What the server says is kept from the client from now on.
        deaf = asyncio.Event()

        async def up() -> None:
            while data := await reader.read(65536):
                fault = self._take(data)
                if fault == "request lost":
                    return
                if fault == "answer lost":
                    deaf.set()
                to_server.write(data)
                await to_server.drain()

        async def down() -> None:
            heard = b""
            while data := await server.read(65536):
                if not deaf.is_set():
                    writer.write(data)
                    await writer.drain()
                elif (heard := heard + data).endswith(_READY):
                    return

        ways = [asyncio.create_task(way()) for way in (up, down)]
        self._links.update(ways)
        # one way that ends, ends the other
        for way in ways:
            way.add_done_callback(lambda _: [other.cancel() for other in ways])
        await asyncio.gather(*ways, return_exceptions=True)
        self._links.difference_update(ways)
        writer.transport.abort()
        to_server.transport.abort()


@asynccontextmanager
async def proxied(url: str, folder: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the Postgres of that URL, and the URL that leads through it."""
    [host] = parse_qs(urlsplit(url).query)["host"]
    proxy = Proxy(f"{host}/{_SOCKET}")
    server = await asyncio.start_unix_server(proxy.connected, str(folder / _SOCKET))
    try:
        yield proxy, url.replace(quote(host, safe=""), quote(str(folder), safe=""))
    finally:
        server.close()
        links = tuple(proxy._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)
