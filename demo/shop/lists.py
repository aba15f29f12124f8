"""Lists of resources: filters, order and pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from demo.shop.seed import Resource

Values = Mapping[str, Any]

_SORT: dict[str, Callable[[Resource], Any]] = {
    "date": lambda each: (each["date_created_gmt"] or "", each["id"]),
    "registered_date": lambda each: (each["date_created_gmt"] or "", each["id"]),
    "modified": lambda each: (each["date_modified_gmt"] or "", each["id"]),
    "title": lambda each: (each.get("name", ""), each["id"]),
    "name": lambda each: (each.get("name") or f"{each.get('first_name')} {each.get('last_name')}", each["id"]),
    "slug": lambda each: (each.get("slug", ""), each["id"]),
    "price": lambda each: (float(each.get("price") or 0), each["id"]),
    "count": lambda each: (each.get("count", 0), each["id"]),
}


def products(rows: Iterable[Resource], values: Values) -> list[Resource]:
    found = _common(rows, values)
    if values["sku"]:
        found = [each for each in found if each["sku"] in values["sku"].split(",")]
    if values["stock_status"]:
        found = [each for each in found if each["stock_status"] == values["stock_status"]]
    if values.get("slug"):
        found = [each for each in found if each["slug"] == values["slug"]]
    if values.get("type"):
        found = [each for each in found if each["type"] == values["type"]]
    if values.get("status") == "any":
        found = [each for each in found if each["status"] != "trash"]
    elif values.get("status") is not None:
        found = [each for each in found if each["status"] == values["status"]]
    if values.get("category"):
        wanted = values["category"].split(",")
        found = [each for each in found if any(str(c["id"]) in wanted for c in each["categories"])]
    if values.get("min_price"):
        found = [each for each in found if float(each["price"]) >= float(values["min_price"])]
    if values.get("max_price"):
        found = [each for each in found if float(each["price"]) <= float(values["max_price"])]
    return _search(found, values["search"], lambda each: f"{each['name']} {each['description']} {each['sku']}")


def categories(rows: Iterable[Resource], values: Values) -> list[Resource]:
    found = _common(rows, values)
    if values["slug"]:
        found = [each for each in found if each["slug"] == values["slug"]]
    if values["parent"] is not None:
        found = [each for each in found if each["parent"] == values["parent"]]
    return _search(found, values["search"], lambda each: str(each["name"]))


def customers(rows: Iterable[Resource], values: Values) -> list[Resource]:
    found = _common(rows, values)
    if values["email"]:
        found = [each for each in found if each["email"].lower() == values["email"].lower()]
    if values["role"] not in ("all", "customer"):
        found = []
    return _search(
        found,
        values["search"],
        lambda each: f"{each['username']} {each['email']} {each['first_name']} {each['last_name']}",
    )


def orders(rows: Iterable[Resource], values: Values) -> list[Resource]:
    found = _common(rows, values)
    if "any" in values["status"]:
        found = [each for each in found if each["status"] != "trash"]
    else:
        found = [each for each in found if each["status"] in values["status"]]
    if values["customer"] is not None:
        found = [each for each in found if each["customer_id"] == values["customer"]]
    if values["product"] is not None:
        wanted = values["product"]
        found = [
            each for each in found if any(wanted in (i["product_id"], i["variation_id"]) for i in each["line_items"])
        ]
    return _search(found, values["search"], _order_text)


def coupons(rows: Iterable[Resource], values: Values) -> list[Resource]:
    found = [each for each in _common(rows, values) if each["status"] != "trash"]
    if values["code"]:
        found = [each for each in found if each["code"] == values["code"].lower()]
    return _search(found, values["search"], lambda each: f"{each['code']} {each['description']}")


def webhooks(rows: Iterable[Resource], values: Values) -> list[Resource]:
    found = _common(rows, values)
    if values["status"] != "all":
        found = [each for each in found if each["status"] == values["status"]]
    return _search(found, values["search"], lambda each: str(each["name"]))


def _order_text(order: Resource) -> str:
    billing, names = order["billing"], " ".join(item["name"] for item in order["line_items"])
    return " ".join(
        (str(order["id"]), order["number"], billing["first_name"], billing["last_name"], billing["email"], names)
    )


def page(rows: list[Resource], values: Values) -> list[Resource]:
    """The page that was asked for; past the end it is empty. `offset` counts from the start, whatever the page."""
    size = values["per_page"]
    start = values["offset"] if values["offset"] is not None else (values["page"] - 1) * size
    return rows[start : start + size]


def _common(rows: Iterable[Resource], values: Values) -> list[Resource]:
    found = list(rows)
    if values["include"]:
        found = [each for each in found if each["id"] in values["include"]]
    if values["exclude"]:
        found = [each for each in found if each["id"] not in values["exclude"]]
    for name, field in (("after", "date_created_gmt"), ("modified_after", "date_modified_gmt")):
        if values.get(name):
            found = [each for each in found if each[field] > values[name]]
    for name, field in (("before", "date_created_gmt"), ("modified_before", "date_modified_gmt")):
        if values.get(name):
            found = [each for each in found if each[field] < values[name]]
    if values["orderby"] == "include":
        return sorted(found, key=lambda each: values["include"].index(each["id"]) if values["include"] else 0)
    key = _SORT.get(values["orderby"], lambda each: each["id"])
    return sorted(found, key=key, reverse=values["order"] == "desc")


def _search(rows: list[Resource], words: str | None, text: Callable[[Resource], str]) -> list[Resource]:
    """All words must be there, as WordPress searches."""
    if not words:
        return rows
    wanted = words.lower().split()
    return [each for each in rows if all(word in text(each).lower() for word in wanted)]
