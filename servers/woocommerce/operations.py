"""What may be changed: the seven writes of the shop's policy. Each is applied once (`once.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from ..context import ToolContext
from ..errors import ToolDenied, ToolInputError
from ..tool import CONVERSATION, tool
from . import previews
from .access import require_same_customer
from .client import Object, store_of
from .items import line_update, require_items, swaps, total_difference
from .once import Change, change_customer, change_order
from .payments import PAYMENT, REFUND, choose, entry, history_of, methods_of, require_cover, still_paid
from .shapes import (
    CANCEL_REASON,
    EXCHANGE_DIFFERENCE,
    EXCHANGE_ITEMS,
    EXCHANGE_METHOD,
    EXCHANGE_NEW_ITEMS,
    ITEMS_MODIFIED,
    PAYMENTS,
    RETURN_ITEMS,
    RETURN_METHOD,
    Customer,
    Order,
    customer_view,
    meta_of,
    money,
    order_view,
)

OrderId: TypeAlias = Annotated[int | str, Meta(description="order number or id, such as '#W2611340' or 2611340")]
CustomerId: TypeAlias = Annotated[int, Meta(description="id that verify_customer returned", ge=1)]
ItemIds: TypeAlias = Annotated[
    list[int], Meta(description="item_id of the order's line_items; twice for two pieces", min_length=1, max_length=100)
]
NewItemIds: TypeAlias = Annotated[
    list[int],
    Meta(description="for each of item_ids, in the same order, a variant of the same product", max_length=100),
]
MethodId: TypeAlias = Annotated[str, Meta(description="one of the customer's payment_methods", max_length=100)]
Line: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
OptionalLine: TypeAlias = Annotated[str, Meta(max_length=200)]


@tool(effect="write", roles=CONVERSATION, preview=previews.cancellation)
async def cancel_order(
    ctx: ToolContext, *, order_id: OrderId, reason: Literal["no longer needed", "ordered by mistake"]
) -> Order:
    """Cancel a pending order and refund what was paid.

    Gift cards get their money back at once, other methods in 5 to 7 business days. Not possible once the items were
    changed. Cannot be undone.
    """

    async def plan(order: Object) -> Change:
        _require_untouched(order, "cancelled")
        history = history_of(order)
        refunds = still_paid(history)
        methods = await methods_of(store_of(ctx), order) if refunds else {}
        back_on_card = {m: amount for m, amount in refunds.items() if m in methods and methods[m].is_gift_card}
        return Change(
            fields={"status": "cancelled"},
            meta={
                CANCEL_REASON: reason,
                PAYMENTS: history + [entry(REFUND, amount, method) for method, amount in refunds.items()],
            },
            balances=back_on_card,
        )

    return order_view(await change_order(ctx, "cancel_order", order_id, plan))


@tool(effect="write", roles=CONVERSATION, revert="change_order_address with the former address")
async def change_order_address(
    ctx: ToolContext,
    *,
    order_id: OrderId,
    address_1: Line,
    address_2: OptionalLine = "",
    city: Line,
    state: OptionalLine,
    postcode: Line,
    country: Line,
) -> Order:
    """Change where a pending order is shipped to."""

    async def plan(order: Object) -> Change:
        _require_status(order, "pending", "sent elsewhere")
        return Change(fields={"shipping": _address(address_1, address_2, city, state, postcode, country)})

    return order_view(await change_order(ctx, "change_order_address", order_id, plan))


@tool(effect="write", roles=CONVERSATION)
async def change_order_items(
    ctx: ToolContext, *, order_id: OrderId, item_ids: ItemIds, new_item_ids: NewItemIds, payment_method_id: MethodId
) -> Order:
    """Replace items of a pending order by other variants of the same products, in stock.

    Possible once per order: give all items in one call. Afterwards the order can be neither cancelled nor get other
    items. The price difference is charged to, or refunded on, the payment method; a gift card must cover it.
    """

    async def plan(order: Object) -> Change:
        _require_untouched(order, "changed")
        if any(old == new for old, new in zip(item_ids, new_item_ids, strict=False)):
            raise ToolInputError("A new item is the same as the old one: leave unchanged items out of both lists.")
        store = store_of(ctx)
        chosen = await swaps(store, order, item_ids, new_item_ids, whole_lines=True)
        difference = total_difference(chosen)
        method = choose(await methods_of(store, order), payment_method_id)
        require_cover(method, difference)
        paid = entry(PAYMENT if difference > 0 else REFUND, abs(difference), method.id)
        return Change(
            fields={"line_items": [line_update(swap) for swap in chosen]},
            meta={ITEMS_MODIFIED: "yes", PAYMENTS: [*history_of(order), paid]},
            balances={method.id: -difference} if method.is_gift_card else {},
        )

    return order_view(await change_order(ctx, "change_order_items", order_id, plan))


@tool(effect="write", roles=CONVERSATION, revert="change_order_payment with the former method, by a person")
async def change_order_payment(ctx: ToolContext, *, order_id: OrderId, payment_method_id: MethodId) -> Order:
    """Pay a pending order with another payment method of the customer; the first one is refunded.

    A gift card must cover the whole amount. Possible while the order has exactly one payment.
    """

    async def plan(order: Object) -> Change:
        _require_status(order, "pending", "paid otherwise")
        history = history_of(order)
        if len(history) != 1 or history[0]["transaction_type"] != PAYMENT:
            raise ToolDenied(f"Order {order['number']} does not have exactly one payment, so it cannot be changed.")
        before = str(history[0]["payment_method_id"])
        if before == payment_method_id:
            raise ToolInputError(f"Order {order['number']} is paid with {payment_method_id} already: choose another.")
        amount = Decimal(str(history[0]["amount"]))
        methods = await methods_of(store_of(ctx), order)
        method = choose(methods, payment_method_id)
        require_cover(method, amount)
        balances = {method.id: -amount} if method.is_gift_card else {}
        if before in methods and methods[before].is_gift_card:
            balances[before] = amount
        return Change(
            fields={"payment_method": method.id},
            meta={PAYMENTS: [*history, entry(PAYMENT, amount, method.id), entry(REFUND, amount, before)]},
            balances=balances,
        )

    return order_view(await change_order(ctx, "change_order_payment", order_id, plan))


@tool(effect="write", roles=CONVERSATION)
async def return_items(ctx: ToolContext, *, order_id: OrderId, item_ids: ItemIds, payment_method_id: MethodId) -> Order:
    """Request the return of items of a completed (delivered) order.

    The refund goes to the method that paid the order or to one of the customer's gift cards. Once per order, and not
    together with an exchange. The customer gets an e-mail that says how to send the items back.
    """

    async def plan(order: Object) -> Change:
        _require_status(order, "completed", "returned")
        history = history_of(order)
        method = choose(await methods_of(store_of(ctx), order), payment_method_id)
        original = str(history[0]["payment_method_id"]) if history else str(order.get("payment_method", ""))
        if not method.is_gift_card and method.id != original:
            raise ToolInputError(
                f"A refund goes to the method that paid the order ({original}) or to a gift card, not to {method.id}."
            )
        require_items(order, item_ids)
        return Change(
            fields={"status": "return-requested"},
            meta={RETURN_ITEMS: _sorted(item_ids), RETURN_METHOD: method.id},
        )

    return order_view(await change_order(ctx, "return_items", order_id, plan))


@tool(effect="write", roles=CONVERSATION)
async def exchange_items(
    ctx: ToolContext, *, order_id: OrderId, item_ids: ItemIds, new_item_ids: NewItemIds, payment_method_id: MethodId
) -> Order:
    """Request the exchange of items of a completed (delivered) order for other variants of the same products, in stock.

    Once per order, and not together with a return: give all items in one call. The price difference will be charged
    to, or refunded on, the payment method; a gift card must cover it. The customer gets an e-mail that says how to
    send the items back.
    """

    async def plan(order: Object) -> Change:
        _require_status(order, "completed", "exchanged")
        store = store_of(ctx)
        difference = total_difference(await swaps(store, order, item_ids, new_item_ids))
        method = choose(await methods_of(store, order), payment_method_id)
        require_cover(method, difference)
        return Change(
            fields={"status": "exchange-requested"},
            meta={
                EXCHANGE_ITEMS: _sorted(item_ids),
                EXCHANGE_NEW_ITEMS: _sorted(new_item_ids),
                EXCHANGE_METHOD: method.id,
                EXCHANGE_DIFFERENCE: money(difference),
            },
        )

    return order_view(await change_order(ctx, "exchange_items", order_id, plan))


@tool(effect="write", roles=CONVERSATION, revert="change_customer_address with the former address")
async def change_customer_address(
    ctx: ToolContext,
    *,
    customer_id: CustomerId,
    address_1: Line,
    address_2: OptionalLine = "",
    city: Line,
    state: OptionalLine,
    postcode: Line,
    country: Line,
) -> Customer:
    """Change a customer's own address. Orders that were placed already keep theirs (change_order_address)."""
    require_same_customer(ctx, customer_id)
    address = _address(address_1, address_2, city, state, postcode, country)
    change = Change(fields={"billing": address, "shipping": address})
    return customer_view(await change_customer(ctx, "change_customer_address", customer_id, change))


def _require_status(order: Object, status: str, done: str) -> None:
    """
    Raises:
        ToolDenied: the order is in another status.
    """
    if order["status"] != status:
        raise ToolDenied(
            f"Order {order['number']} cannot be {done}: its status is {order['status']!r}, only {status!r} allows it."
        )


def _require_untouched(order: Object, done: str) -> None:
    """
    Raises:
        ToolDenied: the order is not pending, or its items were changed before.
    """
    _require_status(order, "pending", done)
    if meta_of(order).get(ITEMS_MODIFIED):
        raise ToolDenied(f"Order {order['number']} cannot be {done}: its items were changed already, which is final.")


def _address(address_1: str, address_2: str, city: str, state: str, postcode: str, country: str) -> dict[str, str]:
    return {
        "address_1": address_1,
        "address_2": address_2,
        "city": city,
        "state": state,
        "postcode": postcode,
        "country": country,
    }


def _sorted(item_ids: Sequence[int]) -> list[str]:
    return sorted(str(item_id) for item_id in item_ids)
