"""Python text for cells: what an agent would write, from what the task, the customer and the orders say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
