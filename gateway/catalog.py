"""The catalogue of a tenant, filled from its store."""

from __future__ import annotations

import asyncio

import httpx

from gateway.broker.contexts import Contexts
from gateway.credentials.vault import CredentialMissing
from gateway.db import Database
from servers.catalog.load import LoadReport, load_catalog
from servers.context import Embedder


class NoShop(Exception):
    """The tenant has no store to load from, or not its keys."""


class Catalog:
    """Loads one tenant's catalogue at a time."""

    def __init__(self, contexts: Contexts, database: Database, embedder: Embedder, http: httpx.AsyncClient) -> None:
        self._contexts = contexts
        self._database = database
        self._embedder = embedder
        self._http = http
        self._lock = asyncio.Lock()

    async def load(self, tenant: str) -> LoadReport:
        """Make the tenant's catalogue equal to its store's.

        Raises:
            NoShop
            ToolError: the store failed or refused; the catalogue is as it was.
        """
        try:
            shop = await self._contexts.shop(tenant)
        except CredentialMissing as error:
            raise NoShop(f"The store of tenant {tenant!r} cannot be reached: {error}") from None
        if shop is None:
            raise NoShop(f"Tenant {tenant!r} has no store. Set tenants.{tenant}.shop in the configuration.")
        async with self._lock:
            return await load_catalog(shop, self._database.tenant(tenant), self._embedder, tenant, self._http)
