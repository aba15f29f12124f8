"""Search in stored pages: by meaning and, beside it, by words that are rare here. All SQL of readers is in this module.

A piece's score is its vector's likeness to the question, and `WORDS` times the share of the question's weight that its
words carry; a word weighs more the fewer pieces have it. Vectors alone miss names and numbers, words alone miss
questions that are put in other words than the page's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..context import Rows
from .store import stemmer, vector_text

WORDS = 0.4
#: Pieces of one page that a result may hold.
_OF_A_PAGE = 2
_MOST_WORDS = 40
#: Each piece's words are read from their packed form once, and not for each word that is asked for.
_UNPACKED = (
    "(SELECT url, position, heading, text, embedding, model, words || ''::tsvector AS words FROM page_chunk OFFSET 0) c"
)


async def any_page(rows: Rows) -> bool:
    return bool(await rows.fetch("SELECT FROM page LIMIT 1"))


async def search(
    rows: Rows, query: str, vector: Sequence[float], model: str, limit: int, site: str
) -> list[dict[str, Any]]:
    """url, title, heading, text and score of the best pieces. Vectors of another model count for nothing.

    Two scans of the tenant's pieces: without a join for which Postgres would have to know how many there are, and
    without an index on words, which under row-level security is not asked before the tenant is.
    """
    words = await _words(rows, query)
    names = [f"word{i}" for i in range(len(words))]
    asked = dict(zip(names, words, strict=True))
    counted = ", ".join(f"count(*) FILTER (WHERE words @@ %({name})s::tsquery) AS {name}" for name in names)
    weights: dict[str, float] = {}
    if words:
        [counts] = await rows.fetch(f"SELECT count(*) AS pieces, {counted} FROM {_UNPACKED}", asked)  # noqa: S608
        weights = {name: math.log1p(counts["pieces"] / counts[name]) for name in names if counts[name]}
    whole = sum(weights.values())
    # the names are made above, and all else is a parameter
    share = "".join(
        f" + CASE WHEN c.words @@ %({name})s::tsquery THEN {WORDS * weight / whole:.9f} ELSE 0 END"
        for name, weight in weights.items()
    )
    return await rows.fetch(
        f"""
        WITH scored AS (
            SELECT c.url, c.position, c.heading, c.text,
                   CASE WHEN c.model = %(model)s THEN 1 - (c.embedding <=> %(vector)s::vector) ELSE 0 END
                   {share} AS score
            FROM {_UNPACKED} WHERE starts_with(c.url, %(site)s)
            ORDER BY score DESC, c.url, c.position LIMIT %(candidates)s
        ),
        ranked AS (
            SELECT *, row_number() OVER (PARTITION BY url ORDER BY score DESC, position) AS place FROM scored
        )
        SELECT r.url, p.title, r.heading, r.text, round(r.score::numeric, 3)::float AS score
        FROM ranked r JOIN page p USING (url) WHERE place <= %(of_a_page)s
        ORDER BY r.score DESC, r.url, r.position LIMIT %(limit)s
        """,  # noqa: S608
        {
            **{name: asked[name] for name in weights},
            "vector": vector_text(vector),
            "model": model,
            "site": site,
            "candidates": limit * 20,
            "of_a_page": _OF_A_PAGE,
            "limit": limit,
        },
    )


async def _words(rows: Rows, query: str) -> list[str]:
    """The query's words as stems of the languages that pages are in, each as a tsquery."""
    languages = [row["language"] for row in await rows.fetch("SELECT DISTINCT language FROM page")]
    found = await rows.fetch(
        "SELECT DISTINCT lexeme FROM unnest(%s::regconfig[]) AS stemmer, unnest(to_tsvector(stemmer, %s))"
        " ORDER BY lexeme LIMIT %s",
        (sorted({stemmer(language) for language in languages}), query.replace("\x00", " "), _MOST_WORDS),
    )
    return ["'" + row["lexeme"].replace("\\", "\\\\").replace("'", "''") + "'" for row in found]


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
