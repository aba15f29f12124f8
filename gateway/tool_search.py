"""Search over the tools of a tenant, for whoever asks: a kernel, a client over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from weakref import WeakKeyDictionary

import structlog

from gateway.tool_catalogue import Catalogue
from gateway.tool_vectors import Floats, ToolVectors
from servers.finding.finder import Finder, Finders
from servers.finding.meaning import Space, text_of
from servers.registry import Registry
from servers.tool import Role, Tool

log = structlog.get_logger(__name__)


class ToolSearch:
    """The index of a snapshot is made at its first search, off the event loop, and shared by all its sessions.

    With `vectors` tools are ranked by meaning too, as soon as those of the snapshot are there; until then by words.
    """

    def __init__(self, catalogue: Catalogue, vectors: ToolVectors | None = None) -> None:
        self.catalogue = catalogue
        self._finders = Finders()
        self._vectors = vectors
        self._spaces: WeakKeyDictionary[Finder, Space] = WeakKeyDictionary()
        self._making: WeakKeyDictionary[Finder, asyncio.Task[None]] = WeakKeyDictionary()

    async def find(
        self, tenant: str, role: Role | Collection[Role] | None, query: str, limit: int, server: str | None = None
    ) -> Sequence[Tool]:
        """What the role may call of the tenant's tools (or of one server's) and has to do with `query`, best first.

        Several roles: what any of them may call; None: all.
        """
        finder = await self._finder(self.catalogue.of_tenant(tenant))
        search = partial(finder.find, query, role, limit, server)
        space = self._spaces.get(finder)
        if self._vectors is None or space is None:
            self._begin(finder)
            return search()
        return await self._vectors.answer(partial(search, partial(_alike, self._vectors, space)))

    async def settled(self, tenant: str) -> bool:
        """Wait until the tenant's tools are ranked by meaning too. False: they will not be."""
        finder = await self._finder(self.catalogue.of_tenant(tenant))
        self._begin(finder)
        if finder in self._making:
            await asyncio.wait([self._making[finder]])
        return finder in self._spaces

    async def close(self) -> None:
        for task in list(self._making.values()):
            task.cancel()
        if self._vectors is not None:
            await self._vectors.close()

    async def _finder(self, registry: Registry) -> Finder:
        ready = self._finders.ready(registry)
        return ready if ready is not None else await asyncio.to_thread(self._finders.of, registry)

    def _begin(self, finder: Finder) -> None:
        if self._vectors is None or finder in self._making:
            return
        if not 0 < len(finder.tools) <= self._vectors.settings.most_vectors:
            return
        self._making[finder] = asyncio.create_task(self._make(self._vectors, finder))

    async def _make(self, vectors: ToolVectors, finder: Finder) -> None:
        try:
            made = await vectors.of_tools([text_of(tool) for tool in finder.tools])
            self._spaces[finder] = await asyncio.to_thread(Space, made)
        except Exception:
            log.exception("tools are found by words alone", tools=len(finder.tools))


def _alike(vectors: ToolVectors, space: Space, text: str) -> Floats:
    return space.alike(vectors.of_query(text))
