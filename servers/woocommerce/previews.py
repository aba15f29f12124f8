"""What a person is shown of a change to the store before it is made. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from ..context import ToolContext
from ..preview import MakePreview, Preview
from .access import customer_of, order_of
from .client import Object, store_of
from .shapes import Raw, money

_NOTHING = "(none)"


def removal(
    path: str, what: str, named: Callable[[Raw], str], *shown: str, gone: str = "deleted for good"
) -> MakePreview:
    """Of a tool that removes the object at `path`, a template of its arguments; `shown`: fields that go with it."""

    async def preview(ctx: ToolContext, **args: Any) -> Preview:
        raw = await store_of(ctx).object(path.format(**args))
        before = {"status": str(raw.get("status") or "there"), **_some(raw, shown)}
        return Preview(target=f"{what} {raw['id']}, {named(raw)}", before=before, after={"status": gone})

    return preview


def change(path: str, what: str, *names: str) -> MakePreview:
    """Of a tool that sets fields of the object at `path`: those of `names` that are given, as they are and will be."""

    async def preview(ctx: ToolContext, **args: Any) -> Preview:
        raw = await store_of(ctx).object(path.format(**args))
        given = {name: value for name, value in args.items() if name in names and value is not None}
        return Preview(
            target=f"{what} {raw['id']}, {raw.get('name') or raw.get('sku') or raw.get('code') or ''}".rstrip(", "),
            before={name: _text(raw.get(name)) for name in given},
            after={name: _text(value) for name, value in given.items()},
        )

    return preview


async def order_status(ctx: ToolContext, *, order_id: int | str, status: str) -> Preview:
    order = await order_of(ctx, store_of(ctx), order_id)
    return _of_order(order, {"status": str(order["status"])}, {"status": status})


async def order_trash(ctx: ToolContext, *, order_id: int | str) -> Preview:
    return await order_status(ctx, order_id=order_id, status="trash")


async def order_deletion(ctx: ToolContext, *, order_id: int | str) -> Preview:
    order = await order_of(ctx, store_of(ctx), order_id)
    before = {
        "status": str(order["status"]),
        "total": str(order["total"]),
        "refunds": str(len(order.get("refunds") or ())),
    }
    return _of_order(order, before, {"status": "deleted for good"})


async def cancellation(ctx: ToolContext, *, order_id: int | str, reason: str) -> Preview:
    order = await order_of(ctx, store_of(ctx), order_id)
    found = _of_order(order, {"status": str(order["status"])}, {"status": "cancelled"}, amount=str(order["total"]))
    return found


async def refund(ctx: ToolContext, *, order_id: int | str, amount: str, reason: str, pay_back: bool) -> Preview:
    order = await order_of(ctx, store_of(ctx), order_id)
    done = refunded(order)
    total = Decimal(str(order["total"]))
    return _of_order(
        order,
        {"refunded": f"{money(done)} of {money(total)}"},
        {"refunded": f"{money(done + Decimal(amount))} of {money(total)}"},
        amount=amount,
        note="The payment provider sends the money now." if pay_back else "It is only noted; no money is sent.",
    )


async def refund_deletion(ctx: ToolContext, *, order_id: int | str, refund_id: int) -> Preview:
    store = store_of(ctx)
    order = await order_of(ctx, store, order_id)
    raw = await store.object(f"orders/{order['id']}/refunds/{refund_id}")
    done = refunded(order)
    return _of_order(
        order,
        {"refunded": money(done)},
        {"refunded": money(done - Decimal(str(raw["amount"])))},
        amount=str(raw["amount"]),
        note="Money that was sent does not come back.",
    )


async def note_to_customer(ctx: ToolContext, *, order_id: int | str, note: str) -> Preview:
    order = await order_of(ctx, store_of(ctx), order_id)
    to = str((order.get("billing") or {}).get("email") or "nobody: the order has no e-mail")
    return _of_order(order, {}, {"e-mail to": to, "text": note})


async def account_deletion(ctx: ToolContext, *, customer_id: int) -> Preview:
    raw = await customer_of(ctx, store_of(ctx), customer_id)
    return Preview(
        target=f"customer {raw['id']}, {raw['email']}",
        before={"account": "there"},
        after={"account": "deleted for good"},
    )


async def stock_set(ctx: ToolContext, *, product_id: int, variation_id: int | None, quantity: int) -> Preview:
    raw = await store_of(ctx).object(_stock_path(product_id, variation_id))
    return _of_stock(raw, str(quantity))


async def stock_adjusted(ctx: ToolContext, *, product_id: int, variation_id: int | None, by: int) -> Preview:
    raw = await store_of(ctx).object(_stock_path(product_id, variation_id))
    now = raw.get("stock_quantity")
    return _of_stock(raw, _NOTHING if now is None else str(int(now) + by))


def refunded(order: Object) -> Decimal:
    """How much of an order's total has been refunded."""
    return -sum((Decimal(str(each["total"])) for each in order.get("refunds") or ()), Decimal(0))


def name_of(raw: Raw) -> str:
    return str(raw.get("name") or raw.get("code") or raw.get("sku") or "")


def _of_order(order: Object, before: Mapping[str, str], after: Mapping[str, str], **more: str) -> Preview:
    billing = order.get("billing") or {}
    whose = " ".join(str(billing.get(part) or "") for part in ("first_name", "last_name")).strip()
    target = f"order {order['number']} of {whose or 'a guest'} over {order['total']}"
    return Preview(target=target, currency=str(order.get("currency") or ""), before=before, after=after, **more)


def _of_stock(raw: Object, after: str) -> Preview:
    now = raw.get("stock_quantity")
    before = _NOTHING if now is None else str(now)
    return Preview(
        target=f"{raw.get('name') or 'product'} ({raw['id']})",
        before={"stock_quantity": before},
        after={"stock_quantity": after},
    )


def _stock_path(product_id: int, variation_id: int | None) -> str:
    return f"products/{product_id}" + (f"/variations/{variation_id}" if variation_id else "")


def _some(raw: Raw, names: tuple[str, ...]) -> dict[str, str]:
    return {name: _text(raw.get(name)) for name in names if raw.get(name) not in (None, "")}


def _text(value: object) -> str:
    return _NOTHING if value in (None, "") else str(value)
