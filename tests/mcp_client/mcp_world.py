"""A broker over MCP servers, on a real database, without kernels."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.broker import Broker, Contexts, Journal
from gateway.broker.scrub import Scrubber
from gateway.credentials.known import Secrets
from gateway.credentials.vault import CredentialMissing
from gateway.db import Database
from gateway.mcp_client.book import Book, Pin, ToolKey
from gateway.mcp_client.config import ServerConfig
from gateway.mcp_client.servers import McpServers
from gateway.settings import BrokerSettings, McpSettings, Settings
from gateway.tool_catalogue import Catalogue
from gateway.types import CallRecord, Grant
from servers.errors import ToolError
from servers.registry import Registry

_NUMBERS = itertools.count(1)


@dataclass
class McpWorld:
    database: Database
    servers: McpServers
    catalogue: Catalogue
    broker: Broker

    async def session(self, tenant: str = "acme", role: Any = "operator") -> Grant:
        """A session whose cell `c` is running."""
        grant = Grant(tenant=tenant, principal="person", session=f"s{next(_NUMBERS)}", role=role)
        await self.database.execute(
            "INSERT INTO session (id, tenant, principal, role, state) VALUES (%s, %s, 'person', %s, 'live')",
            (grant.session, tenant, role),
        )
        await self.broker.begin_cell(grant.session, "c")
        return grant

    async def call(self, tool: str, grant: Grant | None = None, /, **args: Any) -> Any:
        """One call in a cell of its own session, unless another is given."""
        return await self.broker.call(grant or await self.session(), tool, args)

    async def refused(self, tool: str, grant: Grant | None = None, /, **args: Any) -> ToolError:
        """The error that a call ends with."""
        try:
            value = await self.call(tool, grant, **args)
        except ToolError as error:
            return error
        raise AssertionError(f"{tool} was called and answered {value!r}")

    async def again(self, grant: Grant) -> tuple[CallRecord, ...]:
        """End the cell and run it again; what it had called."""
        records = await self.broker.end_cell(grant.session)
        await self.broker.begin_cell(grant.session, "c")
        return records

    async def classify(
        self,
        tool: str,
        effect: Any,
        roles: Iterable[Any] = ("operator",),
        *,
        tenant: str = "",
        idempotent: bool = False,
    ) -> None:
        book = self.servers.book
        decided = {"effect": effect, "roles": roles, "idempotent": idempotent}
        await book.classify(self.pin(tool), tenant=tenant, principal="operator (anna)", **decided)
        await self.servers.renew()

    def pin(self, tool: str, owner: str = "") -> Pin:
        """By `server.wire-name`."""
        server, _, name = tool.partition(".")
        pin = self.servers.book.pin(ToolKey(owner, server, name))
        assert pin is not None, tool
        return pin

    async def known(self, *servers: str) -> None:
        """Wait until these have been listed."""
        await until(lambda: all(any(p.key.server == s for p in self.servers.book._pins.values()) for s in servers))


async def no_credential(tenant: str, name: str) -> str:
    raise CredentialMissing(f"Tenant {tenant!r} has no credential {name!r}.")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def mcp_world(database: Database, configs: Iterable[ServerConfig], **limits: Any) -> AsyncIterator[McpWorld]:
    configs = tuple(configs)
    secrets = Secrets([secret for config in configs for secret in config.secrets])
    catalogue = Catalogue(Registry([], {}))
    settings = McpSettings(**{"stop_grace_s": 1, "backoff_s": 0.001, **limits})
    servers = McpServers(configs, settings, Book(database), catalogue, Scrubber(secrets).text, no_credential)
    async with httpx.AsyncClient() as http:
        contexts = Contexts(Settings(openai_api_key=None, database_url=None), database, http, secrets=secrets)
        broker = Broker(catalogue, Journal(database), contexts, BrokerSettings())
        await servers.open()
        try:
            yield McpWorld(database, servers, catalogue, broker)
        finally:
            await broker.close()
            await servers.close()
