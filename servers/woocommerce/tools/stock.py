"""Stock of products and variations."""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolInputError
from ...tool import OPERATOR, STAFF, tool
from .. import previews, undo
from ..arguments import ProductId, StockStatus, VariationId
from ..client import Object, store_of
from ..once import Change, change_object
from ..shapes import Raw
from .products import Quantity

OptionalVariation = Annotated[VariationId | None, Meta(description="of a variable product; None for a simple one")]


class StockLevel(TypedDict):
    product_id: int
    variation_id: Annotated[int, Meta(description="0: the product itself")]
    name: str
    sku: str
    stock_status: str
    stock_quantity: Annotated[int | None, Meta(description="None: the store does not count it")]
    low_stock_amount: Annotated[int | None, Meta(description="at which the store warns; None: as the store's settings")]


@tool(effect="read", roles=STAFF)
async def list_stock(
    ctx: ToolContext,
    *,
    stock_status: StockStatus | None = None,
    at_most: Annotated[Quantity | None, Meta(description="only what is counted and not above this")] = None,
    limit: Annotated[int, Meta(description="most products that are looked at", ge=1, le=1000)] = 100,
) -> list[StockLevel]:
    """Stock levels of published products; those of variations: get_stock."""
    params: dict[str, str | int] = {"status": "publish", "orderby": "id", "order": "asc"}
    if stock_status is not None:
        params["stock_status"] = stock_status
    levels = [_level(raw, int(raw["id"]), 0) for raw in await store_of(ctx).first("products", params, limit)]
    if at_most is None:
        return levels
    return [level for level in levels if level["stock_quantity"] is not None and level["stock_quantity"] <= at_most]


@tool(effect="read", roles=STAFF)
async def get_stock(ctx: ToolContext, *, product_id: ProductId) -> list[StockLevel]:
    """Stock of one product and of each of its variations."""
    store = store_of(ctx)
    product = await store.object(f"products/{product_id}")
    levels = [_level(product, product_id, 0)]
    if product["type"] == "variable":
        async for raw in store.each(f"products/{product_id}/variations"):
            levels.append(_level(raw, product_id, int(raw["id"])))
    return levels


@tool(
    effect="write",
    roles=OPERATOR,
    revert="set_stock with the former quantity",
    preview=previews.stock_set,
    undo=undo.former_stock,
)
async def set_stock(
    ctx: ToolContext, *, product_id: ProductId, variation_id: OptionalVariation = None, quantity: Quantity
) -> StockLevel:
    """Say how many pieces there are; the store counts them from then on."""

    def plan(_: Object) -> Change:
        return Change(fields={"manage_stock": True, "stock_quantity": quantity})

    changed = await change_object(ctx, "set_stock", _path(product_id, variation_id), plan)
    return _level(changed, product_id, variation_id or 0)


@tool(
    effect="write",
    roles=OPERATOR,
    revert="adjust_stock by the opposite",
    preview=previews.stock_adjusted,
    undo=undo.opposite_stock,
)
async def adjust_stock(
    ctx: ToolContext,
    *,
    product_id: ProductId,
    variation_id: OptionalVariation = None,
    by: Annotated[int, Meta(description="pieces that came (positive) or went", ge=-1_000_000, le=1_000_000)],
) -> StockLevel:
    """Add to, or take from, a stock that the store counts.

    The store has no such operation: the quantity is read and set, so a sale in the same moment may be lost.
    """

    def plan(raw: Object) -> Change:
        if not raw.get("manage_stock") or raw.get("stock_quantity") is None:
            raise ToolInputError(f"The store does not count {raw['name']!r}: say how many there are with set_stock.")
        quantity = int(raw["stock_quantity"]) + by
        if quantity < 0:
            raise ToolInputError(f"There are {raw['stock_quantity']} pieces of {raw['name']!r}, too few for {by}.")
        return Change(fields={"stock_quantity": quantity})

    changed = await change_object(ctx, "adjust_stock", _path(product_id, variation_id), plan)
    return _level(changed, product_id, variation_id or 0)


def _path(product_id: int, variation_id: int | None) -> str:
    return f"products/{product_id}" + (f"/variations/{variation_id}" if variation_id else "")


def _level(raw: Raw, product_id: int, variation_id: int) -> StockLevel:
    quantity, low = raw.get("stock_quantity"), raw.get("low_stock_amount")
    return StockLevel(
        product_id=product_id,
        variation_id=variation_id,
        name=str(raw.get("name") or ""),
        sku=str(raw.get("sku") or ""),
        stock_status=str(raw.get("stock_status") or ""),
        stock_quantity=None if quantity is None else int(quantity),
        low_stock_amount=None if low in (None, "") else int(str(low)),
    )
