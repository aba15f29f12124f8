"""Tokens of the workloads, one cell against the same tools called one by one (`benchmarks.traditional`).

A ratio is of input tokens, all requests of the work together. The two ways work on the same data: each workload says
how much, for what the direct way needs grows with the square of it, and what a cell needs does not grow.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.figure import Figure, command
from benchmarks.traditional import Arm, Workload, arms, run_arm, served
from demo import tau
from demo.model.script import Call
from demo.shop.app import create_app
from demo.shop.auth import Key
from demo.shop.seed import Seed, build
from gateway.settings import ShopSettings, TenantSettings

_KEY, _SECRET = "ck_bench", "cs_bench"
#: The demo shop's first order, and the time between two.
_OPENED, _BETWEEN = datetime(2026, 1, 5, 9, tzinfo=UTC), timedelta(hours=4)
_PAGE = 100


def _pages(count: int) -> list[Call]:
    """The shop's orders, a page of 100 a call, as an agent without code has to read them."""
    moments = [_OPENED + n * _BETWEEN - timedelta(hours=2) for n in range(0, count + 1, _PAGE)]
    texts = [moment.strftime("%Y-%m-%dT%H:%M:%S") for moment in moments]
    return [
        Call("woocommerce.find_orders", {"after": after, "before": before, "limit": _PAGE})
        for after, before in itertools.pairwise(texts)
    ]


def bi() -> Workload:
    """The sales of 1,000 orders by month and status."""
    cell = """\
from collections import Counter
from servers.woocommerce import find_orders

orders = find_orders(limit=1000)
sales = Counter()
for o in orders:
    sales[o["date_created"][:7], o["status"]] += float(o["total"])
print(len(orders), {f"{month} {status}": round(total) for (month, status), total in sorted(sales.items())})
"""
    answer = "Here are the sales by month and status."
    return Workload("bi", "The sales by month and status, please.", cell, tuple(_pages(1000)), answer)


def sync() -> Workload:
    """The copy of 1,000 products; directly their rows alone are read, not yet compared and written."""
    cell = """\
from servers.woocommerce import sync_products

report = sync_products(full=True)
print(report["kinds"] if "kinds" in report else report)
"""
    pages = [
        Call("woocommerce.list_products", {"search": f"series {n:02}", "limit": _PAGE})
        for n in range(PRODUCTS // _PAGE)
    ]
    return Workload("sync", "Bring the copy of the products up to date.", cell, tuple(pages), "The copy is up to date.")


def lookup() -> Workload:
    """One order's state, for a customer who is to be verified first: the least that chat is asked for."""
    cell = """\
from servers.support import reply
from servers.woocommerce import lookup_order, verify_customer

verify_customer(first_name="Yusuf", last_name="Rossi", postcode="19122")
order = lookup_order(order_id="#W2378156")
reply(text=f"Hello Yusuf, your order is {order['status']}.")
"""
    calls = (
        Call("woocommerce.verify_customer", {"first_name": "Yusuf", "last_name": "Rossi", "postcode": "19122"}),
        Call("woocommerce.lookup_order", {"order_id": "#W2378156"}),
    )
    request = "Where is my order #W2378156? I am Yusuf Rossi, 19122."
    return Workload("lookup", request, cell, calls, "Hello Yusuf, your order is completed.", "agent")


#: Products of the store that is copied, a hundred to a series.
PRODUCTS = 1000


def store() -> Seed:
    """The demo's shop, with as many simple products as `PRODUCTS` says in place of its own."""
    seed = build(tau.load_data())
    models = list(seed.products.values())
    products = {}
    for n in range(PRODUCTS):
        model, id = models[n % len(models)], 7_000_000_000 + n
        name = f"{model['name']} series {n // _PAGE:02}"
        products[id] = model | {"id": id, "name": name, "type": "simple", "variations": [], "sku": f"S-{n}"}
    return dataclasses.replace(seed, products=products, variations={})


#: Figure to workload.
WORKLOADS: Mapping[str, Callable[[], Workload]] = {
    "tokens_bi_ratio": bi,
    "tokens_sync_ratio": sync,
    "tokens_lookup_ratio": lookup,
}
IDS = tuple(WORKLOADS)
_PEER = "the ratio, had the direct way read every result only once"


def run(ids: set[str]) -> list[Figure]:
    found = asyncio.run(measure({id: WORKLOADS[id]() for id in WORKLOADS if id in ids}))
    return [
        Figure(id, cells.input / direct.input, "ratio", cells.input / direct.last_input, _PEER, command(id))
        for id, (cells, direct) in found.items()
    ]


async def measure(workloads: Mapping[str, Workload]) -> dict[str, tuple[Arm, Arm]]:
    shop = create_app(store(), [Key(_KEY, _SECRET)], "bench")
    with served(shop) as url, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        settings = ShopSettings(url=url, consumer_key=_KEY, consumer_secret=_SECRET, requests_per_s=10_000)
        # alike for each, whichever are measured
        tools = list(dict.fromkeys(call.tool for make in WORKLOADS.values() for call in make().calls))
        async with arms(list(workloads.values()), TenantSettings(shop=settings), Path(folder), tools) as gateway:
            return {
                id: (await run_arm(gateway, each, "cells"), await run_arm(gateway, each, "direct"))
                for id, each in workloads.items()
            }
