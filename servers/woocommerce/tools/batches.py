"""Many objects in few requests. A store answers 200 where some of them failed: each failure is told with its item."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolInputError
from ...tool import OPERATOR, tool
from ..arguments import Amount, AmountOrNone, Name, ProductId
from ..batch import BatchFailure, Change, New, send
from ..client import store_of
from .orders import OrderStatus
from .products import SKU_PATTERN, ProductStatus, Quantity, new_product

MOST = 1000


class NewProduct(TypedDict):
    name: Name
    sku: Annotated[
        str, Meta(description="by it the store takes a product once", min_length=1, max_length=100, pattern=SKU_PATTERN)
    ]
    regular_price: AmountOrNone
    status: ProductStatus


class ProductChange(TypedDict, total=False):
    id: Annotated[int, Meta(description="always given", ge=1)]
    name: Name
    status: ProductStatus
    regular_price: Amount
    sale_price: AmountOrNone
    stock_quantity: Quantity


class VariationChange(TypedDict, total=False):
    id: Annotated[int, Meta(description="always given", ge=1)]
    regular_price: Amount
    sale_price: AmountOrNone
    stock_quantity: Quantity


class StatusChange(TypedDict):
    id: Annotated[int, Meta(description="the order's id", ge=1)]
    status: OrderStatus


class BatchResult(TypedDict):
    created: Annotated[list[int], Meta(description="ids, in the order of `create`, without those that failed")]
    updated: Annotated[list[int], Meta(description="ids")]
    failed: list[BatchFailure]


@tool(effect="write", roles=OPERATOR, revert="batch_products with the former values; trash_product for what was made")
async def batch_products(
    ctx: ToolContext,
    *,
    create: Annotated[list[NewProduct], Meta(max_length=MOST)] | None = None,
    update: Annotated[list[ProductChange], Meta(max_length=MOST)] | None = None,
) -> BatchResult:
    """Make and change many products, up to 1,000 at once. Look at `failed`: the others are done all the same.

    There is no deleting in batches: the store would skip the trash.
    """
    new = [
        New(p["sku"], new_product(p["name"], "simple", p["status"], p["sku"], p["regular_price"], ""))
        for p in create or ()
    ]
    if len({item.sku for item in new}) < len(new):
        raise ToolInputError("A SKU is given twice in `create`.")
    return await _send(ctx, "batch_products", "products", new, [_stocked(dict(p)) for p in update or ()])


@tool(effect="write", roles=OPERATOR, revert="batch_variations with the former values")
async def batch_variations(
    ctx: ToolContext,
    *,
    product_id: ProductId,
    update: Annotated[list[VariationChange], Meta(min_length=1, max_length=MOST)],
) -> BatchResult:
    """Change prices and stock of many variations of one product. Look at `failed`."""
    path = f"products/{product_id}/variations"
    return await _send(ctx, "batch_variations", path, [], [_stocked(dict(v)) for v in update])


@tool(effect="write", roles=OPERATOR, revert="batch_order_status with the former ones")
async def batch_order_status(
    ctx: ToolContext, *, update: Annotated[list[StatusChange], Meta(min_length=1, max_length=MOST)]
) -> BatchResult:
    """Move many orders to a status each, with what belongs to it (e-mails, stock). Look at `failed`."""
    return await _send(ctx, "batch_order_status", "orders", [], [dict(change) for change in update])


async def _send(ctx: ToolContext, tool: str, path: str, new: list[New], bodies: list[dict[str, Any]]) -> BatchResult:
    changes = []
    for position, body in enumerate(bodies):
        if "id" not in body or len(body) < 2:
            raise ToolInputError(f"update[{position}] needs an id and something to change.")
        changes.append(Change(int(body["id"]), body))
    if len({change.id for change in changes}) < len(changes):
        raise ToolInputError("An id is given twice in `update`.")
    if not new and not changes:
        raise ToolInputError("The batch is empty: give `create` or `update`.")
    if len(new) + len(changes) > MOST:
        raise ToolInputError(f"The batch has {len(new) + len(changes):,} items; the most is {MOST:,}.")
    created, updated, failed = await send(ctx, store_of(ctx), tool, path, new, changes)
    return BatchResult(created=created, updated=updated, failed=failed)


def _stocked(body: dict[str, Any]) -> dict[str, Any]:
    """A quantity counts only where the store counts."""
    return body | ({"manage_stock": True} if "stock_quantity" in body else {})
