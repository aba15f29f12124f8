"""Killed at every step of writing, at every batch boundary and at random points: the copy ends as if undisturbed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from shop_server import serving
from sync_world import TABLES, TENANT, SyncWorld, empty, small_seed, sync_world
from tool_bench import KEY

from gateway.db import Database
from servers.woocommerce.sync.engine import run
from servers.woocommerce.sync.report import Kind

KINDS: tuple[Kind, ...] = ("products", "orders")


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@dataclass
class Doomed:
    """A tenant's database in which this process dies at the `deadline`-th step: before a statement, or by a commit."""

    real: Any
    deadline: int
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.deadline:
            raise Killed

    @asynccontextmanager
    async def exclusive(self, what: str) -> AsyncIterator[bool]:
        async with self.real.exclusive(what) as mine:
            yield mine

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self.real.transaction() as rows:
            yield _DoomedRows(rows, self)
            self.step()  # all is written and not committed
        self.step()  # committed, and nobody knows


@dataclass
class _DoomedRows:
    real: Any
    database: Doomed

    async def fetch(self, sql: str, parameters: Any = ()) -> list[dict[str, Any]]:
        self.database.step()
        found: list[dict[str, Any]] = await self.real.fetch(sql, parameters)
        return found

    async def execute(self, sql: str, parameters: Any = ()) -> int:
        self.database.step()
        done: int = await self.real.execute(sql, parameters)
        return done


async def prepared(database: Database) -> AsyncIterator[SyncWorld]:
    """A shop that has changed since it was copied: something made, changed and deleted of each kind."""
    await empty(database)
    async with sync_world(database, small_seed(products=6, customers=0, orders=6)) as world:
        await world.sync(KINDS)
        await _remember(database)
        products, orders, variations = (sorted(row["id"] for row in t) for t in _tables(world))
        world.shop.products.remove(products[2])
        world.shop.variations.remove(variations[0])
        world.rename(products[4], "Renamed")
        made = world.shop.products.edit(products[5]) | {"id": products[-1] + 5, "type": "simple", "variations": []}
        world.shop.products.put(made)
        world.shop.orders.remove(orders[1])
        changed = world.shop.orders.edit(orders[4])
        changed["line_items"] = changed["line_items"][:1]
        world.shop.orders.put(changed | {"status": "completed"})
        yield world
        for table in (*TABLES, "store_sync"):
            await database.execute(f"DROP TABLE kept_{table}")


def _tables(world: SyncWorld) -> tuple[Any, Any, Any]:
    return world.shop.products, world.shop.orders, world.shop.variations


async def _remember(database: Database) -> None:
    for table in (*TABLES, "store_sync"):
        await database.execute(f"DROP TABLE IF EXISTS kept_{table}")
        await database.execute(f"CREATE TABLE kept_{table} AS TABLE {table}")


async def back(world: SyncWorld) -> None:
    """The copy as it was when the shop changed."""
    statements = "; ".join(f"INSERT INTO {table} TABLE kept_{table}" for table in (*TABLES, "store_sync"))
    await world.database.execute(f"TRUNCATE {', '.join(TABLES)}, store_sync, store_gone; {statements}")


@pytest.fixture
async def world(database: Database) -> AsyncIterator[SyncWorld]:
    async for made in prepared(database):
        yield made


@pytest.mark.parametrize("kind", KINDS)
async def test_killed_at_every_step_of_writing(world: SyncWorld, kind: Kind) -> None:
    undisturbed = await world.sync([kind], full=True)
    wanted, seen = await world.contents(), undisturbed["counts"]
    assert seen[kind]["updated"]
    assert seen[kind]["deleted"]
    counting = Doomed(world.database.tenant(TENANT), 0)
    await back(world)
    await world.sync([kind], full=True, database=counting)
    assert counting.steps > 20
    for deadline in range(1, counting.steps + 1):
        await back(world)
        doomed = Doomed(world.database.tenant(TENANT), deadline)
        with pytest.raises(Killed):
            await world.sync([kind], full=True, database=doomed)
        report = await world.sync([kind], full=True)
        assert await world.contents() == wanted, deadline
        assert not await world.rows("store_gone")
        # after the last commit nothing was left to do; before it each object counts once, whatever was read again
        again = {name: {**c, "created": 0, "updated": 0, "deleted": 0} for name, c in report["counts"].items()}
        assert report["counts"] == (seen if deadline < counting.steps else again), deadline


async def test_closed_at_every_batch_boundary(world: SyncWorld) -> None:
    await back(world)
    await world.sync(KINDS, full=True)
    wanted = await world.contents()
    boundary = 0
    while True:
        await back(world)
        parts = 0
        async with aclosing(run(world.task(KINDS, full=True))) as running:
            async for _ in running:
                parts += 1
                if parts > boundary:
                    break
            else:
                break
        await world.sync(KINDS, full=True)
        assert await world.contents() == wanted, boundary
        boundary += 1
    assert boundary > 4


async def test_cancelled_while_it_waits_for_the_store(world: SyncWorld) -> None:
    """Each request of a run is the last one of another."""
    await back(world)
    await world.sync(KINDS, full=True)
    wanted, requests = await world.contents(), world.app.asked.copy()
    for last in random.Random(6).sample(range(len(requests) // 2), 6):
        await back(world)
        world.app.asked.clear()
        reached = asyncio.Event()

        def instead(path: str, query: dict[str, str], last: int = last, reached: asyncio.Event = reached) -> Any:
            if len(world.app.asked) <= last:
                return None
            reached.set()
            return _never

        world.app.instead = instead
        running = asyncio.create_task(world.sync(KINDS, full=True))
        await reached.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        world.app.instead = None
        await world.sync(KINDS, full=True)
        assert await world.contents() == wanted, last


async def _never(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


_CHILD = """
import asyncio, sys
import httpx
from gateway.db import Database
from gateway.settings import DatabaseSettings
from servers.context import Shop, SyncLimits
from servers.woocommerce.client import Store
from servers.woocommerce.sync.engine import Task, run

async def main(database_url, shop_url, key, secret):
    database = Database(database_url, DatabaseSettings(pool_size=2))
    await database.open()
    async with httpx.AsyncClient() as http:
        store = Store(Shop(shop_url, key, secret), http)
        limits = SyncLimits(page_size=4)
        task = Task(store, database.tenant("retail"), limits, 3, ("products", "orders"), full=True)
        async for part in run(task):
            print("batch" if not isinstance(part, dict) else "report", flush=True)
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_for_real(world: SyncWorld, postgres_url: str, seed: int) -> None:
    """SIGKILL of a process that syncs over a real socket, some batches into it, again and again until one is done."""
    await back(world)
    await world.sync(KINDS, full=True)
    wanted = await world.contents()
    await back(world)
    chance = random.Random(seed)
    with serving(world.app.app) as url:
        # the address is part of what a shop shows
        await world.database.execute("TRUNCATE store_product, store_variation, store_sync")
        for _ in range(2):
            child = await asyncio.to_thread(_child, postgres_url, url)
            await asyncio.to_thread(_lines, child, chance.randrange(1, 4))
            child.send_signal(signal.SIGKILL)
            await asyncio.to_thread(child.communicate)
        child = await asyncio.to_thread(_child, postgres_url, url)
        said, _ = await asyncio.to_thread(child.communicate)
    assert child.returncode == 0
    assert said.split()[-1] == "report"
    assert _without_address(await world.contents(), url) == _without_address(wanted, "http://shop.test")


def _child(database_url: str, shop_url: str) -> subprocess.Popen[str]:
    arguments = (database_url, shop_url, KEY.consumer_key, KEY.consumer_secret)
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def _lines(child: subprocess.Popen[str], count: int) -> None:
    assert child.stdout is not None
    for _ in range(count):
        assert child.stdout.readline() == "batch\n"


def _without_address(contents: dict[str, Any], url: str) -> Any:
    return {
        table: [
            {k: _plain(v, url) for k, v in row.items() if k != "content_hash" or table == "store_order"} for row in rows
        ]
        for table, rows in contents.items()
    }


def _plain(value: Any, url: str) -> Any:
    if isinstance(value, dict) and str(value.get("permalink", "")).startswith(url):
        return {**value, "permalink": value["permalink"].removeprefix(url)}
    return value
