"""Fill the catalogue from a store: all products with their variants, embedded, changed ones only."""

from __future__ import annotations

import asyncio
import html
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import httpx

from ..context import Embedder, Shop, TenantDatabase
from ..woocommerce.client import Object, Store
from ..woocommerce.shapes import variant_view
from . import store as table
from .store import ProductRow

#: Requests in flight while variants are fetched: what a store on a small machine takes.
IN_FLIGHT = 4

#: Characters of a product's text that are embedded; the model reads 256 tokens.
TEXT_LENGTH = 2000


@dataclass(frozen=True)
class LoadReport:
    products: int
    variants: int
    created: int
    updated: int
    unchanged: int
    deleted: int
    seconds: float


async def load_catalog(
    shop: Shop, database: TenantDatabase, embedder: Embedder, tenant: str, http: httpx.AsyncClient | None = None
) -> LoadReport:
    """Make the tenant's catalogue equal to the store's. All of it is seen at once, or, after an error, nothing.

    Raises:
        ToolError: the store failed or refused.
    """
    started = time.monotonic()
    async with nullcontext(http) if http else httpx.AsyncClient() as client:
        products = [product async for product in _products(Store(shop, client))]
    async with database.transaction() as rows:
        before = await table.hashes(rows)
    changed = [p for p in products if before.get(p.id) != p.content_hash]
    gone = before.keys() - {p.id for p in products}
    embeddings = await embedder.embed([p.text for p in changed])
    async with database.transaction() as rows:
        for product, embedding in zip(changed, embeddings, strict=True):
            await table.upsert(rows, tenant, product, embedding)
        deleted = await table.delete(rows, sorted(gone)) if gone else 0
    created = sum(p.id not in before for p in changed)
    return LoadReport(
        products=len(products),
        variants=sum(len(p.variants) for p in products),
        created=created,
        updated=len(changed) - created,
        unchanged=len(products) - len(changed),
        deleted=deleted,
        seconds=time.monotonic() - started,
    )


async def _products(store: Store) -> AsyncIterator[ProductRow]:
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def complete(raw: Object) -> ProductRow:
        async with slots:
            return product_row(raw, await _variations(store, raw))

    async for page in store.pages("products", {"status": "publish", "orderby": "id", "order": "asc"}):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(complete(raw)) for raw in page]
        for task in tasks:
            yield task.result()


async def _variations(store: Store, product: Object) -> list[Object]:
    if product["type"] != "variable":
        return []
    return [v async for page in store.pages(f"products/{product['id']}/variations") for v in page]


def product_row(raw: Object, variations: Sequence[Object]) -> ProductRow:
    """A product of wc/v3 as the catalogue keeps it."""
    variants = [dict(variant_view(v)) for v in variations]
    prices = [p for p in (_price(v.get("price")) for v in variations or [raw]) if p is not None]
    attributes = {str(a["name"]): [str(o) for o in a["options"]] for a in raw.get("attributes") or ()}
    categories = tuple(html.unescape(str(c["name"])) for c in raw.get("categories") or ())
    description = plain_text(raw.get("description") or raw.get("short_description") or "")
    name = html.unescape(str(raw["name"]))
    options = "; ".join(f"{key}: {', '.join(values)}" for key, values in attributes.items())
    text = "\n".join(part for part in (name, ", ".join(categories), options, description) if part)[:TEXT_LENGTH]
    return ProductRow(
        id=int(raw["id"]),
        name=name,
        slug=str(raw.get("slug", "")),
        permalink=str(raw.get("permalink", "")),
        type=str(raw["type"]),
        categories=categories,
        description=description,
        attributes=attributes,
        variants=variants,
        price_from=min(prices, default=None),
        price_to=max(prices, default=None),
        in_stock=raw.get("stock_status") != "outofstock",
        text=text,
    )


def plain_text(markup: str) -> str:
    """A store's HTML as one line of text."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def _price(value: object) -> Decimal | None:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None
