"""A small shop that can be changed, its copy, and what the copy holds."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send
from tool_bench import CONTROL, KEY

from demo import tau
from demo.shop.app import create_app
from demo.shop.seed import Seed, build
from demo.shop.store import Store as DoubleStore
from gateway.db import Database
from servers.context import Progress, Shop, SyncLimits
from servers.woocommerce.client import Store
from servers.woocommerce.sync.engine import Task, run
from servers.woocommerce.sync.report import KINDS, Kind, SyncReport

TENANT = "retail"
TABLES = ("store_product", "store_variation", "store_customer", "store_order", "store_order_item")
LIMITS = SyncLimits(page_size=4, patience_s=0)


def small_seed(products: int = 9, customers: int = 7, orders: int = 11) -> Seed:
    """The first of the retail data, as a shop: the last product has no variations, the first six, others two."""
    whole = build(tau.load_data())
    chosen = dict(sorted(whole.products.items())[:products])
    variations = {}
    for id, product in chosen.items():
        kept = product["variations"][: 0 if id == max(chosen) else 6 if id == min(chosen) else 2]
        variations |= {each: whole.variations[each] for each in kept}
        chosen[id] = product | {"type": "variable" if kept else "simple", "variations": kept}
    some = dict(sorted(whole.customers.items())[:customers]), dict(sorted(whole.orders.items())[:orders])
    return Seed(whole.categories, chosen, variations, *some)


@dataclass
class Counting:
    """The shop's application; what it was asked, and answers of its own in place of the shop's."""

    app: ASGIApp
    asked: list[str] = field(default_factory=list)
    #: Given path and query: an answer instead of the shop's, or None.
    instead: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix("/wp-json/wc/v3/")
        self.asked.append(path)
        query = dict(httpx.QueryParams(scope["query_string"].decode()))
        answer = self.instead(path, query) if self.instead else None
        await (answer or self.app)(scope, receive, send)


@dataclass
class SyncWorld:
    shop: DoubleStore
    app: Counting
    store: Store
    database: Database
    tenant: str = TENANT
    limits: SyncLimits = LIMITS

    def task(self, kinds: Sequence[Kind] = KINDS, **more: Any) -> Task:
        given: dict[str, Any] = {"limits": self.limits, "in_flight": 3, "database": self.database.tenant(self.tenant)}
        return Task(self.store, kinds=kinds, **{**given, **more})

    async def sync(self, kinds: Sequence[Kind] = KINDS, **more: Any) -> SyncReport:
        *progress, report = [part async for part in run(self.task(kinds, **more))]
        assert all(isinstance(part, Progress) for part in progress)
        assert isinstance(report, dict)
        return report

    async def rows(self, table: str) -> list[dict[str, Any]]:
        return await self.database.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3")

    async def contents(self) -> dict[str, Any]:
        """All of the copy but when it was written."""
        return {
            table: [{k: v for k, v in row.items() if k != "synced_at"} for row in await self.rows(table)]
            for table in TABLES
        }

    def rename(self, product: int, name: str) -> None:
        self.shop.products.put(self.shop.products.edit(product) | {"name": name})

    def with_(self, **limits: Any) -> SyncWorld:
        return replace(self, limits=replace(self.limits, **limits))


@asynccontextmanager
async def sync_world(database: Database, seed: Seed) -> AsyncIterator[SyncWorld]:
    double = DoubleStore(copy.deepcopy(seed))
    app = Counting(create_app(double, [KEY], CONTROL))
    shop = Shop("http://shop.test", KEY.consumer_key, KEY.consumer_secret, requests_per_s=10_000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
        yield SyncWorld(double, app, Store(shop, http), database)


async def empty(database: Database) -> None:
    await database.execute(f"TRUNCATE {', '.join(TABLES)}, store_sync, store_gone")
