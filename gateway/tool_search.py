"""Search over the tools of a tenant, for whoever asks: a kernel, a client over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from gateway.tool_catalogue import Catalogue
from servers.finding.finder import Finder, Finders
from servers.registry import Registry
from servers.tool import Role, Tool


class ToolSearch:
    """The index of a snapshot is made at its first search, off the event loop, and shared by all its sessions."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._finders = Finders()

    async def find(
        self, tenant: str, role: Role | Collection[Role] | None, query: str, limit: int, server: str | None = None
    ) -> Sequence[Tool]:
        """What the role may call of the tenant's tools (or of one server's) and has to do with `query`, best first.

        Several roles: what any of them may call; None: all.
        """
        finder = await self._finder(self.catalogue.of_tenant(tenant))
        return finder.find(query, role, limit, server)

    async def _finder(self, registry: Registry) -> Finder:
        ready = self._finders.ready(registry)
        return ready if ready is not None else await asyncio.to_thread(self._finders.of, registry)
