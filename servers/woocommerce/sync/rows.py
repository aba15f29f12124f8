"""The store's objects as rows: which fields are kept, and what an object must have to be one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from html import unescape
from typing import Any

import orjson

from ..problems import printable
from .report import Counted

#: Of an id that Postgres has a type for.
LARGEST_ID = 2**63 - 1
#: Characters of an amount that are read.
LONGEST_AMOUNT = 40
#: Characters of a name, SKU or email that columns take; `data` has it whole.
LONGEST_TEXT = 1000

#: What is asked for and kept. Left out: what changes by itself at each request (related_ids, price_html), what opens
#: something (order_key, payment_url, downloads, post_password), and what reports need of nobody (IP address, browser).
PRODUCT_FIELDS = (
    *("id", "name", "slug", "permalink", "date_created_gmt", "date_modified_gmt", "type", "status", "featured"),
    *("catalog_visibility", "description", "short_description", "sku", "global_unique_id", "price", "regular_price"),
    *("sale_price", "date_on_sale_from_gmt", "date_on_sale_to_gmt", "on_sale", "purchasable", "total_sales"),
    *("virtual", "downloadable", "external_url", "tax_status", "tax_class", "manage_stock", "stock_quantity"),
    *("stock_status", "backorders", "low_stock_amount", "sold_individually", "weight", "dimensions"),
    *("shipping_class", "reviews_allowed", "average_rating", "rating_count", "upsell_ids", "cross_sell_ids"),
    *("parent_id", "categories", "brands", "tags", "images", "attributes", "default_attributes", "variations"),
    *("grouped_products", "menu_order", "meta_data"),
)
VARIATION_FIELDS = (
    *("id", "parent_id", "permalink", "date_created_gmt", "date_modified_gmt", "description", "sku"),
    *("global_unique_id", "price", "regular_price", "sale_price", "date_on_sale_from_gmt", "date_on_sale_to_gmt"),
    *("on_sale", "status", "purchasable", "virtual", "downloadable", "tax_status", "tax_class", "manage_stock"),
    *("stock_quantity", "stock_status", "backorders", "low_stock_amount", "weight", "dimensions", "shipping_class"),
    *("image", "attributes", "menu_order", "meta_data", "name"),
)
CUSTOMER_FIELDS = (
    *("id", "date_created_gmt", "date_modified_gmt", "email", "first_name", "last_name", "role", "username"),
    *("billing", "shipping", "is_paying_customer", "meta_data"),
)
ORDER_FIELDS = (
    *("id", "parent_id", "number", "status", "currency", "prices_include_tax", "date_created_gmt"),
    *("date_modified_gmt", "date_completed_gmt", "date_paid_gmt", "discount_total", "discount_tax"),
    *("shipping_total", "shipping_tax", "cart_tax", "total", "total_tax", "customer_id", "billing", "shipping"),
    *("payment_method", "payment_method_title", "transaction_id", "created_via", "customer_note", "line_items"),
    *("tax_lines", "shipping_lines", "fee_lines", "coupon_lines", "refunds", "meta_data"),
)

Raw = Mapping[str, Any]


class Unfit(Exception):
    """An object of the store that can be no row. The text says why, in words for a person."""


@dataclass(frozen=True)
class Row:
    """One object. `columns` has everything but tenant, id, content_hash and data."""

    id: int
    content_hash: str
    data: bytes
    columns: dict[str, Any]
    #: An order's lines.
    items: tuple[dict[str, Any], ...] = ()


def id_of(raw: object) -> int | None:
    """The object's id, where it has one that can be believed."""
    found = raw.get("id") if isinstance(raw, Mapping) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found <= LARGEST_ID else None


def row_of(kind: Counted, raw: object, largest: int) -> Row:
    """The object as a row. `largest`: bytes that it may have.

    Raises:
        Unfit
    """
    if not isinstance(raw, Mapping):
        raise Unfit(f"it is {type(raw).__name__}, not an object")
    if (id := id_of(raw)) is None:
        raise Unfit(f"its id is {printable(raw.get('id'))!r}")
    fields, columns = _KINDS[kind]
    try:
        data = orjson.dumps({name: raw[name] for name in fields if name in raw}, option=orjson.OPT_SORT_KEYS)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise Unfit(f"it cannot be written: {printable(error)}") from None
    if len(data) > largest:
        raise Unfit(f"it has {len(data):,} bytes; at most {largest:,} are taken")
    if b"\\u0000" in data and _NUL.search(data):
        raise Unfit("it has a NUL character in a text, which Postgres does not take")
    made, items = columns(raw)
    return Row(id, blake2b(data, digest_size=16).hexdigest(), data, made, items)


#: An escaped NUL; an even number of backslashes before it are escaped themselves.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_Columns = tuple[dict[str, Any], tuple[dict[str, Any], ...]]


def _product(raw: Raw) -> _Columns:
    made = {"name": unescape(_text(raw, "name")), "type": _text(raw, "type"), "status": _text(raw, "status")}
    return made | _stock(raw) | {"modified_at": _moment(raw, "date_modified_gmt")}, ()


def _variation(raw: Raw) -> _Columns:
    return {"parent_id": _whole(raw, "parent_id")} | _stock(raw) | {
        "modified_at": _moment(raw, "date_modified_gmt")
    }, ()


def _stock(raw: Raw) -> dict[str, Any]:
    return {
        "sku": _text(raw, "sku", optional=True),
        "price": _amount(raw, "price", optional=True),
        "stock_status": _text(raw, "stock_status", optional=True),
        "stock_quantity": _whole(raw, "stock_quantity") if raw.get("stock_quantity") is not None else None,
    }


def _customer(raw: Raw) -> _Columns:
    names = {name: _text(raw, name, optional=True) for name in ("first_name", "last_name")}
    return {"email": _text(raw, "email"), **names, "created_at": _moment(raw, "date_created_gmt")}, ()


def _order(raw: Raw) -> _Columns:
    billing = raw.get("billing") or {}
    lines = raw.get("line_items")
    if not isinstance(lines, list) or not isinstance(billing, Mapping):
        raise Unfit(f"its {'billing' if isinstance(lines, list) else 'line_items'} cannot be read")
    made = {
        "number": _text(raw, "number"),
        "customer_id": _whole(raw, "customer_id"),
        "email": _text(billing, "email", optional=True),
        "status": _text(raw, "status"),
        "currency": _text(raw, "currency"),
        "total": _amount(raw, "total"),
        "created_at": _moment(raw, "date_created_gmt"),
        "modified_at": _moment(raw, "date_modified_gmt"),
    }
    items = {line["line"]: line for line in map(_item, lines)}
    return made, tuple(items.values())


def _item(raw: object) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise Unfit("one of its line_items is no object")
    return {
        "line": _whole(raw, "id"),
        "product_id": _whole(raw, "product_id"),
        "variation_id": _whole(raw, "variation_id", optional=True),
        "sku": _text(raw, "sku", optional=True),
        "name": unescape(_text(raw, "name")),
        "quantity": _amount(raw, "quantity"),
        "total": _amount(raw, "total"),
    }


def _text(raw: Raw, name: str, *, optional: bool = False) -> str:
    found = raw.get(name)
    if isinstance(found, str):
        return found[:LONGEST_TEXT]
    if found is None and optional:
        return ""
    raise Unfit(f"its {name} is missing" if found is None else f"its {name} is no text")  # and may be somebody's


def _whole(raw: Raw, name: str, *, optional: bool = False) -> int:
    found = raw.get(name)
    if found is None and optional:
        return 0
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, int) and not isinstance(found, bool) and abs(found) <= LARGEST_ID:
        return found
    raise Unfit(f"its {name} is {printable(found)!r}, not a whole number")


def _amount(raw: Raw, name: str, *, optional: bool = False) -> str | None:
    """Money is a text; the database reads it as it is written."""
    found = raw.get(name)
    if optional and found in (None, ""):
        return None
    try:
        number = Decimal(str(found)[:LONGEST_AMOUNT])
    except InvalidOperation:
        number = Decimal("NaN")
    # an exponent may make a number of millions of digits out of ten characters
    if isinstance(found, bool) or not number.is_finite() or not -20 <= number.adjusted() <= 20:
        raise Unfit(f"its {name} is {printable(found)!r}, not an amount")
    return f"{number:f}"


def _moment(raw: Raw, name: str) -> str | None:
    """A time in UTC; None where the store has none."""
    found = raw.get(name)
    if not found or str(found).startswith("0000-"):  # MySQL's way to have none
        return None
    try:
        moment = datetime.fromisoformat(str(found))
    except ValueError:
        raise Unfit(f"its {name} is {printable(found)!r}, not a time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


_KINDS: dict[Counted, tuple[tuple[str, ...], Callable[[Raw], _Columns]]] = {
    "products": (PRODUCT_FIELDS, _product),
    "variations": (VARIATION_FIELDS, _variation),
    "customers": (CUSTOMER_FIELDS, _customer),
    "orders": (ORDER_FIELDS, _order),
}
