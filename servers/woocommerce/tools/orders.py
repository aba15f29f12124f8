"""Orders, for the shop's staff. What a conversation with a customer may do with one: `service` and operations.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...tool import OPERATOR, STAFF, tool
from .. import previews, undo
from ..access import order_of, require_staff
from ..arguments import Amount, Descending, Limit, Moment, Removed, Search, fields, named, query, times
from ..client import store_of
from ..create import NEWEST, create_stamped, remove
from ..once import Change, change_object
from ..operations import OrderId
from ..shapes import Raw, item_id_of

#: The store's own; plugins add others, which lists take as well.
OrderStatus = Literal["pending", "processing", "on-hold", "completed", "cancelled", "refunded", "failed"]
AnyStatus = Annotated[
    str, Meta(description="'any', or such as 'processing', several with commas", pattern="^[a-z-]+(,[a-z-]+)*$")
]


class Contact(TypedDict):
    first_name: str
    last_name: str
    company: str
    address_1: str
    address_2: str
    city: str
    state: str
    postcode: str
    country: Annotated[str, Meta(description="two letters, such as GB")]
    email: str
    phone: str


class OrderRow(TypedDict):
    id: int
    number: str
    status: str
    currency: str
    total: str
    refunded: Annotated[str, Meta(description="of total; '0.00' for nothing")]
    customer_id: Annotated[int, Meta(description="0: a guest")]
    email: str
    payment_method: str
    items: Annotated[int, Meta(description="pieces")]
    date_created: Annotated[str, Meta(description="UTC")]
    date_modified: Annotated[str, Meta(description="UTC")]
    date_paid: Annotated[str, Meta(description="UTC; '' for not paid")]


class OrderLine(TypedDict):
    id: int
    product_id: int
    item_id: Annotated[int, Meta(description="the variation, or the product without one")]
    sku: str
    name: str
    quantity: int
    total: Annotated[str, Meta(description="of the line, without tax")]


class OrderRecord(OrderRow):
    discount_total: str
    shipping_total: str
    total_tax: str
    customer_note: str
    transaction_id: str
    billing: Contact
    shipping: Contact
    lines: list[OrderLine]
    coupons: list[str]


class NewLine(TypedDict):
    item_id: Annotated[int, Meta(description="a variation's id, or that of a product without variations", ge=1)]
    product_id: Annotated[int, Meta(description="the product's id", ge=1)]
    quantity: Annotated[int, Meta(ge=1, le=10_000)]


@tool(effect="read", roles=STAFF)
async def find_orders(
    ctx: ToolContext,
    *,
    status: AnyStatus = "any",
    search: Search = "",
    customer_id: int | None = None,
    product_id: int | None = None,
    after: Moment = "",
    before: Moment = "",
    modified_after: Moment = "",
    modified_before: Moment = "",
    descending: Descending = True,
    limit: Limit = 100,
) -> list[OrderRow]:
    """Orders of all customers by status, time, customer or product, a row each."""
    require_staff(ctx)
    params = query(
        status=status,
        search=search,
        customer=customer_id,
        product=product_id,
        orderby="date",
        order="desc" if descending else "asc",
    )
    params |= times(after=after, before=before, modified_after=modified_after, modified_before=modified_before)
    return [order_row(raw) for raw in await store_of(ctx).first("orders", params, limit)]


@tool(effect="read", roles=STAFF)
async def count_orders(ctx: ToolContext, *, status: AnyStatus = "any", after: Moment = "", before: Moment = "") -> int:
    """How many orders there are of a status and time; costs one small request."""
    return await store_of(ctx).count("orders", query(status=status) | times(after=after, before=before))


@tool(effect="read", roles=STAFF)
async def get_order(ctx: ToolContext, *, order_id: OrderId) -> OrderRecord:
    """One order as the shop's staff sees it: contacts, lines, coupons, totals."""
    require_staff(ctx)
    return order_record(await order_of(ctx, store_of(ctx), order_id))


@tool(effect="write", roles=OPERATOR, revert="trash_order", undo=undo.remove_made("trash_order", "order_id"))
async def create_order(
    ctx: ToolContext,
    *,
    lines: Annotated[list[NewLine], Meta(min_length=1, max_length=100)],
    customer_id: Annotated[int, Meta(description="0: a guest", ge=0)] = 0,
    billing: Contact | None = None,
    shipping: Contact | None = None,
    shipping_cost: Annotated[Amount | None, Meta(description="a flat rate; None: no shipping line")] = None,
    status: Literal["pending", "on-hold", "processing"] = "pending",
    payment_method: Annotated[str, Meta(description="such as 'cod', 'bacs'", max_length=100)] = "",
    coupon_codes: Annotated[list[str], Meta(max_length=10)] | None = None,
    customer_note: Annotated[str, Meta(max_length=2000)] = "",
) -> OrderRecord:
    """Place an order for a customer, unpaid unless `status` says processing. The store sets prices and totals."""
    body: dict[str, Any] = {
        "status": status,
        "customer_id": customer_id,
        "line_items": [_line(line) for line in lines],
        **query(payment_method=payment_method, customer_note=customer_note),
    }
    body |= {"billing": dict(billing)} if billing else {}
    body |= {"shipping": {k: v for k, v in shipping.items() if k != "email"}} if shipping else {}
    if shipping_cost is not None:
        body["shipping_lines"] = [{"method_id": "flat_rate", "method_title": "Flat rate", "total": shipping_cost}]
    if coupon_codes:
        body["coupon_lines"] = [{"code": code} for code in coupon_codes]
    among = {**NEWEST, "status": "any", "customer": customer_id}
    return order_record(await create_stamped(ctx, "create_order", "orders", body, among=among, unique=False))


@tool(
    effect="write",
    roles=OPERATOR,
    revert="set_order_status with the former status",
    preview=previews.order_status,
    undo=undo.former_status,
)
async def set_order_status(ctx: ToolContext, *, order_id: OrderId, status: OrderStatus) -> OrderRecord:
    """Move an order to a status. The store does what belongs to it: e-mails, stock, downloads."""
    return await _change(ctx, "set_order_status", order_id, {"status": status})


@tool(effect="write", roles=OPERATOR, revert="update_order with the former values")
async def update_order(
    ctx: ToolContext,
    *,
    order_id: OrderId,
    customer_note: Annotated[str, Meta(max_length=2000)] | None = None,
    transaction_id: Annotated[str, Meta(max_length=200)] | None = None,
    billing: Contact | None = None,
    shipping: Contact | None = None,
) -> OrderRecord:
    """Correct an order's contacts, the customer's note or the payment's number; what is left out stays."""
    to = None if shipping is None else {k: v for k, v in shipping.items() if k != "email"}
    body = fields(customer_note=customer_note, transaction_id=transaction_id, billing=billing, shipping=to)
    return await _change(ctx, "update_order", order_id, body)


@tool(
    effect="write",
    roles=OPERATOR,
    revert="set_order_status with the former status",
    preview=previews.order_trash,
    undo=undo.former_status,
)
async def trash_order(ctx: ToolContext, *, order_id: OrderId) -> Removed:
    """Move an order to the trash: it counts no more."""
    order = await order_of(ctx, store_of(ctx), order_id)
    before = await remove(ctx, f"orders/{order['id']}", force=False, what=f"order {order['number']}")
    return Removed(id=int(order["id"]), name=named(before, "number"), permanently=False)


@tool(effect="critical", roles=OPERATOR, preview=previews.order_deletion)
async def delete_order(ctx: ToolContext, *, order_id: Annotated[int, Meta(description="its id", ge=1)]) -> Removed:
    """Delete an order for good, with notes and refunds: the books lose it. See trash_order."""
    before = await remove(ctx, f"orders/{order_id}", force=True, what=f"order {order_id}")
    return Removed(id=order_id, name=named(before, "number"), permanently=True)


async def _change(ctx: ToolContext, tool: str, order_id: int | str, body: dict[str, Any]) -> OrderRecord:
    order = await order_of(ctx, store_of(ctx), order_id)
    return order_record(await change_object(ctx, tool, f"orders/{order['id']}", lambda _: Change(fields=body)))


def _line(line: NewLine) -> dict[str, int]:
    chosen = {"product_id": line["product_id"], "quantity": line["quantity"]}
    return chosen | ({} if line["item_id"] == line["product_id"] else {"variation_id": line["item_id"]})


def order_row(raw: Raw) -> OrderRow:
    refunded = sum(float(refund["total"]) for refund in raw.get("refunds") or ())
    return OrderRow(
        id=int(raw["id"]),
        number=str(raw["number"]),
        status=str(raw["status"]),
        currency=str(raw.get("currency") or ""),
        total=str(raw["total"]),
        refunded=f"{abs(refunded):.2f}",
        customer_id=int(raw["customer_id"]),
        email=str((raw.get("billing") or {}).get("email") or ""),
        payment_method=str(raw.get("payment_method") or ""),
        items=sum(int(line["quantity"]) for line in raw["line_items"]),
        date_created=str(raw.get("date_created_gmt") or ""),
        date_modified=str(raw.get("date_modified_gmt") or ""),
        date_paid=str(raw.get("date_paid_gmt") or ""),
    )


def order_record(raw: Raw) -> OrderRecord:
    return OrderRecord(
        **order_row(raw),
        discount_total=str(raw.get("discount_total") or "0.00"),
        shipping_total=str(raw.get("shipping_total") or "0.00"),
        total_tax=str(raw.get("total_tax") or "0.00"),
        customer_note=str(raw.get("customer_note") or ""),
        transaction_id=str(raw.get("transaction_id") or ""),
        billing=contact(raw.get("billing") or {}),
        shipping=contact(raw.get("shipping") or {}),
        lines=[
            OrderLine(
                id=int(line["id"]),
                product_id=int(line["product_id"]),
                item_id=item_id_of(line),
                sku=str(line.get("sku") or ""),
                name=str(line["name"]),
                quantity=int(line["quantity"]),
                total=str(line["total"]),
            )
            for line in raw["line_items"]
        ],
        coupons=[str(line["code"]) for line in raw.get("coupon_lines") or ()],
    )


def contact(raw: Raw) -> Contact:
    return Contact(
        first_name=str(raw.get("first_name") or ""),
        last_name=str(raw.get("last_name") or ""),
        company=str(raw.get("company") or ""),
        address_1=str(raw.get("address_1") or ""),
        address_2=str(raw.get("address_2") or ""),
        city=str(raw.get("city") or ""),
        state=str(raw.get("state") or ""),
        postcode=str(raw.get("postcode") or ""),
        country=str(raw.get("country") or ""),
        email=str(raw.get("email") or ""),
        phone=str(raw.get("phone") or ""),
    )
