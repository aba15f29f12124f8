"""The copy of the store in the database, for reports and questions that its API would take hours for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from msgspec import Meta

from ...context import ToolContext
from ...database import database_of
from ...tool import OPERATOR
from ...work import Progress, work
from ..client import Store, shop_of
from ..sync.engine import Task, run
from ..sync.report import KINDS, Kind, SyncReport

Full = Annotated[
    bool | None, Meta(description="true: read all; false: what was modified; None: all, where that was long ago")
]
DeleteAll = Annotated[bool, Meta(description="delete what is gone, even where it is implausibly much")]


@work(workload="sync", roles=OPERATOR)
async def sync_store(
    ctx: ToolContext, *, full: Full = None, delete_all: DeleteAll = False
) -> AsyncIterator[Progress | SyncReport]:
    """Make the copy of products with variations, customers and orders equal to the store. Goes on where it stopped."""
    async with aclosing(_synced(ctx, KINDS, full, delete_all)) as parts:
        async for part in parts:
            yield part


@work(workload="sync", roles=OPERATOR)
async def sync_products(
    ctx: ToolContext, *, full: Full = None, delete_all: DeleteAll = False
) -> AsyncIterator[Progress | SyncReport]:
    """Make the copy of products and variations equal to the store. Goes on where it stopped."""
    async with aclosing(_synced(ctx, ("products",), full, delete_all)) as parts:
        async for part in parts:
            yield part


@work(workload="sync", roles=OPERATOR)
async def sync_customers(ctx: ToolContext, *, delete_all: DeleteAll = False) -> AsyncIterator[Progress | SyncReport]:
    """Make the copy of customers equal to the store. Goes on where it stopped."""
    async with aclosing(_synced(ctx, ("customers",), None, delete_all)) as parts:
        async for part in parts:
            yield part


@work(workload="sync", roles=OPERATOR)
async def sync_orders(
    ctx: ToolContext, *, full: Full = None, delete_all: DeleteAll = False
) -> AsyncIterator[Progress | SyncReport]:
    """Make the copy of orders with their lines equal to the store. Goes on where it stopped."""
    async with aclosing(_synced(ctx, ("orders",), full, delete_all)) as parts:
        async for part in parts:
            yield part


async def _synced(
    ctx: ToolContext, kinds: tuple[Kind, ...], full: bool | None, delete_all: bool
) -> AsyncGenerator[Progress | SyncReport, None]:
    shop, meter = shop_of(ctx), ctx.meter
    store = Store(shop, ctx.http)
    task = Task(store, database_of(ctx), shop.sync, shop.in_flight, kinds, full, delete_all)
    async with aclosing(run(task)) as parts:
        async for part in parts:
            traffic = store.traffic
            meter.calls, meter.retries, meter.bytes = traffic.requests, traffic.retries, traffic.bytes
            meter.direct_bytes = traffic.bytes
            if not isinstance(part, Progress):
                meter.rows = sum(sum(counts.values()) for counts in part["counts"].values())
            yield part
