"""The tables of pages: every statement of a crawl. Each runs within one transaction of the tenant's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from ..context import Rows
from .chunks import Chunk
from .page import Product

#: Postgres's stemmers by the language that a page says it is in; "simple" for those that it has none for.
_STEMMERS = {
    "ar": "arabic", "da": "danish", "nl": "dutch", "en": "english", "fi": "finnish", "fr": "french", "de": "german",
    "el": "greek", "hu": "hungarian", "it": "italian", "no": "norwegian", "nb": "norwegian", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "es": "spanish", "sv": "swedish", "tr": "turkish", "": "english",
}  # fmt: skip


class Overtaken(Exception):
    """Another crawl of the site has begun since: this one may write nothing more."""


@dataclass(frozen=True)
class Known:
    """What is stored of a page that a crawl comes to again."""

    etag: str
    last_modified: str
    content_hash: str
    recipe: str
    links: tuple[str, ...]


@dataclass(frozen=True)
class NewPage:
    """A page as it is stored, with its chunks' vectors."""

    url: str
    title: str
    description: str
    language: str
    product: Product | None
    links: tuple[str, ...]
    etag: str
    last_modified: str
    content_hash: str
    recipe: str
    truncated: bool
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Visit:
    """What came of one URL."""

    url: str
    outcome: str
    #: URLs that it led to, at its depth and one.
    found: tuple[str, ...] = ()
    depth: int = 0


@dataclass(frozen=True)
class Crawl:
    site: str
    run: str
    #: True where an earlier crawl with the same options was broken off, and this one goes on.
    resumed: bool
    counts: dict[str, int]


def stemmer(language: str) -> str:
    return _STEMMERS.get(re.split("[-_]", language)[0], "simple")


async def begin(rows: Rows, tenant: str, site: str, run: str, options: Mapping[str, Any]) -> Crawl:
    """Take over the site's crawl that was broken off, or begin a new one."""
    text = orjson.dumps(options, option=orjson.OPT_SORT_KEYS).decode()
    found = await rows.fetch(
        "UPDATE page_crawl SET run = %s WHERE tenant = %s AND site = %s AND finished IS NULL AND options = %s::jsonb"
        " RETURNING counts",
        (run, tenant, site, text),
    )
    if found:
        return Crawl(site, run, True, {k: int(v) for k, v in found[0]["counts"].items()})
    await rows.execute("DELETE FROM page_crawl WHERE tenant = %s AND site = %s", (tenant, site))
    await rows.execute(
        "INSERT INTO page_crawl (tenant, site, run, options) VALUES (%s, %s, %s, %s::jsonb)", (tenant, site, run, text)
    )
    return Crawl(site, run, False, {})


async def keep(rows: Rows, tenant: str, crawl: Crawl) -> None:
    """Hold the crawl for this transaction, and note its counts.

    Raises:
        Overtaken
    """
    held = await rows.execute(
        "UPDATE page_crawl SET counts = %s::jsonb WHERE tenant = %s AND site = %s AND run = %s AND finished IS NULL",
        (orjson.dumps(crawl.counts).decode(), tenant, crawl.site, crawl.run),
    )
    if not held:
        raise Overtaken(f"Another crawl of {crawl.site} has begun since.")


async def finish(rows: Rows, tenant: str, crawl: Crawl) -> None:
    await rows.execute(
        "UPDATE page_crawl SET finished = now() WHERE tenant = %s AND site = %s AND run = %s",
        (tenant, crawl.site, crawl.run),
    )


async def frontier(rows: Rows, site: str) -> tuple[list[tuple[str, int]], set[str]]:
    """What is still to be fetched, nearest first, and every URL that is known."""
    found = await rows.fetch("SELECT url, depth, done FROM page_frontier WHERE site = %s ORDER BY depth, seq", (site,))
    return [(r["url"], r["depth"]) for r in found if r["done"] is None], {r["url"] for r in found}


async def add_to_frontier(rows: Rows, tenant: str, site: str, urls: Iterable[tuple[str, int]]) -> None:
    pairs = list(urls)
    await rows.execute(
        "INSERT INTO page_frontier (tenant, site, url, depth)"
        " SELECT %s, %s, f.url, f.depth FROM unnest(%s::text[], %s::int[]) WITH ORDINALITY AS f (url, depth, n)"
        " ORDER BY f.n ON CONFLICT DO NOTHING",
        (tenant, site, [url for url, _ in pairs], [depth for _, depth in pairs]),
    )


async def enter(rows: Rows, tenant: str, site: str, visits: Sequence[Visit]) -> None:
    """What came of these URLs, and what they led to."""
    await add_to_frontier(rows, tenant, site, ((v.url, v.depth) for v in visits))
    await rows.execute(
        "UPDATE page_frontier p SET done = v.done FROM unnest(%s::text[], %s::text[]) AS v (url, done)"
        " WHERE p.tenant = %s AND p.site = %s AND p.url = v.url",
        ([v.url for v in visits], [v.outcome for v in visits], tenant, site),
    )
    await add_to_frontier(rows, tenant, site, ((url, v.depth + 1) for v in visits for url in v.found))


async def known(rows: Rows, urls: Sequence[str]) -> dict[str, Known]:
    found = await rows.fetch(
        "SELECT url, etag, last_modified, content_hash, recipe, links FROM page WHERE url = ANY(%s)", (list(urls),)
    )
    return {
        r["url"]: Known(r["etag"], r["last_modified"], r["content_hash"], r["recipe"], tuple(r["links"])) for r in found
    }


async def contents(rows: Rows, site: str) -> set[str]:
    """Content hashes of the pages that the crawl under way has come to."""
    found = await rows.fetch(
        "SELECT p.content_hash FROM page p JOIN page_frontier f USING (tenant, url)"
        " WHERE f.site = %s AND f.done IN ('stored', 'same')",
        (site,),
    )
    return {r["content_hash"] for r in found}


async def vectors_of(rows: Rows, model: str, urls: Sequence[str]) -> dict[bytes, list[float]]:
    """By chunk, those that are stored of these pages: a changed page keeps the vectors of what did not change."""
    found = await rows.fetch(
        "SELECT heading, text, embedding::real[] AS vector FROM page_chunk WHERE url = ANY(%s) AND model = %s",
        (list(urls), model),
    )
    return {Chunk(r["heading"], r["text"], 0).digest: r["vector"] for r in found}


async def refresh(rows: Rows, pages: Sequence[tuple[str, str, str, Sequence[str]]]) -> None:
    """Of pages whose content is as it was: url, ETag, Last-Modified and links."""
    await rows.execute(
        "UPDATE page p SET etag = u.etag, last_modified = u.modified, fetched = now(),"
        " links = ARRAY(SELECT jsonb_array_elements_text(u.links::jsonb))"
        " FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS u (url, etag, modified, links)"
        " WHERE p.url = u.url",
        (
            [page[0] for page in pages],
            [page[1] for page in pages],
            [page[2] for page in pages],
            [orjson.dumps(list(page[3])).decode() for page in pages],
        ),
    )


async def put_pages(
    rows: Rows, tenant: str, site: str, model: str, pages: Sequence[NewPage], vectors: Mapping[bytes, Sequence[float]]
) -> None:
    """Pages with their chunks, in place of what was stored of them; two statements, however many there are."""
    await rows.execute("DELETE FROM page_chunk WHERE url = ANY(%s)", ([page.url for page in pages],))
    await rows.execute(
        """
        INSERT INTO page (tenant, url, site, title, description, language, product, sku, price, currency, links, etag,
                          last_modified, content_hash, recipe, truncated)
        SELECT %s, r.url, %s, r.title, r.description, r.language, r.product, r.sku, r.price, r.currency,
               ARRAY(SELECT jsonb_array_elements_text(r.links)), r.etag, r.last_modified, r.content_hash, r.recipe,
               r.truncated
        FROM jsonb_to_recordset(%s::jsonb) AS r (
            url text, title text, description text, language text, product jsonb, sku text, price numeric,
            currency text, links jsonb, etag text, last_modified text, content_hash text, recipe text,
            truncated boolean)
        ON CONFLICT (tenant, url) DO UPDATE SET
            title = excluded.title, description = excluded.description, language = excluded.language,
            product = excluded.product, sku = excluded.sku, price = excluded.price, currency = excluded.currency,
            links = excluded.links, etag = excluded.etag, last_modified = excluded.last_modified,
            content_hash = excluded.content_hash, recipe = excluded.recipe, truncated = excluded.truncated,
            fetched = now()
        """,
        (tenant, site, orjson.dumps([_row(page) for page in pages]).decode()),
    )
    chunks = [(page, i, chunk) for page in pages for i, chunk in enumerate(page.chunks)]
    await rows.execute(
        """
        INSERT INTO page_chunk (tenant, url, position, heading, text, tokens, words, embedding, model)
        SELECT %s, c.url, c.position, c.heading, c.text, c.tokens,
               to_tsvector(c.stemmer::regconfig, c.heading || ' ' || c.text), c.embedding::vector, %s
        FROM unnest(%s::text[], %s::int[], %s::text[], %s::text[], %s::int[], %s::text[], %s::text[])
             AS c (url, position, heading, text, tokens, stemmer, embedding)
        """,
        (
            tenant,
            model,
            [page.url for page, _, _ in chunks],
            [i for _, i, _ in chunks],
            [chunk.heading for _, _, chunk in chunks],
            [chunk.text for _, _, chunk in chunks],
            [chunk.tokens for _, _, chunk in chunks],
            [stemmer(page.language) for page, _, _ in chunks],
            [vector_text(vectors[chunk.digest]) for _, _, chunk in chunks],
        ),
    )


async def forget(rows: Rows, urls: Sequence[str]) -> int:
    """Pages that are gone, with their chunks."""
    return await rows.execute("DELETE FROM page WHERE url = ANY(%s)", (list(urls),))


async def forget_unseen(rows: Rows, site: str) -> int:
    """After a crawl that came everywhere: the site's pages that it was not led to, or that are no pages any more."""
    return await rows.execute(
        "DELETE FROM page p WHERE p.site = %s AND NOT EXISTS (SELECT FROM page_frontier f"
        " WHERE f.tenant = p.tenant AND f.site = p.site AND f.url = p.url AND f.done IN ('stored', 'same', 'failed'))",
        (site,),
    )


def vector_text(values: Sequence[float]) -> str:
    """pgvector's text form."""
    return "[" + ",".join(f"{value:.7g}" for value in values) + "]"


def _row(page: NewPage) -> dict[str, Any]:
    product = page.product
    said = {k: getattr(product, k) for k in product.__struct_fields__ if getattr(product, k)} if product else None
    return {
        "url": page.url,
        "title": page.title,
        "description": page.description,
        "language": page.language,
        "product": said,
        "sku": product.sku or None if product else None,
        "price": _price(product.price) if product else None,
        "currency": product.currency or None if product else None,
        "links": page.links,
        "etag": page.etag,
        "last_modified": page.last_modified,
        "content_hash": page.content_hash,
        "recipe": page.recipe,
        "truncated": page.truncated,
    }


def _price(text: str) -> str | None:
    try:
        price = Decimal(text)
    except InvalidOperation:
        return None
    return str(price) if price.is_finite() and 0 <= price < 10**9 else None
