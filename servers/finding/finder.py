"""Search over a snapshot of tools: who may call what first, rank after."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from servers.registry import Registry
from servers.tool import Role, Tool

from .entry import Entry, entry_of
from .index import Floats, Index, Mask, Part, part_of
from .intent import traits_of, wanted
from .naming import Named, Names
from .ranking import BY_MEANING_TOO, BY_WORDS, LEAST_ALIKE, Ranking
from .words import wishes

#: How near in meaning each of a snapshot's tools is to a text: 1 where they mean the same.
Likeness = Callable[[str], Floats]

#: Characters of a query that are read.
MAX_QUERY = 1_000
#: Servers whose part is kept for the next snapshot that has them.
MAX_PARTS = 2_048


class Finder:
    """The tools of one snapshot, ready to be searched. Never changes; safe to share between threads."""

    def __init__(self, tools: Sequence[Tool], parts: Sequence[Part], titles: Mapping[str, str]) -> None:
        self.tools = tuple(tools)
        self._index = Index(parts)
        self._names = Names({tool.server: titles.get(tool.server, "") for tool in self.tools})
        self._ranking = Ranking([traits_of(tool) for tool in self.tools])
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
        self,
        query: str,
        role: Role | Collection[Role] | None = None,
        limit: int = 10,
        server: str | None = None,
        alike: Likeness | None = None,
    ) -> list[Tool]:
        """The tools that have to do with `query`, best first.

        With `role` (or several) as if there were no others than those that it may call; with `server` its tools alone.
        `alike`: how near each tool is in meaning to what the query asks for, servers' names left out.
        """
        if not self.tools or limit <= 0:
            return []
        query = query[:MAX_QUERY]
        allowed = self._allowed(role, server)
        named = self._named(query, allowed)
        silent = {stem: self._of_servers(dict.fromkeys(servers, 1.0)) > 0 for stem, servers in named.consumed.items()}
        weights = BY_WORDS if alike is None else BY_MEANING_TOO
        asked = wishes(query, weights.otherwise)
        if not asked:
            return []
        scores = self._index.scores(asked, allowed, silent)
        for weight, found in ((weights.named, named.by_name), (weights.mentioned, named.by_word)):
            if found:
                scores += np.float32(weight) * self._of_servers(found)
        possible = scores > 0
        if alike is not None:
            near = alike(named.rest)
            possible |= near > LEAST_ALIKE
            scores += np.float32(weights.alike) * near
        scores += np.float32(weights.deed) * self._ranking.worth(wanted(query))
        if allowed is not None:
            possible &= allowed
        return self._best(scores, np.flatnonzero(possible), limit)

    def _best(self, scores: Floats, possible: npt.NDArray[np.intp], limit: int) -> list[Tool]:
        best = possible
        if len(best) > limit:
            least = np.partition(scores[best], len(best) - limit)[len(best) - limit]
            best = best[scores[best] >= least]
        order = np.lexsort((self._place[best], -scores[best]))
        return [self.tools[i] for i in best[order][:limit]]

    def _named(self, query: str, allowed: Mask | None) -> Named:
        def visible() -> Collection[str]:
            return self._servers.keys() if allowed is None else self._visible(allowed)

        return self._names.named(query, visible, lambda stem, servers: self._elsewhere(stem, servers, allowed))

    def _of_servers(self, values: Mapping[str, float]) -> Floats:
        by_server = np.zeros(len(self._servers), dtype=np.float32)
        for server, value in values.items():
            by_server[self._servers[server]] = value
        return by_server[self._server_of]

    def _visible(self, allowed: Mask) -> frozenset[str]:
        present = np.bincount(self._server_of[allowed], minlength=len(self._servers))
        return frozenset(name for name, number in self._servers.items() if present[number])

    def _elsewhere(self, stem: str, servers: Collection[str], allowed: Mask | None) -> int:
        tools = self._index.tools_with(stem)
        if allowed is not None:
            tools = tools[allowed[tools]]
        return int((~np.isin(self._server_of[tools], [self._servers[server] for server in servers])).sum())

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
        return Finder([tool for tools in by_server.values() for tool in tools], parts, registry.documents)

    def _part(self, entries: tuple[Entry, ...]) -> Part:
        part = self._parts.pop(entries, None) or part_of(entries)
        self._parts[entries] = part
        while len(self._parts) > MAX_PARTS:
            self._parts.popitem(last=False)
        return part
