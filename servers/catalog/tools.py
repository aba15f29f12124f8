"""Search in the tenant's catalogue. It is a copy of the store's, made by `load_catalog`; the store itself
(woocommerce.get_product_details) has the last word on price and stock."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from ..checking import closest
from ..context import ToolContext
from ..database import database_of
from ..errors import ToolDenied, ToolNotFound
from ..tool import EVERYBODY, tool
from ..woocommerce.shapes import Variant
from . import store


class ProductHit(TypedDict):
    id: int
    name: str
    categories: list[str]
    price_from: Annotated[str, Meta(description="of the cheapest variant; '' where the shop gives no price")]
    price_to: str
    in_stock: bool
    variants: Annotated[int, Meta(description="how many; get_product_details has them")]
    score: NotRequired[Annotated[float, Meta(description="likeness to the query; about 0.3 and less is unrelated")]]


class ProductPage(TypedDict):
    id: int
    name: str
    permalink: str
    type: str
    categories: list[str]
    description: str
    attributes: Annotated[dict[str, list[str]], Meta(description="every option that variants have, such as color")]
    price_from: str
    price_to: str
    in_stock: bool
    variants: list[Variant]


@tool(effect="read", roles=EVERYBODY)
async def search_products(
    ctx: ToolContext,
    *,
    query: Annotated[str, Meta(description="what is wanted, in plain words", min_length=1, max_length=1000)],
    limit: Annotated[int, Meta(ge=1, le=100)] = 5,
) -> list[ProductHit]:
    """Products that fit a description, best first."""
    if ctx.embedder is None:
        raise ToolDenied("No embedding model is configured for this call.")
    [embedding] = await ctx.embedder.embed([query])
    async with database_of(ctx).transaction() as rows:
        return [_hit(row) for row in await store.by_meaning(rows, query, embedding, limit)]


@tool(effect="read", roles=EVERYBODY)
async def search_by_category(
    ctx: ToolContext,
    *,
    category: Annotated[str, Meta(description="a category's name; '' lists the whole catalogue", max_length=200)] = "",
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100,
) -> list[ProductHit]:
    """Products of a category, by name."""
    async with database_of(ctx).transaction() as rows:
        found = await store.in_category(rows, category.strip(), limit)
        known = [] if found else await store.categories(rows)
    if not found and category.strip():
        likely = closest(category, known)
        raise ToolNotFound(
            f"There is no category {category!r}." + (f" Did you mean {likely!r}?" if likely else ""),
            hint=f"Categories: {', '.join(known) or 'none, the catalogue is empty'}.",
            data={"valid": known},
        )
    return [_hit(row) for row in found]


@tool(effect="read", roles=EVERYBODY)
async def get_complete_page_details(
    ctx: ToolContext, *, product_id: Annotated[int, Meta(description="id of a search result", ge=1)]
) -> ProductPage:
    """All that a product's page says: description, options and every variant."""
    async with database_of(ctx).transaction() as rows:
        row = await store.one(rows, product_id)
    if row is None:
        raise ToolNotFound(f"The catalogue has no product {product_id}.", hint="search_products finds product ids.")
    return ProductPage(
        id=row["id"],
        name=row["name"],
        permalink=row["permalink"],
        type=row["type"],
        categories=row["categories"],
        description=row["description"],
        attributes=row["attributes"],
        price_from=_price(row["price_from"]),
        price_to=_price(row["price_to"]),
        in_stock=row["in_stock"],
        variants=row["variants"],
    )


def _hit(row: dict[str, Any]) -> ProductHit:
    hit = ProductHit(
        id=row["id"],
        name=row["name"],
        categories=row["categories"],
        price_from=_price(row["price_from"]),
        price_to=_price(row["price_to"]),
        in_stock=row["in_stock"],
        variants=len(row["variants"]),
    )
    if "score" in row:
        hit["score"] = row["score"]
    return hit


def _price(value: object) -> str:
    return "" if value is None else str(value)
