"""The catalogue's snapshots: the tools that may be called, as each tenant has them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from gateway.tool_catalogue import Catalogue
from servers.context import ToolContext
from servers.foreign.settling import settle
from servers.foreign.tool import ForeignToolError, foreign_tool
from servers.tool import Tool

from .book import Book, Pin
from .config import ServerConfig

Call: TypeAlias = Callable[[ServerConfig, str, ToolContext, dict[str, Any]], Awaitable[Any]]


class Snapshots:
    """Makes each definition a tool once, and a new snapshot when something has changed."""

    def __init__(
        self,
        configs: Sequence[ServerConfig],
        book: Book,
        catalogue: Catalogue,
        call: Call,
        broken: Callable[[ServerConfig, str], None],
    ) -> None:
        """`broken` is told of a tool, by its server's name, whose result did not fit what the server declares."""
        self._configs = configs
        self._book = book
        self._catalogue = catalogue
        self._call = call
        self._broken = broken
        self._made: dict[tuple[ServerConfig, str, str], Tool | str] = {}
        self._lock = asyncio.Lock()
        #: What could not be taken over, by server, for people.
        self.notes: dict[ServerConfig, tuple[str, ...]] = {}

    async def renew(self) -> None:
        """Make the catalogue follow what the book says now."""
        async with self._lock:
            for config in self._configs:
                found = [await self._tool(config, pin) for pin in self._pins(config)]
                problems = [each for each in found if isinstance(each, str)]
                settled = settle(each for each in found if isinstance(each, Tool))
                self.notes[config] = (*problems, *settled.problems)
            tenants = {"", *(each.owner for each in self._configs), *self._book.tenants}
            for tenant in sorted(tenants):
                self._catalogue.put(tenant, self._tools(tenant), self._documents(tenant))
                await asyncio.sleep(0)  # thousands of tools must not hold up cells

    def _tools(self, tenant: str) -> list[Tool]:
        """The tools of all servers that a tenant has, as they count for it."""
        tools = []
        for config in self._of(tenant):
            for pin in self._pins(config):
                made = self._made.get((config, pin.key.name, pin.definition.digest))
                if isinstance(made, Tool):
                    ruling = self._book.ruling(tenant, pin)
                    tools.append(replace(made, effect=ruling.effect, roles=ruling.roles))
        return tools

    def _documents(self, tenant: str) -> dict[str, str]:
        return {each.module: f"Tools of the MCP server {each.name!r}." for each in self._of(tenant)}

    def _of(self, tenant: str) -> list[ServerConfig]:
        return [each for each in self._configs if each.owner in ("", tenant)]

    def _pins(self, config: ServerConfig) -> list[Pin]:
        return [pin for pin in self._book.of_server(config.owner, config.module) if pin.listed]

    async def _tool(self, config: ServerConfig, pin: Pin) -> Tool | str:
        """Or why there is none."""
        key = (config, pin.key.name, pin.definition.digest)
        if key not in self._made:
            await asyncio.sleep(0)
            try:
                name = pin.key.name
                call, broken = partial(self._call, config, name), partial(self._broken, config, name)
                made = foreign_tool(config.module, pin.definition, call=call, broken=broken)
            except ForeignToolError as error:
                self._made[key] = str(error)
            else:
                self._made[key] = made
        return self._made[key]
