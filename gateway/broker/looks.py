"""What a kernel may ask about tools: not calls, so neither journaled nor of a cell. (LOOK and FOUND of the wire.)

An answer has what the session's role may call and nothing else, of the tenant's snapshot as it is now.

    servers  {after}          names and first lines of the servers after that name, and how many there are
    server   {name}           one server: its description, the names of its tools and types
    tool     {name}           one tool's entry, as the index in the sandbox has it
    pyi      {name}           one server's stub as text
    search   {query, limit}   tools that have to do with it, best first, each as a line
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiolimiter import AsyncLimiter

from gateway.settings import BrokerSettings
from gateway.tool_search import ToolSearch
from gateway.types import Grant
from servers.checking import closest
from servers.errors import ToolInputError, ToolNotFound
from servers.finding.lines import call_line
from servers.registry import Registry, entry_of
from servers.rendering import named_types, pyi
from servers.tool import Role, Tool

#: Characters of a name that is asked for, and of a server's description in a list.
MAX_NAME = 200
MAX_LINE = 160
#: Servers in one answer, and tools that one search finds at most.
PAGE = 100
MAX_FOUND = 50


class Looks:
    """Answers one session's questions about tools, at a pace that is no load."""

    def __init__(self, grant: Grant, search: ToolSearch, settings: BrokerSettings) -> None:
        self._grant = grant
        self._search = search
        self._max_bytes = settings.look_mb * 2**20
        self._pace = AsyncLimiter(settings.looks_per_second, 1.0)
        self._answers: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Any]]] = {
            "servers": self._servers,
            "server": self._server,
            "tool": self._tool,
            "pyi": self._pyi,
            "search": self._found,
        }

    async def answer(self, what: str, args: bytes) -> bytes:
        """The answer as JSON. A session that asks too fast waits.

        Raises:
            ToolNotFound: there is no such server or tool for this session; with the likely name.
            ToolInputError: the question cannot be understood, or its answer is too large.
        """
        async with self._pace:
            ask = self._answers.get(what)
            if ask is None:
                raise ToolInputError(f"There is no question {what[:40]!r}; there are {', '.join(self._answers)}.")
            text = msgspec.json.encode(await ask(_arguments(args)))
        if len(text) > self._max_bytes:
            raise ToolInputError(f"The answer takes {len(text):,} bytes; the most is {self._max_bytes:,}.")
        return text

    async def _servers(self, args: Mapping[str, Any]) -> dict[str, Any]:
        after = _text(args, "after", "")
        registry = self._registry
        names = sorted(name for name in registry.documents if _allowed(registry, name, self._grant.role))
        page = [name for name in names if name > after][:PAGE]
        lines = [{"name": name, "doc": _first_line(registry.documents[name])} for name in page]
        return {"servers": lines, "total": len(names)}

    async def _server(self, args: Mapping[str, Any]) -> dict[str, Any]:
        name, tools = self._named(args)
        types = [t.name if hasattr(t, "name") else t.__name__ for t in named_types(tools).values()]
        doc = self._registry.documents.get(name, "")
        return {"name": name, "doc": doc, "tools": [tool.name for tool in tools], "types": types}

    async def _tool(self, args: Mapping[str, Any]) -> dict[str, Any]:
        name = _text(args, "name")
        tool = self._registry.find(name)
        if tool is None or self._grant.role not in tool.roles:
            server, _, short = name.partition(".")
            allowed = _allowed(self._registry, server, self._grant.role)
            likely = closest(short, [t.name for t in allowed])
            advice = f" Did you mean {server}.{likely}?" if likely else ' servers.search("...") finds tools.'
            raise ToolNotFound(f"There is no tool {name!r}.{advice}", tool=name)
        return entry_of(tool)

    async def _pyi(self, args: Mapping[str, Any]) -> dict[str, Any]:
        name, tools = self._named(args)
        doc = self._registry.documents.get(name, "")
        return {"pyi": await asyncio.to_thread(pyi, doc, tools)}

    async def _found(self, args: Mapping[str, Any]) -> list[dict[str, str]]:
        limit = args.get("limit", 20)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit <= MAX_FOUND:
            raise ToolInputError(f"search: limit is a number from 1 to {MAX_FOUND}.")
        query = _text(args, "query", limit=1000)
        found = await self._search.find(self._grant.tenant, self._grant.role, query, limit)
        return [{"name": t.qualified_name, "call": call_line(t), "effect": t.effect, "doc": t.summary} for t in found]

    @property
    def _registry(self) -> Registry:
        return self._search.catalogue.of(self._grant)

    def _named(self, args: Mapping[str, Any]) -> tuple[str, list[Tool]]:
        """Raises ToolNotFound where the session may call nothing of the server: that is as if there were none."""
        name, registry, role = _text(args, "name"), self._registry, self._grant.role
        if tools := _allowed(registry, name, role):
            return name, tools
        likely = closest(name, [server for server in registry.documents if _allowed(registry, server, role)])
        raise ToolNotFound(f"There is no server {name!r}." + (f" Did you mean {likely}?" if likely else ""))


def _allowed(registry: Registry, server: str, role: Role) -> list[Tool]:
    return [tool for tool in registry.of_server(server) if role in tool.roles]


def _first_line(doc: str) -> str:
    return doc.strip().partition("\n")[0][:MAX_LINE]


def _arguments(args: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(args)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ToolInputError("The arguments are no JSON object.")
    return found


def _text(args: Mapping[str, Any], key: str, default: str | None = None, *, limit: int = MAX_NAME) -> str:
    value = args.get(key, default)
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise ToolInputError(f"{key} is a text of up to {limit} characters.")
    return value
