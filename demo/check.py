"""Is the shop in the state that the reference gives? The shop's resources read back as retail data, and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from demo.tau import RetailData

#: One wc/v3 object.
Raw = Mapping[str, Any]

_STATUS = {
    "pending": "pending",
    "processing": "processed",
    "completed": "delivered",
    "cancelled": "cancelled",
    "return-requested": "return requested",
    "exchange-requested": "exchange requested",
}
_ADDRESS = {
    "address1": "address_1",
    "address2": "address_2",
    "city": "city",
    "country": "country",
    "state": "state",
    "zip": "postcode",
}


def differences(expected: RetailData, shop: Mapping[str, Sequence[Raw]]) -> list[str]:
    """Where the shop's whole state differs from the expected retail data, one line each; empty when nowhere.

    Amounts are compared to the cent: the reference computes in binary floating point and does not always round.
    """
    return _compare(expected, retail_data(shop), "")


def retail_data(shop: Mapping[str, Sequence[Raw]]) -> RetailData:
    """A shop's products, variations, customers and orders as the retail package's database has them."""
    usernames = {customer["id"]: customer["username"] for customer in shop["customers"]}
    orders = {f"#{order['number']}": _order(order, usernames) for order in shop["orders"]}
    owned: dict[str, list[str]] = {}
    for number, order in orders.items():
        owned.setdefault(order["user_id"], []).append(number)
    variations: dict[int, list[Raw]] = {}
    for variation in shop["variations"]:
        variations.setdefault(variation["parent_id"], []).append(variation)
    products = [_product(product, variations.get(product["id"], [])) for product in shop["products"]]
    users = [_user(customer, owned.get(customer["username"], [])) for customer in shop["customers"]]
    return {
        "products": {product["product_id"]: product for product in products},
        "users": {user["user_id"]: user for user in users},
        "orders": orders,
    }


def _product(product: Raw, variations: Sequence[Raw]) -> dict[str, Any]:
    variants = [
        {
            "item_id": str(each["id"]),
            "options": {attribute["name"]: attribute["option"] for attribute in each["attributes"]},
            "available": each["stock_status"] == "instock",
            "price": float(each["price"]),
        }
        for each in variations
    ]
    return {
        "name": product["name"],
        "product_id": str(product["id"]),
        "variants": {variant["item_id"]: variant for variant in variants},
    }


def _user(customer: Raw, orders: list[str]) -> dict[str, Any]:
    methods = [
        method | {"balance": float(method["balance"])} if "balance" in method else method
        for method in _meta(customer)["_payment_methods"]
    ]
    billing, shipping = _address(customer["billing"]), _address(customer["shipping"])
    return {
        "user_id": customer["username"],
        "name": {"first_name": customer["first_name"], "last_name": customer["last_name"]},
        # The retail data has one address where the shop has two: both must say the same.
        "address": shipping if billing == shipping else {"billing": billing, "shipping": shipping},
        "email": customer["email"],
        "payment_methods": {method["id"]: method for method in methods},
        "orders": orders,
    }


def _order(order: Raw, usernames: Mapping[int, str]) -> dict[str, Any]:
    meta = _meta(order)
    status = _STATUS.get(order["status"], order["status"])
    difference = meta.get("_exchange_price_difference")
    return {
        "order_id": f"#{order['number']}",
        "user_id": usernames[order["customer_id"]],
        "address": _address(order["shipping"]),
        "items": [_item(line) for line in order["line_items"]],
        "status": "pending (item modified)" if status == "pending" and meta.get("_items_modified") == "yes" else status,
        "fulfillments": meta["_tracking"],
        "payment_history": [
            payment | {"amount": float(payment["amount"])} for payment in meta.get("_payment_history", [])
        ],
        "cancel_reason": meta.get("_cancel_reason"),
        "exchange_items": _ids(meta.get("_exchange_items")),
        "exchange_new_items": _ids(meta.get("_exchange_new_items")),
        "exchange_payment_method_id": meta.get("_exchange_payment_method_id"),
        "exchange_price_difference": None if difference is None else float(difference),
        "return_items": _ids(meta.get("_return_items")),
        "return_payment_method_id": meta.get("_return_payment_method_id"),
    }


def _item(line: Raw) -> dict[str, Any]:
    return {
        "name": line["name"],
        "product_id": str(line["product_id"]),
        "item_id": str(line["variation_id"]),
        "price": float(line["total"]) / line["quantity"],
        "options": {entry["key"]: entry["value"] for entry in line["meta_data"] if not entry["key"].startswith("_")},
    }


def _meta(resource: Raw) -> dict[str, Any]:
    return {entry["key"]: entry["value"] for entry in resource["meta_data"]}


def _address(resource: Raw) -> dict[str, str]:
    return {name: resource[field] for name, field in _ADDRESS.items()}


def _ids(values: Sequence[Any] | None) -> list[str] | None:
    return None if values is None else [str(value) for value in values]


def _compare(expected: Any, found: Any, path: str) -> list[str]:
    if expected == found:
        return []
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        keys = [*expected, *(key for key in found if key not in expected)]
        return [
            line for key in keys for line in _compare(expected.get(key), found.get(key), f"{path}.{key}".lstrip("."))
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for position, (a, b) in pairs for line in _compare(a, b, f"{path}[{position}]")]
    if isinstance(expected, float) and isinstance(found, float) and round(expected, 2) == round(found, 2):
        return []
    return [f"{path}: the shop has {found!r}, the reference {expected!r}"]
