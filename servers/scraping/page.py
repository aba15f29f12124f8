"""What is read off a page. It crosses from the reader's process as msgpack."""

from __future__ import annotations

import msgspec


class Block(msgspec.Struct, frozen=True, array_like=True):
    """A paragraph, list item, table row or heading. `level`: 1 to 6 of a heading, 0 of text."""

    level: int
    text: str


class Product(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a page says that it sells, in the page's words; "" for what it does not say."""

    name: str = ""
    sku: str = ""
    price: str = ""
    currency: str = ""
    availability: str = ""
    brand: str = ""
    description: str = ""


class Content(msgspec.Struct, frozen=True):
    """One page. All of it is a stranger's text."""

    title: str = ""
    description: str = ""
    language: str = ""
    #: As the page gives them: relative, broken, hostile.
    canonical: str = ""
    links: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    product: Product | None = None
    noindex: bool = False
    nofollow: bool = False


class Source(msgspec.Struct, frozen=True):
    """What the reader's process is sent."""

    body: bytes
    content_type: str = ""
    most_links: int = 2_000
