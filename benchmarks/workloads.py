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
from benchmarks.site import site
from benchmarks.traditional import Arm, Workload, arms, run_arm, served
from demo import tau
from demo.model.script import Call
from demo.shop.app import create_app
from demo.shop.auth import Key
from demo.shop.seed import Seed, build
from gateway.settings import ShopSettings, TenantSettings
from gateway.settings_scraping import EndpointSettings, ScrapingSettings

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


def gdpr() -> Workload:
    """All that is kept of a customer with 50 orders; directly their records alone, one after the other."""
    cell = f"""\
from servers.gdpr import export_person

export_person(customer_id={PERSON})
"""
    calls = [
        Call("woocommerce.get_customer", {"customer_id": PERSON}),
        Call("woocommerce.find_orders", {"customer_id": PERSON, "limit": _PAGE}),
        *(Call("woocommerce.get_order", {"order_id": order}) for order in _of_person(build(tau.load_data()))),
    ]
    request = f"Export all data of customer {PERSON}, please."
    copied = "from servers.woocommerce import sync_customers, sync_orders\nsync_customers()\nsync_orders()"
    return Workload("gdpr", request, cell, tuple(calls), "The export is ready.", before=copied)


def ingest() -> Workload:
    """A site of 50 pages, each of 20 pieces; directly its pages are read, neither split nor embedded."""
    cell = f"""\
from servers.scraping import ingest_site

ingest_site(url="{SITE}/")
"""
    calls = tuple(Call("scraping.get_page", {"url": f"{SITE}/page/{n}"}) for n in range(PAGES))
    return Workload("ingest", "Make our help pages searchable, please.", cell, calls, "The pages can be searched.")


#: Whose data is exported: a customer of the demo's shop, to whom `store` gives the first 50 orders.
PERSON = 2
#: The site that is brought in: pages, and pieces of text of each. Its address stands for the one that it gets.
SITE = "http://127.0.0.1:{port}"
PAGES, PIECES = 50, 20


def _of_person(seed: Seed) -> list[int]:
    return list(seed.orders)[:50]


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
    theirs = {id: seed.orders[id] | {"customer_id": PERSON} for id in _of_person(seed)}
    return dataclasses.replace(seed, products=products, variations={}, orders={**seed.orders, **theirs})


#: Figure to workload.
WORKLOADS: Mapping[str, Callable[[], Workload]] = {
    "tokens_bi_ratio": bi,
    "tokens_sync_ratio": sync,
    "tokens_gdpr_ratio": gdpr,
    "tokens_ingest_ratio": ingest,
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
    # alike for each, whichever are measured
    tools = list(dict.fromkeys(call.tool for make in WORKLOADS.values() for call in make().calls))
    with (
        served(shop) as url,
        served(site(PAGES, PIECES)) as pages,
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
    ):
        tenant = TenantSettings(
            shop=ShopSettings(url=url, consumer_key=_KEY, consumer_secret=_SECRET, requests_per_s=10_000),
            scraping=ScrapingSettings(
                allowed_hosts=(pages.removeprefix("http://"),),
                requests_per_s=1000,
                endpoint=EndpointSettings(url=f"{pages}/v1"),
            ),
        )
        there = {id: _at(each, pages) for id, each in workloads.items()}
        async with arms(list(there.values()), tenant, Path(folder), tools) as gateway:
            return {
                id: (await run_arm(gateway, each, "cells"), await run_arm(gateway, each, "direct"))
                for id, each in there.items()
            }


def _at(workload: Workload, pages: str) -> Workload:
    """With the site's address."""
    calls = tuple(
        Call(call.tool, call.arguments | {"url": call.arguments["url"].replace(SITE, pages)})
        if "url" in call.arguments
        else call
        for call in workload.calls
    )
    return dataclasses.replace(workload, cell=workload.cell.replace(SITE, pages), calls=calls)
