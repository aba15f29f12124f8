"""The catalogue's table: how products are written to it and searched in it. All SQL of this server is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from hashlib import blake2b
from typing import Any

import orjson

from ..context import Rows

#: A product whose words hold the query's (a name, a SKU, an id) ranks this much above its likeness in meaning.
WORDS_BONUS = 0.25


@dataclass(frozen=True)
class ProductRow:
    """One product as the table has it, less tenant and embedding."""

    id: int
    name: str
    slug: str
    permalink: str
    type: str
    categories: tuple[str, ...]
    description: str
    attributes: dict[str, list[str]]
    variants: list[dict[str, Any]]
    price_from: Decimal | None
    price_to: Decimal | None
    in_stock: bool
    #: What is searched: by words and, embedded, by meaning.
    text: str

    @cached_property
    def content_hash(self) -> str:
        """Of everything that the row and its embedding are made from."""
        content = orjson.dumps(self, default=str, option=orjson.OPT_SORT_KEYS)
        return blake2b(content, digest_size=16).hexdigest()


async def hashes(rows: Rows) -> dict[int, str]:
    """Content hash of each product that is stored, by id."""
    return {r["id"]: r["content_hash"] for r in await rows.fetch("SELECT id, content_hash FROM product")}


async def upsert(rows: Rows, tenant: str, product: ProductRow, embedding: Sequence[float]) -> None:
    await rows.execute(
        """
        INSERT INTO product (tenant, id, name, slug, permalink, type, categories, description, attributes, variants,
                             price_from, price_to, in_stock, words, embedding, content_hash)
        VALUES (%(tenant)s, %(id)s, %(name)s, %(slug)s, %(permalink)s, %(type)s, %(categories)s, %(description)s,
                %(attributes)s::jsonb, %(variants)s::jsonb, %(price_from)s, %(price_to)s, %(in_stock)s,
                to_tsvector('simple', %(text)s), %(embedding)s::vector, %(content_hash)s)
        ON CONFLICT (tenant, id) DO UPDATE SET
            name = excluded.name, slug = excluded.slug, permalink = excluded.permalink, type = excluded.type,
            categories = excluded.categories, description = excluded.description, attributes = excluded.attributes,
            variants = excluded.variants, price_from = excluded.price_from, price_to = excluded.price_to,
            in_stock = excluded.in_stock, words = excluded.words, embedding = excluded.embedding,
            content_hash = excluded.content_hash, loaded = now()
        """,
        {
            "tenant": tenant,
            "id": product.id,
            "name": product.name,
            "slug": product.slug,
            "permalink": product.permalink,
            "type": product.type,
            "categories": list(product.categories),
            "description": product.description,
            "attributes": orjson.dumps(product.attributes).decode(),
            "variants": orjson.dumps(product.variants).decode(),
            "price_from": product.price_from,
            "price_to": product.price_to,
            "in_stock": product.in_stock,
            "text": product.text,
            "embedding": _vector(embedding),
            "content_hash": product.content_hash,
        },
    )


async def delete(rows: Rows, ids: Sequence[int]) -> int:
    return await rows.execute("DELETE FROM product WHERE id = ANY(%s)", (list(ids),))


async def by_meaning(rows: Rows, query: str, embedding: Sequence[float], limit: int) -> list[dict[str, Any]]:
    """The products nearest to the query, best first, with their `score`."""
    return await rows.fetch(
        """
        SELECT *, round((1 - (embedding <=> %(embedding)s::vector)
                         + CASE WHEN words @@ plainto_tsquery('simple', %(query)s) THEN %(bonus)s ELSE 0 END
                        )::numeric, 3)::float AS score
        FROM product ORDER BY score DESC, id LIMIT %(limit)s
        """,
        {"embedding": _vector(embedding), "query": query, "bonus": WORDS_BONUS, "limit": limit},
    )


async def in_category(rows: Rows, category: str, limit: int) -> list[dict[str, Any]]:
    """The products of a category by name, whatever its case; of all categories for ""."""
    return await rows.fetch(
        """
        SELECT * FROM product
        WHERE %(category)s = '' OR lower(%(category)s) = ANY(SELECT lower(c) FROM unnest(categories) c)
        ORDER BY name, id LIMIT %(limit)s
        """,
        {"category": category, "limit": limit},
    )


async def categories(rows: Rows) -> list[str]:
    return [r["c"] for r in await rows.fetch("SELECT DISTINCT unnest(categories) AS c FROM product ORDER BY c")]


async def one(rows: Rows, product_id: int) -> dict[str, Any] | None:
    found = await rows.fetch("SELECT * FROM product WHERE id = %s", (product_id,))
    return found[0] if found else None


def _vector(values: Sequence[float]) -> str:
    """pgvector's text form."""
    return "[" + ",".join(f"{value:.7g}" for value in values) + "]"
