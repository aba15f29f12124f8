"""What a page says that it sells: its JSON-LD first, then microdata and Open Graph, then WooCommerce's own markup."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from .page import Product

_LONGEST = 2_000
_SCHEMA = re.compile(r"^https?://schema\.org/", re.IGNORECASE)
_AMOUNT = re.compile(r"\d[\d.,'\u00a0\u202f ]*")
_SYMBOLS = {"€": "EUR", "$": "USD", "£": "GBP", "¥": "JPY", "₹": "INR", "CHF": "CHF", "zł": "PLN", "kr": "SEK"}
#: Objects of one page's JSON-LD that are looked at.
_NODES = 2_000


def product_of(tree: LexborHTMLParser) -> Product | None:
    """The page's one product; None for other pages, and for lists of several."""
    found = [
        _from_linked(each) for each in _linked(tree) if "Product" in _types(each) or "ProductGroup" in _types(each)
    ]
    if len(found) == 1:
        return _completed(found[0], tree)
    if len(found) > 1:
        return None
    return _from_microdata(tree) or _from_meta(tree) or _from_shop(tree)


def _linked(tree: LexborHTMLParser) -> Iterator[dict[str, Any]]:
    """Every object at the top of the page's JSON-LD, in its lists and graphs."""
    waiting: list[Any] = []
    for node in tree.css('script[type="application/ld+json" i]'):
        text = node.text().strip()
        try:
            waiting.append(json.loads(text, strict=False))
        except (ValueError, RecursionError):
            continue
    looked = 0
    while waiting and looked < _NODES:
        looked += 1
        each = waiting.pop(0)
        if isinstance(each, list):
            waiting += each[:_NODES]
        elif isinstance(each, dict):
            yield each
            waiting += [each[key] for key in ("@graph", "mainEntity") if key in each]


def _types(each: dict[str, Any]) -> set[str]:
    kinds = each.get("@type")
    return {_SCHEMA.sub("", str(kind)) for kind in (kinds if isinstance(kinds, list) else [kinds])}


def _from_linked(each: dict[str, Any]) -> Product:
    offer = _first(each.get("offers"))
    variant = _first(each.get("hasVariant"))
    if not offer and variant:
        offer = _first(variant.get("offers"))
    specification = _first(offer.get("priceSpecification"))
    return Product(
        name=_text(each.get("name")),
        sku=_text(each.get("sku") or offer.get("sku") or each.get("mpn") or each.get("productID")),
        price=amount(_text(offer.get("price") or specification.get("price") or offer.get("lowPrice"))),
        currency=_text(offer.get("priceCurrency") or specification.get("priceCurrency"))[:3].upper(),
        availability=_SCHEMA.sub("", _text(offer.get("availability"))),
        brand=_text(_first(each.get("brand")).get("name") or each.get("brand")),
        description=_text(each.get("description")),
    )


def _completed(product: Product, tree: LexborHTMLParser) -> Product:
    """With price and SKU from elsewhere on the page where JSON-LD has none."""
    if product.price and product.sku:
        return product
    other = _from_microdata(tree) or _from_meta(tree) or _from_shop(tree)
    if other is None:
        return product
    same = {name: getattr(product, name) or getattr(other, name) for name in product.__struct_fields__}
    return Product(**same)


def _from_microdata(tree: LexborHTMLParser) -> Product | None:
    scopes = [n for n in tree.css("[itemtype]") if (n.attributes.get("itemtype") or "").endswith("schema.org/Product")]
    if len(scopes) != 1:
        return None

    def prop(name: str) -> str:
        node = scopes[0].css_first(f'[itemprop="{name}"]')
        if node is None:
            return ""
        return _text(node.attributes.get("content") or node.attributes.get("href") or node.text())

    return Product(
        name=prop("name"),
        sku=prop("sku"),
        price=amount(prop("price") or prop("lowPrice")),
        currency=prop("priceCurrency")[:3].upper(),
        availability=_SCHEMA.sub("", prop("availability")),
        brand=prop("brand"),
        description=prop("description"),
    )


def _from_meta(tree: LexborHTMLParser) -> Product | None:
    def meta(*names: str) -> str:
        for name in names:
            node = tree.css_first(f'meta[property="{name}"]')
            if node is not None and node.attributes.get("content"):
                return _text(node.attributes.get("content"))
        return ""

    price = amount(meta("product:price:amount", "og:price:amount"))
    if not price:
        return None
    return Product(
        name=meta("og:title"),
        sku=meta("product:retailer_item_id", "product:sku"),
        price=price,
        currency=meta("product:price:currency", "og:price:currency")[:3].upper(),
        availability=meta("product:availability", "og:availability"),
        brand=meta("product:brand"),
        description=meta("og:description"),
    )


def _from_shop(tree: LexborHTMLParser) -> Product | None:
    """A single product's page as WooCommerce's themes make it."""
    summary = tree.css_first("div.product .summary") or tree.css_first(".single-product div.product")
    if summary is None:
        return None

    def first(*selectors: str) -> str:
        found = (summary.css_first(selector) for selector in selectors)
        return next((_text(node.text()) for node in found if node is not None), "")

    written = first(".price ins .amount", ".price .amount", ".price")
    return Product(
        name=first(".product_title", "h1"),
        sku=first(".sku"),
        price=amount(written),
        currency=next((code for symbol, code in _SYMBOLS.items() if symbol in written), ""),
        availability=first(".stock"),
        description=first(".woocommerce-product-details__short-description"),
    )


def amount(text: str) -> str:
    """The first number of a price, with a point: "1.299,00 €" is "1299.00"; "" where there is none."""
    found = _AMOUNT.search(text)
    if found is None:
        return ""
    digits = re.sub(r"['\u00a0\u202f ]", "", found[0]).rstrip(".,")
    point = max(digits.rfind("."), digits.rfind(","))
    if point < 0:
        return digits
    mark, tail = digits[point], digits[point + 1 :]
    # one mark alone before three digits stands for thousands, as does a mark that comes twice
    if digits.count(mark) > 1 or (len(tail) == 3 and not (set(digits) >= {".", ","})):
        return re.sub(r"[.,]", "", digits)
    return re.sub(r"[.,]", "", digits[:point]) + "." + tail


def _first(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        value = value[0] if value else {}
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """A plain value as one line; "" for anything else."""
    if isinstance(value, list):
        value = value[0] if value else ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    # JSON may hold halves of characters, which no database takes
    whole = str(value)[: 4 * _LONGEST].encode("utf-8", "replace").decode().replace("\x00", "")
    return " ".join(re.sub(r"<[^>]{0,500}>", " ", whole).split())[:_LONGEST]
