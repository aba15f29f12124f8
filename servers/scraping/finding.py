"""Search in stored pages: by meaning and, beside it, by words that are rare here. All SQL of readers is in this module.

A piece's score is its vector's likeness to the question, and `WORDS` times the share of the question's weight that its
words carry; a word weighs more the fewer pieces have it. Vectors alone miss names and numbers, words alone miss
questions that are put in other words than the page's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..context import Rows
from .store import stemmer, vector_text

WORDS = 0.4
#: Pieces of one page that a result may hold.
_OF_A_PAGE = 2


async def any_page(rows: Rows) -> bool:
    return bool(await rows.fetch("SELECT FROM page LIMIT 1"))


async def search(
    rows: Rows, query: str, vector: Sequence[float], model: str, limit: int, site: str
) -> list[dict[str, Any]]:
    """url, title, heading, text and score of the best pieces. Vectors of another model count for nothing."""
    languages = [row["language"] for row in await rows.fetch("SELECT DISTINCT language FROM page")]
    return await rows.fetch(
        """
        WITH asked AS (
            SELECT DISTINCT lexeme FROM unnest(%(stemmers)s::regconfig[]) AS stemmer,
                   unnest(to_tsvector(stemmer, %(query)s))
        ),
        hit AS (
            SELECT a.lexeme, c.url, c.position FROM asked a
            JOIN page_chunk c ON c.words @@ (quote_literal(a.lexeme))::tsquery
        ),
        weight AS (
            SELECT lexeme, ln(1 + (SELECT count(*) FROM page_chunk)::float / count(*)) AS w FROM hit GROUP BY lexeme
        ),
        worded AS (
            SELECT url, position, sum(w) / (SELECT sum(w) FROM weight) AS share
            FROM hit JOIN weight USING (lexeme) GROUP BY url, position
        ),
        scored AS (
            SELECT c.url, c.position, c.heading, c.text,
                   CASE WHEN c.model = %(model)s THEN 1 - (c.embedding <=> %(vector)s::vector) ELSE 0 END
                   + %(words)s * coalesce(w.share, 0) AS score
            FROM page_chunk c LEFT JOIN worded w USING (url, position)
            WHERE starts_with(c.url, %(site)s)
            ORDER BY score DESC LIMIT %(candidates)s
        ),
        ranked AS (
            SELECT *, row_number() OVER (PARTITION BY url ORDER BY score DESC, position) AS place FROM scored
        )
        SELECT r.url, p.title, r.heading, r.text, round(r.score::numeric, 3)::float AS score
        FROM ranked r JOIN page p USING (url) WHERE place <= %(of_a_page)s
        ORDER BY r.score DESC, r.url, r.position LIMIT %(limit)s
        """,
        {
            "stemmers": sorted({"simple", *map(stemmer, languages)}),
            "query": query.replace("\x00", " "),
            "vector": vector_text(vector),
            "model": model,
            "words": WORDS,
            "site": site,
            "candidates": limit * 20,
            "of_a_page": _OF_A_PAGE,
            "limit": limit,
        },
    )


async def page(rows: Rows, url: str) -> dict[str, Any] | None:
    """One page, with its `text` put together again."""
    found = await rows.fetch("SELECT * FROM page WHERE url = %s", (url,))
    if not found:
        return None
    pieces = await rows.fetch("SELECT heading, text FROM page_chunk WHERE url = %s ORDER BY position", (url,))
    return {**found[0], "text": _together(pieces)}


async def remove(rows: Rows, site: str) -> int:
    """A site's pages, its crawl with them."""
    await rows.execute("DELETE FROM page_crawl WHERE site = %s", (site,))
    return await rows.execute("DELETE FROM page WHERE site = %s", (site,))


def _together(pieces: Sequence[dict[str, Any]]) -> str:
    parts: list[str] = []
    heading = ""
    for piece in pieces:
        if piece["heading"] != heading:
            heading = piece["heading"]
            parts.append(f"## {heading}")
        parts.append(piece["text"])
    return "\n\n".join(parts)
