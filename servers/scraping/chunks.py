"""A page's text in pieces of a size that a model embeds well, each with the headings that it stands under."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from .page import Block, Content, Product

#: Tokens of each text, as the embedding model counts them.
Count = Callable[[Sequence[str]], Sequence[int]]

_SENTENCE = re.compile(r"(?<=[.!?。！？:;])\s+|\n+")
_HEADING_CHARS = 200


@dataclass(frozen=True)
class Chunk:
    #: Title and headings from the outermost on, joined by " > ".
    heading: str
    text: str
    tokens: int

    @property
    def embedded(self) -> str:
        """What is embedded: the text alone often does not say what it is about."""
        return f"{self.heading}\n{self.text}"

    @property
    def digest(self) -> bytes:
        return blake2b(self.embedded.encode(), digest_size=16).digest()


@dataclass(frozen=True)
class _Piece:
    heading: str
    text: str
    tokens: int


def chunks_of(content: Content, count: Count, limit: int, most: int) -> tuple[list[Chunk], bool]:
    """At most `most` chunks of at most `limit` tokens, and whether that was all of the page."""
    pieces = _pieces(content)
    tokens = count([text for _, text in pieces])
    headings = {heading: n for heading, n in _counted(count, {heading for heading, _ in pieces})}
    chunks: list[Chunk] = []
    pending: list[_Piece] = []
    for (heading, text), n in zip(pieces, tokens, strict=True):
        room = max(limit - headings[heading] - 1, limit // 2)
        for piece in [_Piece(heading, text, n)] if n <= room else _split(heading, text, count, room):
            if pending and (pending[0].heading != heading or sum(p.tokens + 1 for p in pending) + piece.tokens > room):
                chunks.append(_joined(pending))
                pending = []
            pending.append(piece)
            if len(chunks) >= most:
                return chunks, False
    if pending:
        chunks.append(_joined(pending))
    return chunks[:most], len(chunks) <= most


def product_text(product: Product) -> str:
    """As people would say it, for search by words and by meaning."""
    price = f"Price: {product.price} {product.currency}".strip() if product.price else ""
    parts = (
        product.name,
        f"SKU: {product.sku}" if product.sku else "",
        price,
        f"Availability: {product.availability}" if product.availability else "",
        f"Brand: {product.brand}" if product.brand else "",
        product.description,
    )
    return "\n".join(part for part in parts if part)


def _pieces(content: Content) -> list[tuple[str, str]]:
    """Each text with its headings, in the page's order."""
    title = _short(content.title)
    found: list[tuple[str, str]] = []
    if content.product is not None:
        found.append((title, product_text(content.product)))
    elif content.description:
        found.append((title, content.description))
    path: list[Block] = []
    for block in content.blocks:
        if block.level:
            path = [each for each in path if each.level < block.level]
            if not (block.level == 1 and _short(block.text) == title):
                path.append(block)
        else:
            heading = " > ".join(part for part in (title, *(_short(each.text) for each in path)) if part)
            found.append((heading, block.text))
    return [(heading, text) for heading, text in found if text]


def _short(heading: str) -> str:
    return heading[:_HEADING_CHARS]


def _counted(count: Count, headings: set[str]) -> Iterator[tuple[str, int]]:
    ordered = sorted(headings)
    return zip(ordered, count(ordered), strict=True)


def _split(heading: str, text: str, count: Count, room: int) -> Iterator[_Piece]:
    """Pieces of a text that is too long: whole sentences where they fit, else words, else characters."""
    taken: list[str] = []
    size = 0
    for part, n in _fitting(text, count, room):
        if taken and size + n + 1 > room:
            yield _Piece(heading, " ".join(taken), size)
            taken, size = [], 0
        taken.append(part)
        size += n + 1
    if taken:
        yield _Piece(heading, " ".join(taken), size)


def _fitting(text: str, count: Count, room: int) -> Iterator[tuple[str, int]]:
    sentences = [part for part in _SENTENCE.split(text) if part and part.strip()]
    for sentence, n in zip(sentences, count(sentences), strict=True):
        if n <= room:
            yield sentence, n
            continue
        # a token has a character at least, so slices of `room` characters always fit
        slices = list(_slices(sentence, room))
        yield from zip(slices, count(slices), strict=True)


def _slices(text: str, room: int) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + room
        space = text.rfind(" ", start + room // 2, end) if end < len(text) else -1
        end = space if space > start else end
        yield text[start:end].strip() or text[start:end]
        start = end


def _joined(pieces: Sequence[_Piece]) -> Chunk:
    return Chunk(
        pieces[0].heading, "\n".join(piece.text for piece in pieces), sum(piece.tokens + 1 for piece in pieces)
    )
