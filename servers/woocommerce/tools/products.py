"""Products, for the shop's staff. What a customer sees of one: get_product_details."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolInputError
from ...tool import OPERATOR, STAFF, tool
from .. import previews, undo
from ..arguments import (
    Amount,
    AmountOrNone,
    Descending,
    Limit,
    Moment,
    Name,
    ProductId,
    Removed,
    Search,
    StockStatus,
    Text,
    fields,
    named,
    query,
    times,
)
from ..client import Object, store_of
from ..create import NEWEST, create_stamped, remove
from ..once import Change, change_object
from ..shapes import Raw

ProductType = Literal["simple", "grouped", "external", "variable"]
ProductStatus = Literal["publish", "draft", "pending", "private"]
#: Without what stores strip from it or split lists at, so that a product is found by the SKU it was given.
SKU_PATTERN = r"^(|[^,<>\s]([^,<>]*[^,<>\s])?)$"
Sku = Annotated[str, Meta(description="the shop's own article number, unique", max_length=100, pattern=SKU_PATTERN)]
CategoryIds = Annotated[list[int], Meta(description="all of its categories, by id", max_length=50)]
Quantity = Annotated[int, Meta(description="pieces in stock", ge=0, le=10_000_000)]


#: What can be set back to what a person was shown.
CHANGEABLE = ("name", "status", "sku", "regular_price", "sale_price")


class ProductRow(TypedDict):
    id: int
    name: str
    type: str
    status: Annotated[str, Meta(description="publish, draft, pending, private or trash")]
    sku: str
    price: Annotated[str, Meta(description="what it costs now; '' where there is none")]
    regular_price: str
    sale_price: Annotated[str, Meta(description="'' without a sale")]
    stock_status: str
    stock_quantity: Annotated[int | None, Meta(description="None: the store does not count it")]
    categories: list[str]
    total_sales: int
    date_created: Annotated[str, Meta(description="UTC")]
    date_modified: Annotated[str, Meta(description="UTC")]


class ProductRecord(ProductRow):
    permalink: str
    description: Annotated[str, Meta(description="HTML")]
    short_description: Annotated[str, Meta(description="HTML")]
    attributes: Annotated[dict[str, list[str]], Meta(description="options by attribute")]
    variations: Annotated[list[int], Meta(description="ids; list_variations has them")]


@tool(effect="read", roles=STAFF)
async def list_products(
    ctx: ToolContext,
    *,
    search: Search = "",
    sku: Annotated[str, Meta(description="exact, several with commas; '' for all", max_length=2000)] = "",
    category_id: int | None = None,
    type: ProductType | None = None,
    status: Literal["any", "publish", "draft", "pending", "private", "trash"] = "any",
    stock_status: StockStatus | None = None,
    modified_after: Moment = "",
    modified_before: Moment = "",
    orderby: Literal["date", "id", "title", "modified", "price", "popularity"] = "date",
    descending: Descending = True,
    limit: Limit = 100,
) -> list[ProductRow]:
    """Products as the shop's staff sees them, with drafts, sales and stock."""
    params = query(
        search=search,
        sku=sku,
        category=category_id,
        type=type,
        status=status,
        stock_status=stock_status,
        orderby=orderby,
        order="desc" if descending else "asc",
    )
    params |= times(modified_after=modified_after, modified_before=modified_before)
    return [product_row(raw) for raw in await store_of(ctx).first("products", params, limit)]


@tool(effect="read", roles=STAFF)
async def count_products(
    ctx: ToolContext,
    *,
    status: Literal["any", "publish", "draft", "pending", "private", "trash"] = "any",
    stock_status: StockStatus | None = None,
    category_id: int | None = None,
) -> int:
    """How many products there are of a kind; costs one small request."""
    params = query(status=status, stock_status=stock_status, category=category_id)
    return await store_of(ctx).count("products", params)


@tool(effect="read", roles=STAFF)
async def get_product(ctx: ToolContext, *, product_id: ProductId) -> ProductRecord:
    """One product with its descriptions, attributes and the ids of its variations."""
    return product_record(await store_of(ctx).object(f"products/{product_id}"))


@tool(effect="write", roles=OPERATOR, revert="trash_product", undo=undo.remove_made("trash_product", "product_id"))
async def create_product(
    ctx: ToolContext,
    *,
    name: Name,
    type: Literal["simple", "external", "variable", "grouped"] = "simple",
    status: ProductStatus = "draft",
    sku: Sku = "",
    regular_price: AmountOrNone = "",
    sale_price: AmountOrNone = "",
    description: Text = "",
    short_description: Text = "",
    category_ids: CategoryIds | None = None,
    stock_quantity: Annotated[Quantity | None, Meta(description="None: the store does not count it")] = None,
) -> ProductRecord:
    """Make a product; a draft, unless `status` says otherwise.

    With a `sku` it is certainly made once: the store takes no SKU twice.
    """
    body = new_product(name, type, status, sku, regular_price, sale_price, description, short_description)
    body |= _categories(category_ids) | _counted(stock_quantity)
    among = {"sku": sku, "status": "any"} if sku else {**NEWEST, "status": "any"}
    made = await create_stamped(ctx, "create_product", "products", body, among=among, unique=bool(sku))
    return product_record(made)


@tool(
    effect="write",
    roles=OPERATOR,
    revert="update_product with the former values",
    preview=previews.change("products/{product_id}", "product", *CHANGEABLE),
    undo=undo.former("update_product", "product_id", fields=CHANGEABLE),
)
async def update_product(
    ctx: ToolContext,
    *,
    product_id: ProductId,
    name: Name | None = None,
    status: ProductStatus | None = None,
    sku: Sku | None = None,
    regular_price: Amount | None = None,
    sale_price: AmountOrNone | None = None,
    description: Text | None = None,
    short_description: Text | None = None,
    category_ids: CategoryIds | None = None,
) -> ProductRecord:
    """Change a product; what is left out stays. Its stock: set_stock."""
    body = fields(
        name=name,
        status=status,
        sku=sku,
        regular_price=regular_price,
        sale_price=sale_price,
        description=description,
        short_description=short_description,
        categories=None if category_ids is None else _categories(category_ids)["categories"],
    )
    changed = await change_object(ctx, "update_product", f"products/{product_id}", lambda _: Change(fields=body))
    return product_record(changed)


@tool(
    effect="write",
    roles=OPERATOR,
    revert="restore_product",
    preview=previews.removal("products/{product_id}", "product", previews.name_of, gone="trash"),
    undo=undo.from_trash,
)
async def trash_product(ctx: ToolContext, *, product_id: ProductId) -> Removed:
    """Move a product to the trash: it leaves the shop, and restore_product brings it back."""
    before = await remove(ctx, f"products/{product_id}", force=False, what=f"product {product_id}")
    return Removed(id=product_id, name=named(before), permanently=False)


@tool(effect="write", roles=OPERATOR, revert="trash_product", undo=undo.with_args("trash_product", "product_id"))
async def restore_product(ctx: ToolContext, *, product_id: ProductId, status: ProductStatus = "draft") -> ProductRecord:
    """Take a product out of the trash; it is a draft then, unless `status` says otherwise."""

    def plan(raw: Object) -> Change:
        if raw["status"] != "trash":
            raise ToolInputError(f"Product {product_id} is not in the trash: its status is {raw['status']!r}.")
        return Change(fields={"status": status})

    return product_record(await change_object(ctx, "restore_product", f"products/{product_id}", plan))


@tool(
    effect="critical",
    roles=OPERATOR,
    preview=previews.removal(
        "products/{product_id}", "product", previews.name_of, "price", "stock_quantity", "total_sales"
    ),
)
async def delete_product(ctx: ToolContext, *, product_id: ProductId) -> Removed:
    """Delete a product for good, with its variations. Orders keep their lines. Cannot be undone: see trash_product."""
    before = await remove(ctx, f"products/{product_id}", force=True, what=f"product {product_id}")
    return Removed(id=product_id, name=named(before), permanently=True)


def product_row(raw: Raw) -> ProductRow:
    quantity = raw.get("stock_quantity")
    return ProductRow(
        id=int(raw["id"]),
        name=str(raw["name"]),
        type=str(raw["type"]),
        status=str(raw["status"]),
        sku=str(raw.get("sku") or ""),
        price=str(raw.get("price") or ""),
        regular_price=str(raw.get("regular_price") or ""),
        sale_price=str(raw.get("sale_price") or ""),
        stock_status=str(raw.get("stock_status") or ""),
        stock_quantity=None if quantity is None else int(quantity),
        categories=[str(c["name"]) for c in raw.get("categories") or ()],
        total_sales=int(raw.get("total_sales") or 0),
        date_created=str(raw.get("date_created_gmt") or ""),
        date_modified=str(raw.get("date_modified_gmt") or ""),
    )


def product_record(raw: Raw) -> ProductRecord:
    return ProductRecord(
        **product_row(raw),
        permalink=str(raw.get("permalink") or ""),
        description=str(raw.get("description") or ""),
        short_description=str(raw.get("short_description") or ""),
        attributes={str(a["name"]): [str(o) for o in a.get("options") or ()] for a in raw.get("attributes") or ()},
        variations=[int(v) for v in raw.get("variations") or ()],
    )


def new_product(
    name: str,
    type: str,
    status: str,
    sku: str,
    regular_price: str,
    sale_price: str,
    description: str = "",
    short_description: str = "",
) -> dict[str, Any]:
    """The body that makes a product; what is "" is left to the store."""
    given: Mapping[str, str] = {
        "sku": sku,
        "regular_price": regular_price,
        "sale_price": sale_price,
        "description": description,
        "short_description": short_description,
    }
    return {"name": name, "type": type, "status": status, **{key: value for key, value in given.items() if value}}


def _categories(ids: list[int] | None) -> dict[str, Any]:
    return {} if ids is None else {"categories": [{"id": id} for id in ids]}


def _counted(quantity: int | None) -> dict[str, Any]:
    return {} if quantity is None else {"manage_stock": True, "stock_quantity": quantity}
