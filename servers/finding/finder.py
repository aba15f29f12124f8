"""Search over a snapshot of tools: who may call what first, rank after."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from servers.registry import Registry
from servers.tool import Role, Tool

from .entry import Entry, entry_of
from .index import Index, Mask, Part, part_of
from .words import wishes

#: Characters of a query that are read.
MAX_QUERY = 1_000
#: Servers whose part is kept for the next snapshot that has them.
MAX_PARTS = 2_048


class Finder:
    """The tools of one snapshot, ready to be searched. Never changes; safe to share between threads."""

    def __init__(self, tools: Sequence[Tool], parts: Sequence[Part]) -> None:
        self.tools = tuple(tools)
        self._index = Index(parts)
        self._of_role = {
            role: np.fromiter((role in tool.roles for tool in self.tools), bool, len(self.tools))
            for role in {role for tool in self.tools for role in tool.roles}
        }
        self._servers = {name: number for number, name in enumerate(dict.fromkeys(tool.server for tool in self.tools))}
        numbers = (self._servers[tool.server] for tool in self.tools)
        self._server_of = np.fromiter(numbers, np.int32, len(self.tools))
        # at the same score the shorter name, then the first by name: the order is the same in every process
        names = [tool.qualified_name for tool in self.tools]
        by_name = sorted(range(len(names)), key=lambda i: (len(names[i]), names[i]))
        self._place = np.empty(len(names), dtype=np.int32)
        self._place[by_name] = np.arange(len(names), dtype=np.int32)

    def find(
        self, query: str, role: Role | Collection[Role] | None = None, limit: int = 10, server: str | None = None
    ) -> list[Tool]:
        """The tools that have to do with `query`, best first.

        With `role` (or several) as if there were no others than those that it may call; with `server` its tools alone.
        """
        if not self.tools or limit <= 0:
            return []
        scores = self._index.scores(wishes(query[:MAX_QUERY]), self._allowed(role, server))
        best = np.flatnonzero(scores)
        if len(best) > limit:
            least = np.partition(scores[best], len(best) - limit)[len(best) - limit]
            best = best[scores[best] >= least]
        order = np.lexsort((self._place[best], -scores[best]))
        return [self.tools[i] for i in best[order][:limit]]

    def _allowed(self, role: Role | Collection[Role] | None, server: str | None) -> Mask | None:
        if role is None and server is None:
            return None
        roles = (role,) if isinstance(role, str) else role
        allowed = np.full(len(self.tools), roles is None)
        for each in roles or ():
            if each in self._of_role:
                allowed |= self._of_role[each]
        return allowed if server is None else allowed & (self._server_of == self._servers.get(server, -1))


class Finders:
    """A finder for each snapshot, made once and shared by all that look at the same one.

    What changed between two snapshots is read anew: the parts of servers that stayed are kept.
    """

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Registry, Finder] = WeakKeyDictionary()
        self._parts: OrderedDict[tuple[Entry, ...], Part] = OrderedDict()
        self._making = threading.Lock()

    def ready(self, registry: Registry) -> Finder | None:
        """The snapshot's finder if it has been made."""
        return self._made.get(registry)

    def of(self, registry: Registry) -> Finder:
        """The snapshot's finder; made where there is none: 10,000 tools take about a second. Not for an event loop."""
        with self._making:
            found = self._made.get(registry)
            if found is None:
                found = self._made[registry] = self._make(registry)
            return found

    def _make(self, registry: Registry) -> Finder:
        by_server: dict[str, list[Tool]] = {}
        for tool in registry:
            by_server.setdefault(tool.server, []).append(tool)
        parts = []
        for server, tools in by_server.items():
            entries = tuple(entry_of(tool, registry.documents.get(server, "")) for tool in tools)
            parts.append(self._part(entries))
        return Finder([tool for tools in by_server.values() for tool in tools], parts)

    def _part(self, entries: tuple[Entry, ...]) -> Part:
        part = self._parts.pop(entries, None) or part_of(entries)
        self._parts[entries] = part
        while len(self._parts) > MAX_PARTS:
            self._parts.popitem(last=False)
        return part
