"""A crawl's surroundings in tests: a tenant's rows, an embeddings endpoint and sites, all on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from loopback import listening
from site_double import Embeddings, Site
from tool_bench import Bench, Pins

from gateway.db import Database
from servers.context import Embedder, Meter, ToolContext
from servers.registry import Registry
from servers.scraping.rules import Endpoint, Rules

TABLES = "page_crawl, page_frontier, page, page_chunk"


@dataclass
class World:
    """One tenant's tools, and one site."""

    database: Database
    registry: Registry
    context: ToolContext
    site: Site
    url: str
    embeddings: Embeddings

    @property
    def rules(self) -> Rules:
        return self.context.scraping

    def bench(self, tenant: str = "retail", embedder: Embedder | None = None, **rules: Any) -> Bench:
        changed = replace(self.rules, **rules)
        rows = self.database.tenant(tenant)
        context = replace(
            self.context, tenant=tenant, scraping=changed, embedder=embedder, database=rows, meter=Meter()
        )
        return Bench(self.registry, context)

    async def ingest(self, path: str = "/", *, url: str = "", args: dict[str, Any] | None = None, **rules: Any) -> Any:
        return await self.bench(**rules).call("scraping.ingest_site", url=url or self.url + path, **(args or {}))

    async def stored(self) -> dict[str, tuple[str, list[tuple[str, str]]]]:
        """Of each page, by its path, title and chunks."""
        rows = await self.database.fetch(
            "SELECT p.url, p.title, c.heading, c.text, c.embedding::text AS vector FROM page p"
            " LEFT JOIN page_chunk c USING (tenant, url) ORDER BY p.url, c.position"
        )
        pages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
        for row in rows:
            _, chunks = pages.setdefault(row["url"].removeprefix(self.url), (row["title"], []))
            chunks.append((row["heading"], f"{row['text']} {row['vector'][:60]}"))
        return pages


@asynccontextmanager
async def world(
    database: Database, registry: Registry, site: Site, embeddings: Embeddings | None = None
) -> AsyncIterator[World]:
    """With rules that are quick and let this one site be private."""
    embeddings = embeddings or Embeddings()
    await database.execute(f"TRUNCATE {TABLES}")
    async with httpx.AsyncClient() as http, listening(site) as url, listening(embeddings.app()) as endpoint:
        rules = Rules(
            allowed_hosts=(url.removeprefix("http://"),),
            requests_per_s=100_000.0,
            attempts=3,
            page_s=100.0,
            read_s=100.0,
            endpoint=Endpoint(f"{endpoint}/v1", "text-embedding-3-small", "sk-secret-of-the-tenant", attempts=2),
        )
        context = ToolContext(
            "retail",
            "s1",
            Pins(),
            "key-1",
            False,
            http,
            database=database.tenant("retail"),
            scraping=rules,
        )
        yield World(database, registry, context, site, url, embeddings)
