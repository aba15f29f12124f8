"""Variations of variable products: one combination of options each, with its own price and stock."""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolInputError
from ...tool import OPERATOR, STAFF, tool
from .. import previews, undo
from ..arguments import Amount, AmountOrNone, Limit, ProductId, Removed, StockStatus, VariationId, fields, query
from ..client import store_of
from ..create import create_stamped, remove
from ..once import Change, change_object
from ..shapes import Raw
from .products import Quantity, Sku

Options = Annotated[
    dict[str, str], Meta(description="one option of each attribute, such as {'Color': 'Blue'}", min_length=1)
]


#: What can be set back to what a person was shown.
CHANGEABLE = ("sku", "regular_price", "sale_price")


class VariationRow(TypedDict):
    id: Annotated[int, Meta(description="what customers' tools call item_id")]
    product_id: int
    sku: str
    options: dict[str, str]
    status: str
    price: str
    regular_price: str
    sale_price: Annotated[str, Meta(description="'' without a sale")]
    stock_status: str
    stock_quantity: Annotated[int | None, Meta(description="None: the store does not count it")]
    date_modified: Annotated[str, Meta(description="UTC")]


@tool(effect="read", roles=STAFF)
async def list_variations(
    ctx: ToolContext,
    *,
    product_id: ProductId,
    sku: Annotated[str, Meta(max_length=100)] = "",
    stock_status: StockStatus | None = None,
    limit: Limit = 100,
) -> list[VariationRow]:
    """The variations of one product."""
    params = query(sku=sku, stock_status=stock_status)
    rows = await store_of(ctx).first(f"products/{product_id}/variations", params, limit)
    return [variation_row(product_id, raw) for raw in rows]


@tool(effect="read", roles=STAFF)
async def get_variation(ctx: ToolContext, *, product_id: ProductId, variation_id: VariationId) -> VariationRow:
    """One variation."""
    return variation_row(product_id, await store_of(ctx).object(_path(product_id, variation_id)))


@tool(
    effect="write",
    roles=OPERATOR,
    revert="delete_variation",
    undo=undo.remove_made("delete_variation", "variation_id", "product_id"),
)
async def create_variation(
    ctx: ToolContext,
    *,
    product_id: ProductId,
    options: Options,
    regular_price: Amount,
    sku: Sku = "",
    stock_quantity: Annotated[Quantity | None, Meta(description="None: the store does not count it")] = None,
) -> VariationRow:
    """Add a variation to a variable product, whose attributes must have the options."""
    body = {
        "regular_price": regular_price,
        "attributes": [{"name": name, "option": option} for name, option in options.items()],
        **({"sku": sku} if sku else {}),
        **({} if stock_quantity is None else {"manage_stock": True, "stock_quantity": stock_quantity}),
    }
    path = f"products/{product_id}/variations"
    product = await store_of(ctx).object(f"products/{product_id}")
    if product["type"] != "variable":
        raise ToolInputError(f"Product {product_id} is {product['type']}, only variable products have variations.")
    made = await create_stamped(ctx, "create_variation", path, body, among=query(sku=sku), unique=bool(sku))
    return variation_row(product_id, made)


@tool(
    effect="write",
    roles=OPERATOR,
    revert="update_variation with the former values",
    preview=previews.change("products/{product_id}/variations/{variation_id}", "variation", *CHANGEABLE),
    undo=undo.former("update_variation", "product_id", "variation_id", fields=CHANGEABLE),
)
async def update_variation(
    ctx: ToolContext,
    *,
    product_id: ProductId,
    variation_id: VariationId,
    sku: Sku | None = None,
    regular_price: Amount | None = None,
    sale_price: AmountOrNone | None = None,
) -> VariationRow:
    """Change a variation's price or SKU; what is left out stays. Its stock: set_stock."""
    body = fields(sku=sku, regular_price=regular_price, sale_price=sale_price)
    path = _path(product_id, variation_id)
    return variation_row(product_id, await change_object(ctx, "update_variation", path, lambda _: Change(fields=body)))


@tool(
    effect="critical",
    roles=OPERATOR,
    preview=previews.removal(
        "products/{product_id}/variations/{variation_id}", "variation", previews.name_of, "price", "stock_quantity"
    ),
)
async def delete_variation(ctx: ToolContext, *, product_id: ProductId, variation_id: VariationId) -> Removed:
    """Delete a variation for good: the store has no trash for them."""
    what = f"variation {variation_id} of product {product_id}"
    before = await remove(ctx, _path(product_id, variation_id), force=True, what=what)
    return Removed(id=variation_id, name=str(before.get("name") or ""), permanently=True)


def variation_row(product_id: int, raw: Raw) -> VariationRow:
    quantity = raw.get("stock_quantity")
    return VariationRow(
        id=int(raw["id"]),
        product_id=product_id,
        sku=str(raw.get("sku") or ""),
        options={str(a["name"]): str(a["option"]) for a in raw.get("attributes") or ()},
        status=str(raw.get("status") or ""),
        price=str(raw.get("price") or ""),
        regular_price=str(raw.get("regular_price") or ""),
        sale_price=str(raw.get("sale_price") or ""),
        stock_status=str(raw.get("stock_status") or ""),
        stock_quantity=None if quantity is None else int(quantity),
        date_modified=str(raw.get("date_modified_gmt") or ""),
    )


def _path(product_id: int, variation_id: int) -> str:
    return f"products/{product_id}/variations/{variation_id}"
