"""Which tools a session has before it: a snapshot per tenant. (The products of a shop are in `gateway.catalog`.)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from gateway.types import Grant
from servers.foreign.settling import settle
from servers.registry import Registry
from servers.tool import Tool


class Shown(Protocol):
    """What is known of tools beside their definitions, by tenant."""

    @property
    def tenants(self) -> frozenset[str]:
        """Those of whom something is known."""
        ...

    def shown(self, tenant: str, tool: Tool) -> Tool: ...


class Catalogue:
    """The built-in servers, which all tenants share, and on top of them those that a tenant has from elsewhere.

    A snapshot never changes; a change makes another one. With `shapes` a tenant's tools have the return types that its
    own results had.
    """

    def __init__(self, built_in: Registry, shapes: Shown | None = None) -> None:
        self.built_in = built_in
        self._shapes = shapes
        self._given: dict[str, tuple[tuple[Tool, ...], dict[str, str]]] = {}
        self._snapshots: dict[str, Registry] = {}

    def of(self, grant: Grant) -> Registry:
        """All tools of the grant's tenant as they are now. Which roles may call one is in its record."""
        return self.of_tenant(grant.tenant)

    def of_tenant(self, tenant: str) -> Registry:
        """All tools of a tenant as they are now; "": those that every tenant has."""
        if not self._given:
            return self.built_in
        known = self._shapes.tenants if self._shapes is not None else frozenset()
        own = tenant if tenant in self._given or tenant in known else ""
        if own not in self._snapshots:
            self._snapshots[own] = self._snapshot(own)
        return self._snapshots[own]

    def put(self, tenant: str, tools: Iterable[Tool], documents: Mapping[str, str]) -> None:
        """Give a tenant these tools besides the built-in ones; "": every tenant that has none of its own.

        Raises:
            Collision: two of them have one name.
        """
        before = self._given.get(tenant)
        self._given[tenant] = tuple(tools), dict(documents)
        try:
            made = self._snapshot(tenant)
        except Exception:
            self._given.pop(tenant) if before is None else self._given.update({tenant: before})
            raise
        if not tenant:  # those without servers of their own have everyone's
            self._snapshots = {own: made for own, made in self._snapshots.items() if own in self._given}
        self._snapshots[tenant] = made

    def renew(self, tenant: str) -> None:
        """Something else is known of the tenant's tools: make its snapshot again when it is next asked for."""
        self._snapshots.pop(tenant, None)

    def _snapshot(self, tenant: str) -> Registry:
        tools, documents = self._given.get(tenant) or self._given.get("", ((), {}))
        if self._shapes is not None:
            tools = tuple(self._shapes.shown(tenant, tool) for tool in tools)
        servers: dict[str, list[Tool]] = {}
        for tool in tools:
            servers.setdefault(tool.server, []).append(tool)
        foreign = [tool for own in servers.values() for tool in settle(own).tools]
        return Registry([*self.built_in, *foreign], {**self.built_in.documents, **documents})

    def tool(self, tenant: str, name: str) -> Tool | None:
        """The tool `server.name` of a tenant, if it still has it."""
        tools = self.of_tenant(tenant)
        return tools.get(name) if name in tools else None
