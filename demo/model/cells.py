"""Python text for cells: what an agent would write, from what the task, the customer and the orders say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Raw = Mapping[str, Any]


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={literal(value)}' for key, value in arguments.items())})"


def literal(value: object) -> str:
    """Like repr, with double quotes where that is possible."""
    if isinstance(value, str) and '"' not in value and "\\" not in value and value.isprintable():
        return f'"{value}"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(each) for each in value) + "]"
    return repr(value)


def imports(server: str, names: Sequence[str]) -> str:
    return f"from servers.{server} import {', '.join(sorted(set(names)))}"


#: How the retail data's order states are called in the shop.
SHOP_STATUS = {"pending": "pending", "processed": "processing", "delivered": "completed", "cancelled": "cancelled"}


def select_order(order: Raw, orders: Sequence[Raw], about: Sequence[str]) -> str:
    """The expression that finds the order among `orders`: by its state, by the items it is `about`, or by number."""
    state = SHOP_STATUS[order["status"]]
    by_state = f'o["status"] == "{state}"'
    by_items = " and ".join(f"{literal(name)} in names(o)" for name in dict.fromkeys(about))

    def has(each: Raw) -> bool:
        return set(about) <= {item["name"] for item in each["items"]}

    def same_state(each: Raw) -> bool:
        return bool(each["status"] == order["status"])

    for condition, fits in (
        (by_state, same_state),
        (by_items, has),
        (f"{by_state} and {by_items}", _both(same_state, has)),
    ):
        if condition and not condition.endswith(" and ") and [each for each in orders if fits(each)] == [order]:
            return f"next(o for o in orders if {condition})"
    return f'next(o for o in orders if o["number"] == "{order["order_id"].lstrip("#")}")'


def _both(a: Callable[[Raw], bool], b: Callable[[Raw], bool]) -> Callable[[Raw], bool]:
    return lambda each: a(each) and b(each)


def select_item(item: Raw, order: Raw, variable: str) -> str:
    """The expression that finds a line of the order: by name, and by options where the name is not enough."""
    others = [each for each in order["items"] if each["name"] == item["name"] and each["item_id"] != item["item_id"]]
    if not others:
        return f"item({variable}, {literal(item['name'])})"
    telling = dict(item["options"])
    for name in list(telling):
        fewer = {key: value for key, value in telling.items() if key != name}
        if not any(fewer.items() <= other["options"].items() for other in others):
            telling = fewer
    return f"item({variable}, {literal(item['name'])}, {literal(telling)})"


def select_method(method_id: str, order: Raw, customer: Raw, variable: str) -> str:
    """The expression that finds a payment method: what paid the order, the only one of its kind, or the card."""
    methods = customer["payment_methods"]
    if order["payment_history"][0]["payment_method_id"] == method_id:
        return f'{variable}["payments"][0]["payment_method_id"]'
    wanted = methods.get(method_id)
    if wanted is None:
        return literal(method_id)
    for field in ("source", "brand", "last_four"):
        value = wanted.get(field)
        if value is not None and sum(each.get(field) == value for each in methods.values()) == 1:
            condition = f'm["{field}"]' if field == "source" else f'm.get("{field}")'
            return f'next(m["id"] for m in customer["payment_methods"] if {condition} == "{value}")'
    return literal(method_id)


def select_address(
    address: Mapping[str, str], customer: Raw, orders: Sequence[tuple[str, Raw]], former: tuple[str, Raw]
) -> str:
    """The expression that gives an address: the customer's, another order's, or the former one with changes.

    `orders` are those at hand, each with the expression that finds it; `former` is the address there is now.
    """
    if _same_address(address, customer["address"]):
        return 'customer["address"]'
    for variable, order in orders:
        if _same_address(address, order["address"]):
            return f'{variable}["shipping"]'
    expression, before = former[0], shop_address(former[1])
    changes = {name: value for name, value in shop_address(address).items() if before[name] != value}
    return "{**" + expression + ", " + literal(changes)[1:]


def shop_address(address: Mapping[str, str]) -> dict[str, str]:
    """A retail address in the names of the shop's tools."""
    return {
        "address_1": address["address1"],
        "address_2": address["address2"],
        "city": address["city"],
        "state": address["state"],
        "postcode": address["zip"],
        "country": address["country"],
    }


def _same_address(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    return shop_address(a) == shop_address(b)
