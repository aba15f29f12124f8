"""Refunds of orders: money that goes back."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolInputError, UpstreamError
from ...tool import CONVERSATION, EVERYBODY, OPERATOR, tool
from .. import previews, undo
from ..access import order_of
from ..arguments import Amount, Removed
from ..client import Object, Store, store_of
from ..create import create_stamped, remove
from ..once import alone, stamp_of
from ..operations import OrderId
from ..shapes import Raw, money

#: A store's refusal of an amount. It comes with status 500, yet nothing was refunded.
REFUSED = "woocommerce_rest_cannot_create_order_refund"


class Refund(TypedDict):
    id: int
    amount: str
    reason: str
    paid_back: Annotated[bool, Meta(description="true: the payment provider has sent the money; false: the shop does")]
    date_created: Annotated[str, Meta(description="UTC")]


@tool(effect="read", roles=EVERYBODY)
async def list_refunds(ctx: ToolContext, *, order_id: OrderId) -> list[Refund]:
    """Refunds of an order, newest first."""
    store = store_of(ctx)
    order = await order_of(ctx, store, order_id)
    return [_view(raw) async for raw in store.each(f"orders/{order['id']}/refunds")]


@tool(
    effect="critical",
    roles=CONVERSATION,
    revert="delete_refund, which brings no money back that was sent",
    amount="amount",
    preview=previews.refund,
    undo=undo.remove_made("delete_refund", "refund_id", "order_id"),
)
async def refund_order(
    ctx: ToolContext,
    *,
    order_id: OrderId,
    amount: Amount,
    reason: Annotated[str, Meta(description="the staff sees it", max_length=500)] = "",
    pay_back: Annotated[
        bool, Meta(description="true: the payment provider sends the money now; false: it is only noted")
    ] = False,
) -> Refund:
    """Refund part or all of an order's total, at most what is not refunded yet."""
    store = store_of(ctx)
    order = await order_of(ctx, store, order_id)
    path = f"orders/{order['id']}"
    async with alone(store, path):
        if not await _made(ctx, store, path):
            _require_left(await store.object(path), Decimal(amount))
        body = {"amount": amount, "reason": reason, "api_refund": pay_back}
        try:
            made = await create_stamped(ctx, "refund_order", f"{path}/refunds", body, among={}, unique=False)
        except UpstreamError as error:
            if error.data.get("code") == REFUSED:
                raise ToolInputError(f"The store refused to refund {amount}: {error.message}") from None
            raise
    return _view(made)


@tool(effect="critical", roles=OPERATOR, preview=previews.refund_deletion)
async def delete_refund(
    ctx: ToolContext, *, order_id: OrderId, refund_id: Annotated[int, Meta(description="of list_refunds", ge=1)]
) -> Removed:
    """Delete the record of a refund: the order counts as paid again. Money that was sent does not come back."""
    order = await order_of(ctx, store_of(ctx), order_id)
    what = f"refund {refund_id} of order {order['number']}"
    before = await remove(ctx, f"orders/{order['id']}/refunds/{refund_id}", force=True, what=what)
    return Removed(id=refund_id, name=str(before.get("amount") or ""), permanently=True)


async def _made(ctx: ToolContext, store: Store, path: str) -> bool:
    """Whether an earlier attempt at this call has made its refund: what is left is less by it."""
    if not ctx.resuming:
        return False
    refunds = [raw async for raw in store.each(f"{path}/refunds")]
    return any(stamp_of(raw, ctx.idempotency_key) for raw in refunds)


def _require_left(order: Object, amount: Decimal) -> None:
    """
    Raises:
        ToolInputError: so much is not left to be refunded.
    """
    refunded = sum((Decimal(str(refund["total"])) for refund in order.get("refunds") or ()), Decimal(0))
    left = Decimal(str(order["total"])) + refunded  # the totals of refunds are negative
    if not 0 < amount <= left:
        raise ToolInputError(
            f"Order {order['number']} has {money(left)} left to be refunded, not {money(amount)}.",
            data={"left": money(left)},
        )


def _view(raw: Raw) -> Refund:
    return Refund(
        id=int(raw["id"]),
        amount=str(raw["amount"]),
        reason=str(raw.get("reason") or ""),
        paid_back=bool(raw.get("refunded_payment")),
        date_created=str(raw.get("date_created_gmt") or ""),
    )
