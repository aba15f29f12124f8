"""The retail data as WooCommerce resources: how orders, customers and products of the one look in the other."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from demo.shop import templates

#: One wc/v3 object, without its links, which depend on the address it is asked at.
Resource = dict[str, Any]

#: The retail data's order states in WooCommerce. The last two are what shops add by a plugin.
STATUS = {
    "pending": "pending",
    "pending (item modified)": "pending",
    "processed": "processing",
    "delivered": "completed",
    "cancelled": "cancelled",
    "return requested": "return-requested",
    "exchange requested": "exchange-requested",
}

_CATEGORIES = {
    "Clothing": ("T-Shirt", "Fleece Jacket"),
    "Shoes": ("Running Shoes", "Hiking Boots", "Sneakers"),
    "Computers & Phones": (
        "Laptop",
        "Smartphone",
        "Tablet",
        "E-Reader",
        "Gaming Mouse",
        "Mechanical Keyboard",
        "Portable Charger",
    ),
    "Audio & Cameras": ("Bluetooth Speaker", "Wireless Earbuds", "Headphones", "Action Camera", "Digital Camera"),
    "Smart Home": ("Smart Thermostat", "Indoor Security Camera", "LED Light Bulb"),
    "Kitchen": ("Coffee Maker", "Electric Kettle", "Espresso Machine", "Tea Kettle"),
    "Home & Office": (
        "Desk Lamp",
        "Wall Clock",
        "Pet Bed",
        "Bookshelf",
        "Office Chair",
        "Air Purifier",
        "Vacuum Cleaner",
        "Notebook",
    ),
    "Sports & Outdoors": (
        "Yoga Mat",
        "Water Bottle",
        "Dumbbell Set",
        "Cycling Helmet",
        "Bicycle",
        "Skateboard",
        "Garden Hose",
        "Patio Umbrella",
        "Grill",
    ),
    "Accessories & Travel": ("Backpack", "Sunglasses", "Wristwatch", "Smart Watch", "Luggage Set"),
    "Beauty & Care": ("Electric Toothbrush", "Makeup Kit", "Perfume"),
    "Toys": ("Jigsaw Puzzle",),
}

_OPENED = datetime(2026, 1, 5, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Seed:
    """A shop's resources by id. `variations` are keyed by their own id and name their product in `parent_id`."""

    categories: Mapping[int, Resource]
    products: Mapping[int, Resource]
    variations: Mapping[int, Resource]
    customers: Mapping[int, Resource]
    orders: Mapping[int, Resource]


@dataclass
class _Ids:
    """Ids of things that the retail data does not number."""

    meta: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    line: Iterator[int] = field(default_factory=lambda: itertools.count(1))


def money(amount: float) -> str:
    """An amount as WooCommerce writes it: two decimals, a string."""
    return f"{amount + 0.0:.2f}"


def slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def build(data: Mapping[str, Any]) -> Seed:
    """All resources of a shop with this retail data."""
    ids = _Ids()
    categories = _categories(data["products"].values())
    by_name = {name: category for category in categories.values() for name in category["_products"]}
    products: dict[int, Resource] = {}
    variations: dict[int, Resource] = {}
    for raw in data["products"].values():
        own = [_variation(raw, variant) for variant in raw["variants"].values()]
        variations.update((each["id"], each) for each in own)
        products[int(raw["product_id"])] = _product(raw, own, by_name[raw["name"]])
    numbers = customer_ids(data)
    customers = {numbers[user_id]: _customer(numbers[user_id], raw, ids) for user_id, raw in data["users"].items()}
    orders = {}
    for position, raw in enumerate(data["orders"].values()):
        customer = customers[numbers[raw["user_id"]]]
        created = _OPENED + timedelta(hours=4 * position)
        orders[order_id(raw["order_id"])] = _order(raw, customer, created, ids)
    plain = {key: {k: v for k, v in each.items() if k != "_products"} for key, each in categories.items()}
    return Seed(plain, products, variations, customers, orders)


def customer_ids(data: Mapping[str, Any]) -> dict[str, int]:
    """The shop's id of each customer by their id in the retail data; 1 is the shopkeeper."""
    return {user_id: number for number, user_id in enumerate(data["users"], start=2)}


def order_id(number: str) -> int:
    """The id of order "#W2611340"."""
    return int(number.lstrip("#W"))


def _dates(prefix: str, moment: datetime) -> Resource:
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return {f"date_{prefix}": text, f"date_{prefix}_gmt": text}


def _meta(values: Mapping[str, Any], ids: _Ids) -> list[Resource]:
    return [{"id": next(ids.meta), "key": key, "value": value} for key, value in values.items()]


def _categories(products: Iterable[Mapping[str, Any]]) -> dict[int, Resource]:
    named = {product: category for category, members in _CATEGORIES.items() for product in members}
    members: dict[str, list[str]] = {}
    for product in products:
        members.setdefault(named.get(product["name"], "Uncategorized"), []).append(product["name"])
    return {
        number: templates.CATEGORY
        | {"id": number, "name": name, "slug": slug(name), "count": len(members[name]), "_products": members[name]}
        for number, name in enumerate(sorted(members), start=15)
    }


def option_values(raw: Mapping[str, Any]) -> dict[str, list[str]]:
    """Each option of a product and the values that its variants have, in the data's order."""
    values: dict[str, list[str]] = {}
    for variant in raw["variants"].values():
        for name, value in variant["options"].items():
            if value not in values.setdefault(name, []):
                values[name].append(value)
    return values


def _product(raw: Mapping[str, Any], variations: list[Resource], category: Resource) -> Resource:
    options = option_values(raw)
    described = "; ".join(f"{name}: {', '.join(values)}" for name, values in options.items())
    stock = "instock" if any(each["stock_status"] == "instock" for each in variations) else "outofstock"
    return templates.PRODUCT | {
        "id": int(raw["product_id"]),
        "name": raw["name"],
        "slug": slug(raw["name"]),
        **_dates("created", _OPENED),
        **_dates("modified", _OPENED),
        "description": f"<p>{raw['name']}, to be had in these options: {described}.</p>\n",
        "short_description": f"<p>{raw['name']} in {len(variations)} variants.</p>\n",
        "sku": slug(raw["name"]),
        "price": min((each["price"] for each in variations), key=float),
        "categories": [{key: category[key] for key in ("id", "name", "slug")}],
        "attributes": [
            {
                "id": 0,
                "name": name,
                "slug": name,
                "position": position,
                "visible": True,
                "variation": True,
                "options": values,
            }
            for position, (name, values) in enumerate(options.items())
        ],
        "variations": [each["id"] for each in variations],
        "stock_status": stock,
    }


def _variation(product: Mapping[str, Any], raw: Mapping[str, Any]) -> Resource:
    return templates.VARIATION | {
        "id": int(raw["item_id"]),
        **_dates("created", _OPENED),
        **_dates("modified", _OPENED),
        "sku": raw["item_id"],
        "price": money(raw["price"]),
        "regular_price": money(raw["price"]),
        "stock_status": "instock" if raw["available"] else "outofstock",
        "attributes": [
            {"id": 0, "name": name, "slug": slug(name), "option": value} for name, value in raw["options"].items()
        ],
        "name": ", ".join(raw["options"].values()),
        "parent_id": int(product["product_id"]),
    }


def address(raw: Mapping[str, str]) -> Resource:
    """A retail address in WooCommerce's field names."""
    return {
        "address_1": raw["address1"],
        "address_2": raw["address2"],
        "city": raw["city"],
        "state": raw["state"],
        "postcode": raw["zip"],
        "country": raw["country"],
    }


def _customer(number: int, raw: Mapping[str, Any], ids: _Ids) -> Resource:
    person = {"first_name": raw["name"]["first_name"], "last_name": raw["name"]["last_name"]}
    lives = person | address(raw["address"])
    digest = hashlib.sha256(raw["email"].encode()).hexdigest()
    methods = [
        method | {"balance": money(method["balance"])} if "balance" in method else dict(method)
        for method in raw["payment_methods"].values()
    ]
    return templates.CUSTOMER | {
        "id": number,
        **_dates("created", _OPENED),
        **_dates("modified", _OPENED),
        "email": raw["email"],
        **person,
        "username": raw["user_id"],
        "billing": templates.BILLING | lives | {"email": raw["email"]},
        "shipping": templates.SHIPPING | lives,
        "is_paying_customer": bool(raw["orders"]),
        "avatar_url": f"https://secure.gravatar.com/avatar/{digest}?s=96&d=mm&r=g",
        "meta_data": _meta({"_payment_methods": methods}, ids),
    }


def _order(raw: Mapping[str, Any], customer: Resource, created: datetime, ids: _Ids) -> Resource:
    person = {"first_name": customer["first_name"], "last_name": customer["last_name"]}
    goes_to = person | address(raw["address"])
    lines = [_line(item, ids) for item in raw["items"]]
    completed = _dates("completed", created + timedelta(days=3)) if raw["status"] == "delivered" else {}
    history = [payment | {"amount": money(payment["amount"])} for payment in raw["payment_history"]]
    meta: dict[str, Any] = {"_tracking": raw["fulfillments"], "_payment_history": history}
    if raw["status"] == "pending (item modified)":
        meta["_items_modified"] = "yes"
    number = raw["order_id"].lstrip("#")
    return templates.ORDER | {
        "id": order_id(raw["order_id"]),
        "status": STATUS[raw["status"]],
        **_dates("created", created),
        **_dates("modified", created),
        **_dates("paid", created),
        **completed,
        "total": money(sum(item["price"] for item in raw["items"])),
        "customer_id": customer["id"],
        "order_key": f"wc_order_{number}",
        "billing": templates.BILLING | goes_to | {"email": customer["email"]},
        "shipping": templates.SHIPPING | goes_to,
        "payment_method": history[0]["payment_method_id"],
        "payment_method_title": history[0]["payment_method_id"].rsplit("_", 1)[0].replace("_", " ").capitalize(),
        "number": number,
        "meta_data": _meta(meta, ids),
        "line_items": lines,
        "is_editable": raw["status"].startswith("pending"),
        "needs_processing": True,
    }


def _line(item: Mapping[str, Any], ids: _Ids) -> Resource:
    return templates.LINE_ITEM | {
        "id": next(ids.line),
        "name": item["name"],
        "product_id": int(item["product_id"]),
        "variation_id": int(item["item_id"]),
        "quantity": 1,
        "subtotal": money(item["price"]),
        "total": money(item["price"]),
        "meta_data": [
            {"id": next(ids.meta), "key": name, "value": value, "display_key": name, "display_value": value}
            for name, value in item["options"].items()
        ],
        "sku": item["item_id"],
        "price": item["price"],
        "parent_name": item["name"],
    }
