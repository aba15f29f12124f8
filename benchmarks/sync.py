"""The copy of a store: how long beside page by page and product by product, and how much memory for a large one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.figure import Figure, command
from benchmarks.support import figure_of
from benchmarks.sync_store import running_store
from gateway.db import Database
from gateway.postgres import EmbeddedPostgres, PostgresConfig
from gateway.settings import DatabaseSettings
from servers.context import Shop, TenantDatabase
from servers.woocommerce.client import Store
from servers.woocommerce.sync import copy
from servers.woocommerce.sync.engine import Task
from servers.woocommerce.sync.engine import run as sync
from servers.woocommerce.sync.rows import row_of

IDS = ("sync_1000_s", "sync_100k_peak_mb")

_DELAY_S = 0.1
_ROUNDS = 2
_LARGE = 100_000
_TENANT = "bench"
_WHOLE = 1 << 20


def run(ids: set[str]) -> list[Figure]:
    return asyncio.run(_measure(ids))


async def _measure(ids: set[str]) -> list[Figure]:
    figures = []
    async with _postgres() as url:
        if "sync_1000_s" in ids:
            figures.append(await _against_one_by_one(url))
        if "sync_100k_peak_mb" in ids:
            figures.append(_peak(url))
    return figures


async def _against_one_by_one(url: str) -> Figure:
    """Both fill an empty database from a store that takes 100 ms for each answer; the quietest round of each."""
    ours, theirs = [], []
    with running_store(1000, _DELAY_S) as address:
        async with _database(url) as database, httpx.AsyncClient() as http:
            store = Store(_shop(address), http)
            for _ in range(_ROUNDS):
                await _emptied(database)
                ours.append(await _timed(_synced(store, database)))
                await _emptied(database)
                theirs.append(await _timed(_one_by_one(store, database.tenant(_TENANT))))
    return figure_of("sync_1000_s", min(ours), "s", min(theirs), "page by page, product by product")


async def _synced(store: Store, database: Database) -> None:
    shop = _shop("")
    task = Task(store, database.tenant(_TENANT), shop.sync, shop.in_flight, ("products",), full=True)
    *_, report = [part async for part in sync(task)]
    assert isinstance(report, dict)
    assert report["counts"]["products"]["created"] == 1000, report


async def _one_by_one(store: Store, database: TenantDatabase) -> None:
    """As tools that are called one by one do it: a page, then each of its products with its variations, written."""
    async for page in store.pages("products", {"orderby": "id", "order": "asc"}):
        for raw in page:
            async with database.transaction() as rows:
                await copy.write(rows, "products", [row_of("products", raw, _WHOLE)])
            if raw["variations"]:
                async for variation in store.each(f"products/{raw['id']}/variations"):
                    async with database.transaction() as rows:
                        await copy.write(rows, "variations", [row_of("variations", variation, _WHOLE)])


async def _timed(work: Any) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def _emptied(database: Database) -> None:
    await database.execute("TRUNCATE store_product, store_variation, store_sync, store_gone")


#: In a process of its own, which does nothing else. The system keeps its peak, and forgets the one before.
_CHILD = """
import asyncio, json, sys
from pathlib import Path
import httpx
from benchmarks.sync import _database, _shop
from servers.woocommerce.client import Store
from servers.woocommerce.sync.engine import Task, run

def resident(name):
    [line] = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name)]
    return int(line.split()[1]) / 1024

async def main(url, address):
    async with _database(url) as database, httpx.AsyncClient() as http:
        shop = _shop(address)
        task = Task(Store(shop, http), database.tenant("large"), shop.sync, shop.in_flight, ("products",), full=True)
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        async for part in run(task):
            pass
        print(json.dumps({"before": before, "peak": resident("VmHWM"), "counts": part["counts"]}))

asyncio.run(main(*sys.argv[1:]))
"""


def _peak(url: str) -> Figure:
    with running_store(_LARGE, 0) as address:
        arguments = [sys.executable, "-c", _CHILD, url, address]
        done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    if found["counts"]["products"]["created"] != _LARGE:
        raise RuntimeError(f"not all was copied: {found}")
    value = found["peak"] - found["before"]
    return Figure("sync_100k_peak_mb", value, "MiB", None, "", command("sync_100k_peak_mb"))


def _shop(address: str) -> Shop:
    """As it is without further settings, but for the pace: the store's delay is what is to be felt."""
    return Shop(address or "http://store.test", "ck", "cs", requests_per_s=10_000)


@asynccontextmanager
async def _database(url: str) -> AsyncIterator[Database]:
    database = Database(url, DatabaseSettings(pool_size=2))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def _postgres() -> AsyncIterator[str]:
    with _folders() as (data, sockets):
        server = EmbeddedPostgres(PostgresConfig(data_dir=data, socket_dir=sockets))
        url = await server.start()
        try:
            yield url
        finally:
            await server.stop()


@contextmanager
def _folders() -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as data, tempfile.TemporaryDirectory(prefix="bench-") as sockets:
        Path(data).chmod(0o755)  # the database's own user comes through
        yield Path(data), Path(sockets)
