"""`python doomed_crawl.py DATABASE SITE ENDPOINT`: a crawl in a process of its own, to be killed."""

from __future__ import annotations

import asyncio
import sys

import httpx

from gateway.db import Database
from gateway.settings import DatabaseSettings
from servers.scraping.crawl import Way, crawl
from servers.scraping.embedding import Remote
from servers.scraping.fetch import Fetcher
from servers.scraping.reader import Reader
from servers.scraping.rules import Endpoint, Rules


async def main(database_url: str, site: str, endpoint: str) -> None:
    rules = Rules(
        allowed_hosts=(site.removeprefix("http://"),),
        requests_per_s=100_000.0,
        batch_chunks=10,
        endpoint=Endpoint(endpoint, "text-embedding-3-small"),
    )
    database = Database(database_url, DatabaseSettings(pool_size=2))
    await database.open()
    async with httpx.AsyncClient() as http:
        assert rules.endpoint is not None
        embedder = Remote(rules.endpoint, http)
        way = Way("retail", database.tenant("retail"), Fetcher(rules), Reader(), embedder, rules)
        async for _ in crawl(way, site, max_pages=rules.max_pages, max_depth=rules.max_depth, sitemap=True):
            pass


asyncio.run(main(*sys.argv[1:]))
