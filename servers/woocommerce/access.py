"""Whose orders and customers a session may see, and how an order is found by the number that people write."""

from __future__ import annotations

from ..context import ToolContext
from ..errors import ToolDenied, ToolInputError, ToolNotFound
from .client import Object, Store

#: Longest order number that is looked for.
NUMBER_LENGTH = 40


async def order_of(ctx: ToolContext, store: Store, order_id: int | str) -> Object:
    """The order as the store has it, by id (2611340) or number ("#W2611340").

    Raises:
        ToolDenied: the conversation's customer is not verified, or has no such order; whether it exists is not told.
        ToolNotFound: there is none, told only where no customer needs to be verified.
        ToolInputError: `order_id` can be no order's.
    """
    require_verified(ctx)
    number, digits = str(order_id).strip().lstrip("#"), order_digits(order_id)
    found = await _by_id(store, number, digits) or await _by_number(store, number)
    if found is not None and (not ctx.pins.customer_required or found["customer_id"] == ctx.pins.customer):
        return found
    if ctx.pins.customer_required:
        raise ToolDenied(f"The verified customer has no order {order_id!r}.", hint="list_orders shows their orders.")
    raise ToolNotFound(f"There is no order {order_id!r}.")


def order_digits(order_id: int | str) -> str:
    """The digits of an order's id or number, however it is written.

    Raises:
        ToolInputError: there are none, or far too many.
    """
    digits = "".join(c for c in str(order_id) if c in "0123456789").lstrip("0")
    if not digits or len(str(order_id)) > NUMBER_LENGTH or len(digits) > 18:
        raise ToolInputError(f"{str(order_id)[:60]!r} is no order number; they look like '#W2611340' or 2611340.")
    return digits


async def customer_of(ctx: ToolContext, store: Store, customer_id: int) -> Object:
    """The customer as the store has it.

    Raises:
        ToolDenied: another one than the verified customer, whether it exists or not.
        ToolNotFound
    """
    require_same_customer(ctx, customer_id)
    try:
        return await store.object(f"customers/{customer_id}")
    except ToolNotFound:
        raise ToolNotFound(f"There is no customer {customer_id}.") from None


def require_same_customer(ctx: ToolContext, customer_id: int) -> None:
    """
    Raises:
        ToolDenied: `customer_id` is not the verified customer of a conversation that needs one.
    """
    require_verified(ctx)
    if ctx.pins.customer_required and ctx.pins.customer != customer_id:
        raise ToolDenied(
            f"This conversation is about customer {ctx.pins.customer} only; {customer_id} is somebody else.",
            hint="Use the id that verify_customer returned.",
        )


def require_verified(ctx: ToolContext) -> None:
    """
    Raises:
        ToolDenied: no customer is verified yet, and the conversation needs one.
    """
    if ctx.pins.customer_required and ctx.pins.customer is None:
        raise ToolDenied(
            "No customer is verified in this conversation yet.",
            hint="Call verify_customer first, with email=... or with first_name=..., last_name=..., postcode=...",
        )


def require_staff(ctx: ToolContext) -> None:
    """
    Raises:
        ToolDenied: the session is a conversation with a customer.
    """
    if ctx.pins.customer_required:
        raise ToolDenied("This is for the shop's staff, not for a conversation with a customer.")


async def _by_id(store: Store, number: str, digits: str) -> Object | None:
    """Most stores number orders by id, some with letters around it."""
    try:
        found = await store.object(f"orders/{int(digits)}")
    except ToolNotFound:
        return None
    same = number in (digits, str(found["id"])) or str(found["number"]).casefold() == number.casefold()
    return found if same else None


async def _by_number(store: Store, number: str) -> Object | None:
    """Where numbers are not ids, the store's search finds them."""
    listed: list[Object] = await store.get("orders", {"search": number, "per_page": 20})
    return next((o for o in listed if str(o["number"]).casefold() == number.casefold()), None)
