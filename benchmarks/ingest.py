"""Bringing 50 pages of 100 pieces in, with an embeddings endpoint that takes 100 ms for each call, over a real socket.

The peer is how it is done today: one call for each piece, one after the other. So many calls would take ten minutes:
a part of them is made and the rest reckoned. Crawling and storing, which the peer has to do too, is in our time alone.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from benchmarks.figure import Figure, command
from gateway.db import Database
from gateway.postgres import EmbeddedPostgres, PostgresConfig
from gateway.settings import DatabaseSettings
from servers.context import TenantDatabase
from servers.scraping.crawl import Counts, Way, crawl
from servers.scraping.embedding import DIMENSIONS, Remote
from servers.scraping.fetch import Fetcher
from servers.scraping.reader import Reader
from servers.scraping.rules import Endpoint, Rules

IDS = ("ingest_calls", "ingest_ratio_sequential")

_PAGES, _PIECES, _DELAY_S = 50, 100, 0.1
_SAMPLE = 40
_TENANT = "bench"


@dataclass
class _Double:
    """A site and an embeddings endpoint; the latter counts its calls."""

    calls: int = 0
    inputs: int = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._index),
                Route("/page/{n:int}", self._page),
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
            ]
        )

    async def _index(self, request: Request) -> Response:
        return HTMLResponse("".join(f'<a href="/page/{n}">page {n}</a> ' for n in range(_PAGES)))

    async def _page(self, request: Request) -> Response:
        n = request.path_params["n"]
        parts = (f"<h2>Part {i} of page {n}</h2><p>{_words(n, i)}</p>" for i in range(_PIECES))
        return HTMLResponse(f"<title>Page {n}</title><main>{''.join(parts)}</main>")

    async def _embeddings(self, request: Request) -> Response:
        texts = (await request.json())["input"]
        self.calls += 1
        self.inputs += len(texts)
        await asyncio.sleep(_DELAY_S)
        vector = [1.0] + [0.0] * (DIMENSIONS - 1)
        data: list[dict[str, Any]] = [{"index": i, "embedding": vector} for i in range(len(texts))]
        return JSONResponse({"data": data, "usage": {"total_tokens": len(texts)}})


def _words(page: int, part: int) -> str:
    return " ".join(f"word{(page * 7919 + part * 104729 + i * 31) % 5000}" for i in range(60))


def run(ids: set[str]) -> list[Figure]:
    return asyncio.run(_measure(ids))


async def _measure(ids: set[str]) -> list[Figure]:
    double = _Double()
    async with _database() as database, _serving(double.app()) as url, httpx.AsyncClient() as http:
        endpoint = Endpoint(f"{url}/v1", "text-embedding-3-small")
        started = time.perf_counter()
        counts = await _ingest(url, endpoint, http, database)
        ours = time.perf_counter() - started
        calls = double.calls
        if counts.chunks < _PAGES * _PIECES or counts.embedded != double.inputs:
            raise RuntimeError(f"{counts.chunks} pieces were stored, {double.inputs} embedded")
        sequential = await _one_by_one(endpoint, http) * counts.chunks
    figures = [
        Figure(
            id="ingest_calls",
            value=calls,
            unit="calls",
            peer=float(counts.chunks),
            peer_name="one call a piece",
            command=command("ingest_calls"),
        ),
        Figure(
            id="ingest_ratio_sequential",
            value=ours / sequential,
            unit="of its time",
            peer=1.0,
            peer_name=f"one call a piece, {_DELAY_S * 1000:.0f} ms each ({sequential:.0f} s)",
            command=command("ingest_ratio_sequential"),
        ),
    ]
    return [figure for figure in figures if figure.id in ids]


async def _ingest(url: str, endpoint: Endpoint, http: httpx.AsyncClient, database: TenantDatabase) -> Counts:
    rules = Rules(allowed_hosts=(url.removeprefix("http://"),), requests_per_s=1_000.0, endpoint=endpoint)
    fetcher, reader = Fetcher(rules), Reader()
    way = Way(_TENANT, database, fetcher, reader, Remote(endpoint, http), rules)
    counts = Counts()
    try:
        async for step in crawl(way, url, max_pages=1_000, max_depth=2, sitemap=False):
            counts = step
    finally:
        await fetcher.close()
        await reader.close()
    return counts


async def _one_by_one(endpoint: Endpoint, http: httpx.AsyncClient) -> float:
    """Seconds of one call, the mean of some."""
    started = time.perf_counter()
    for n in range(_SAMPLE):
        body = {"model": endpoint.model, "input": [_words(n, n)], "dimensions": DIMENSIONS}
        (await http.post(f"{endpoint.url}/embeddings", json=body)).raise_for_status()
    return (time.perf_counter() - started) / _SAMPLE


@asynccontextmanager
async def _serving(app: Starlette) -> AsyncIterator[str]:
    config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


@asynccontextmanager
async def _database() -> AsyncIterator[TenantDatabase]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        tempfile.TemporaryDirectory(prefix="bench-") as sockets,
    ):
        Path(folder).chmod(0o755)  # noqa: ASYNC240
        server = EmbeddedPostgres(PostgresConfig(data_dir=Path(folder), socket_dir=Path(sockets)))
        try:
            database = Database(await server.start(), DatabaseSettings(pool_size=4))
            await database.open()
            yield database.tenant(_TENANT)
            await database.close()
        finally:
            await server.stop()
