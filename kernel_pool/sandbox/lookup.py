"""Questions to the broker about tools: what this session may use, and how it is called. Nothing is asked before it is
needed, and a server that is asked about costs names alone until one of its tools is used.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TypeVar

import msgspec

from . import wire
from .tool_index import Server, Tool, readable

#: Longest wait for an answer, seconds; largest answer, bytes.
TIMEOUT_S = 30.0
MAX_ANSWER = 64 * 1024 * 1024


class NoBroker(Exception):
    """There is nobody to ask."""


class NotFound(Exception):
    """The broker's answer is that there is no such thing, or that the question is wrong."""


class ServerLine(msgspec.Struct, frozen=True):
    name: str
    doc: str


class Servers(msgspec.Struct, frozen=True):
    servers: tuple[ServerLine, ...]
    total: int


class FoundTool(msgspec.Struct, frozen=True):
    name: str
    call: str
    effect: str
    doc: str


class _Names(msgspec.Struct, frozen=True):
    name: str
    doc: str
    tools: tuple[str, ...]
    types: tuple[str, ...]


class _Pyi(msgspec.Struct, frozen=True):
    pyi: str


Answer = TypeVar("Answer")


class Lookup:
    """Asks; remembers nothing but which names there are."""

    def __init__(self, path: str) -> None:
        self._path = path

    def servers(self, after: str = "") -> Servers:
        """A page of the servers by name. Raises NoBroker, NotFound."""
        return self._ask("servers", {"after": after}, Servers)

    def server(self, name: str) -> AskedServer:
        """Raises NoBroker, NotFound."""
        return AskedServer(self, self._ask("server", {"name": name}, _Names))

    def tool(self, qualified_name: str) -> Tool:
        """Raises NoBroker, NotFound."""
        return self._ask("tool", {"name": qualified_name}, Tool)

    def pyi(self, server: str) -> str:
        """Raises NoBroker, NotFound."""
        return self._ask("pyi", {"name": server}, _Pyi).pyi

    def search(self, query: str, limit: int) -> tuple[FoundTool, ...]:
        """Best first. Raises NoBroker, NotFound."""
        return self._ask("search", {"query": query, "limit": limit}, tuple[FoundTool, ...])

    def _ask(self, what: str, args: Mapping[str, object], kind: type[Answer]) -> Answer:
        try:
            body = self._exchange(wire.Look(id=os.urandom(8).hex(), what=what, args=json.dumps(args).encode()))
            return msgspec.json.decode(body, type=kind)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NoBroker(f"the tool broker does not answer ({error})") from None

    def _exchange(self, look: wire.Look) -> bytes:
        """A connection of its own: no call waits for a question, and none is in its way."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(self._path)
            connection.sendall(wire.frame(wire.LOOK, look))
            deadline = time.monotonic() + TIMEOUT_S
            size, kind = wire.HEADER.unpack(_read(connection, wire.HEADER.size, deadline))
            if size > MAX_ANSWER:
                raise ConnectionError(f"an answer of {size:,} bytes")
            body = _read(connection, size, deadline)
        if kind == wire.ERROR:
            raise NotFound(readable(msgspec.msgpack.decode(body, type=wire.Error).message))
        if kind != wire.FOUND:
            raise ConnectionError(f"an answer of kind {kind}")
        return msgspec.msgpack.decode(body, type=wire.Found).value


class AskedServer:
    """A server as the broker knows it: names at once, a tool or a type when it is used."""

    def __init__(self, lookup: Lookup, names: _Names) -> None:
        self._lookup = lookup
        self.name = names.name
        self.doc = names.doc
        self.names = names.tools
        self.type_names = names.types

    def tool(self, name: str) -> Tool | None:
        """Raises NoBroker."""
        if name not in self.names:
            return None
        try:
            return self._lookup.tool(f"{self.name}.{name}")
        except NotFound:
            return None  # it has gone since

    def typed_dict(self, name: str) -> type:
        """Raises NoBroker, NotFound."""
        return self._whole.typed_dict(name)

    @cached_property
    def _whole(self) -> Server:
        return Server(self.name, self.doc, self._lookup.pyi(self.name), ())


def _read(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Raises OSError."""
    parts: list[bytes] = []
    while size:
        if time.monotonic() > deadline:
            raise TimeoutError("it takes too long")
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise ConnectionResetError("closed by the broker")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
