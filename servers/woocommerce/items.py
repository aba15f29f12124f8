"""Items of an order and what they may be replaced by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ..errors import ToolInputError, ToolNotFound
from .client import Object, Store
from .shapes import Raw, item_id_of, meta_update, money, unit_price


@dataclass(frozen=True)
class Swap:
    """Pieces of one line of an order and the variant that replaces them (both as the store has them)."""

    line: Object
    variant: Object
    quantity: int

    @property
    def difference(self) -> Decimal:
        """What the replacement costs more than these pieces did; negative: less."""
        return (Decimal(str(self.variant["price"])) - unit_price(self.line)) * self.quantity


def require_items(order: Raw, item_ids: Sequence[int]) -> None:
    """
    Raises:
        ToolInputError: the order does not hold these items that many times.
    """
    held: Counter[int] = Counter()
    for line in order["line_items"]:
        held[item_id_of(line)] += int(line["quantity"])
    for item_id, wanted in Counter(item_ids).items():
        if wanted > held[item_id]:
            having = f"only {held[item_id]} times" if held[item_id] else "not"
            raise ToolInputError(
                f"Item {item_id} is {having} in order {order['number']}, which holds {_listed(order)}.",
                hint="Use the item_id of the order's line_items.",
                data={"valid": sorted(held)},
            )


async def swaps(
    store: Store, order: Raw, item_ids: Sequence[int], new_item_ids: Sequence[int], *, whole_lines: bool = False
) -> list[Swap]:
    """Each item with its replacement: a variant of the same product, in stock.

    Raises:
        ToolInputError: naming the item that cannot be had; with `whole_lines`, also where a line would be split.
    """
    if len(item_ids) != len(new_item_ids):
        raise ToolInputError(
            f"item_ids has {len(item_ids)} items and new_item_ids {len(new_item_ids)}: give one new item for each."
        )
    require_items(order, item_ids)
    pieces = _pieces(order, list(zip(item_ids, new_item_ids, strict=True)))
    if whole_lines:
        _require_whole_lines(pieces)
    return [Swap(line, await _available(store, line, new), quantity) for line, new, quantity in pieces]


def total_difference(chosen: Sequence[Swap]) -> Decimal:
    return sum((swap.difference for swap in chosen), Decimal(0))


def line_update(swap: Swap) -> dict[str, Any]:
    """The line as a PUT of the order replaces it: variant, price and options of the new item."""
    amount = money(Decimal(str(swap.variant["price"])) * swap.quantity)
    options = {a["name"]: a["option"] for a in swap.variant.get("attributes") or ()}
    return {
        "id": swap.line["id"],
        "product_id": swap.line["product_id"],
        "variation_id": swap.variant["id"],
        "quantity": swap.quantity,
        "subtotal": amount,
        "total": amount,
        "meta_data": meta_update(swap.line, options),
    }


def _pieces(order: Raw, pairs: Sequence[tuple[int, int]]) -> list[tuple[Object, int, int]]:
    """Which lines the pairs (item, new item) mean: (line, new item, how many pieces)."""
    remaining = list(pairs)
    chosen: list[tuple[Object, int, int]] = []
    for line in order["line_items"]:
        mine = [pair for pair in remaining if pair[0] == item_id_of(line)][: int(line["quantity"])]
        for pair in mine:
            remaining.remove(pair)
        chosen += [(line, new, count) for (_, new), count in Counter(mine).items()]
    return chosen


def _require_whole_lines(pieces: Sequence[tuple[Object, int, int]]) -> None:
    """
    Raises:
        ToolInputError: only some pieces of a line are to be replaced, or not all by the same item.
    """
    for line, new, count in pieces:
        if count < int(line["quantity"]):
            item = item_id_of(line)
            raise ToolInputError(
                f"Line {line['id']} holds {line['quantity']} pieces of item {item}, which can be replaced all together "
                f"only: give {item} {line['quantity']} times, each time with the same new item, such as {new}."
            )


async def _available(store: Store, line: Raw, new_item_id: int) -> Object:
    product_id = line["product_id"]
    hint = f"get_product_details(product_id={product_id}) lists the variants of {line['name']} that are in stock."
    try:
        variant = await store.object(f"products/{product_id}/variations/{new_item_id}")
    except ToolNotFound:
        raise ToolInputError(f"Item {new_item_id} is no variant of product {product_id}.", hint=hint) from None
    if variant.get("stock_status") == "outofstock":
        raise ToolInputError(f"Item {new_item_id} is out of stock.", hint=hint)
    return variant


def _listed(order: Raw) -> str:
    return ", ".join(f"{item_id_of(line)} ({line['name']})" for line in order["line_items"]) or "no items"
