"""What a conversation with a customer needs: reads, the seven writes, and the dispatcher that is made of them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ...context import ToolContext
from ...dispatch import dispatcher
from ...errors import ToolInputError, ToolNotFound
from ...tool import EVERYBODY, tool
from ..access import customer_of, order_of, require_same_customer
from ..client import Object, store_of
from ..operations import (
    CustomerId,
    OrderId,
    cancel_order,
    change_customer_address,
    change_order_address,
    change_order_items,
    change_order_payment,
    exchange_items,
    return_items,
)
from ..shapes import Customer, Order, Product, customer_view, order_view, product_view

#: Pages of a name search that are looked through for the right postcode.
NAME_PAGES = 10


@tool(effect="read", roles=EVERYBODY)
async def lookup_order(ctx: ToolContext, *, order_id: OrderId) -> Order:
    """One order with its items, payments and shipments."""
    return order_view(await order_of(ctx, store_of(ctx), order_id))


@tool(effect="read", roles=EVERYBODY)
async def verify_customer(
    ctx: ToolContext,
    *,
    email: Annotated[str, Meta(max_length=254)] = "",
    first_name: Annotated[str, Meta(max_length=100)] = "",
    last_name: Annotated[str, Meta(max_length=100)] = "",
    postcode: Annotated[str, Meta(max_length=20)] = "",
) -> Customer:
    """Find the customer who is writing, by e-mail, or by first name, last name and postcode together.

    Comes first in a conversation with a customer: from then on it reads and changes this customer's data only.
    """
    store = store_of(ctx)
    found: Object | None = None
    if email:
        listed: list[Object] = await store.get("customers", {"email": email.strip(), "role": "all"})
        found = next((c for c in listed if _same(c["email"], email)), None)
    elif first_name and last_name and postcode:
        pages = 0
        async for page in store.pages("customers", {"search": last_name.strip(), "role": "all"}):
            found = next((c for c in page if _is_person(c, first_name, last_name, postcode)), None)
            pages += 1
            if found or pages == NAME_PAGES:
                break
    else:
        raise ToolInputError("Give either email, or first_name, last_name and postcode together.")
    if found is None:
        raise ToolNotFound("No customer fits these details.", hint="Ask again for the details, or for the other kind.")
    if ctx.pins.customer_required:
        await ctx.pins.pin_customer(int(found["id"]))
    return customer_view(found)


@tool(effect="read", roles=EVERYBODY)
async def get_customer(ctx: ToolContext, *, customer_id: CustomerId) -> Customer:
    """A customer's name, address and payment methods. Their orders: list_orders."""
    return customer_view(await customer_of(ctx, store_of(ctx), customer_id))


@tool(effect="read", roles=EVERYBODY)
async def list_orders(
    ctx: ToolContext,
    *,
    customer_id: CustomerId,
    status: Annotated[str, Meta(description="such as 'pending'", pattern="^[a-z-]+$", max_length=40)] = "any",
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20,
) -> list[Order]:
    """A customer's orders, newest first, each as lookup_order returns it."""
    require_same_customer(ctx, customer_id)
    orders: list[Order] = []
    params: dict[str, str | int] = {"customer": customer_id, "status": status, "per_page": min(limit, 100)}
    async for page in store_of(ctx).pages("orders", params):
        orders += [order_view(raw) for raw in page if raw["customer_id"] == customer_id]
        if len(orders) >= limit:
            break
    return orders[:limit]


@tool(effect="read", roles=EVERYBODY)
async def get_product_details(
    ctx: ToolContext, *, product_id: Annotated[int, Meta(description="a product's id, not an item_id", ge=1)]
) -> Product:
    """A product with all its variants: options, price and whether they are in stock, as of now."""
    store = store_of(ctx)
    try:
        product = await store.object(f"products/{product_id}")
    except ToolNotFound:
        raise ToolNotFound(
            f"There is no product {product_id}.",
            hint="catalog.search_products finds product ids; item ids are variants.",
        ) from None
    variations: list[Object] = []
    if product["type"] == "variable":
        async for page in store.pages(f"products/{product_id}/variations"):
            variations += page
    return product_view(product, variations)


woocommerce_operations = dispatcher(
    server="woocommerce",
    name="woocommerce_operations",
    doc="Change an order or a customer: one of the operations below with its arguments.",
    operations=(
        cancel_order,
        change_order_address,
        change_order_items,
        change_order_payment,
        return_items,
        exchange_items,
        change_customer_address,
    ),
)


def _is_person(raw: Object, first_name: str, last_name: str, postcode: str) -> bool:
    postcodes = {str((raw.get(kind) or {}).get("postcode", "")) for kind in ("billing", "shipping")}
    return (
        _same(raw["first_name"], first_name)
        and _same(raw["last_name"], last_name)
        and any(code and _same(code, postcode) for code in postcodes)
    )


def _same(a: object, b: str) -> bool:
    return str(a).strip().casefold() == b.strip().casefold()
