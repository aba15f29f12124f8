"""Writes of several upstream requests, applied once.

A write changes the order first, in one PUT that also stamps the order: the entry {key, tool, balances} in its
meta_data `_omniops_calls`. The stamp is the commit point and says what is left to do: by how much which gift card
changes. Then the customer's gift cards are changed in a PUT that stamps the customer with the same key. Called again
with that key, after a kill between any two requests, whatever is stamped is skipped and the rest is done.

All bodies hold absolute values, so that a PUT which was repeated after a lost answer changes nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from weakref import WeakValueDictionary

from ..context import ToolContext
from ..errors import ToolError, UpstreamError
from .access import customer_of, order_digits, order_of
from .client import Object, Store, store_of
from .problems import OutcomeUnknown
from .shapes import PAYMENT_METHODS, Raw, meta_of, meta_update, money, payment_methods

STAMPS = "_omniops_calls"

#: Stamps that an object keeps; the oldest go first.
STAMPS_KEPT = 100


@dataclass(frozen=True)
class Change:
    """What a write does: fields and meta_data of its object, and gift-card balances of the customer (by how much)."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    balances: Mapping[str, Decimal] = field(default_factory=dict)


#: Checks an order and says what to do to it. Reads, never writes; raises to refuse.
OrderPlan = Callable[[Object], Awaitable[Change]]


async def change_order(ctx: ToolContext, tool: str, order_id: int | str, plan: OrderPlan) -> Object:
    """Apply `plan` to the order once; the order as it is then.

    Raises:
        ToolError: from finding the order, from `plan` (nothing is changed then), from the store.
    """
    store = store_of(ctx)
    digits = order_digits(order_id)
    async with alone(store, f"orders/{digits}"):
        order = await order_of(ctx, store, order_id)
        async with alone(store, f"customers/{order['customer_id']}"):
            if str(order["id"]) != digits:  # found by another number: the lock above was not this order's
                order = await store.object(f"orders/{order['id']}")
            return await _change_order(ctx, store, tool, order, plan)


async def _change_order(ctx: ToolContext, store: Store, tool: str, order: Object, plan: OrderPlan) -> Object:
    stamp = stamp_of(order, ctx.idempotency_key)
    if stamp is None:
        change = await plan(order)
        stamp = {
            "key": ctx.idempotency_key,
            "tool": tool,
            "balances": {card: money(amount) for card, amount in change.balances.items() if amount},
        }
        order = await _put(store, f"orders/{order['id']}", order, change, stamp)
    if stamp["balances"]:
        balances = {card: Decimal(amount) for card, amount in stamp["balances"].items()}
        try:
            await _change_balances(store, int(order["customer_id"]), tool, ctx.idempotency_key, balances)
        except ToolError as error:
            # Whatever kind it is: with the order changed already, this is no refusal of the whole.
            raise UpstreamError(
                f"Order {order['number']} was changed, but not yet the gift card: {error.message}",
                hint="Run the same call again, which does the rest only; if that fails too, hand over to a person.",
                data={"outcome": "unknown"},
            ) from None
    return order


async def change_customer(ctx: ToolContext, tool: str, customer_id: int, change: Change) -> Object:
    """Apply `change` to the customer once; the customer as it is then."""
    store = store_of(ctx)
    path = f"customers/{customer_id}"
    async with alone(store, path):
        customer = await customer_of(ctx, store, customer_id)
        if stamp_of(customer, ctx.idempotency_key) is None:
            customer = await _put(store, path, customer, change, new_stamp(ctx, tool))
    return customer


async def change_object(ctx: ToolContext, tool: str, path: str, plan: Callable[[Object], Change]) -> Object:
    """Apply `plan` once to a product, variation, order, customer or coupon; the object as it is then.

    Raises:
        ToolError: from `plan` (nothing is changed then), from the store.
    """
    store = store_of(ctx)
    async with alone(store, path):
        found = await store.object(path)
        if stamp_of(found, ctx.idempotency_key) is None:
            found = await _put(store, path, found, plan(found), new_stamp(ctx, tool))
    return found


def new_stamp(ctx: ToolContext, tool: str) -> dict[str, Any]:
    """What a write leaves in its object's meta_data."""
    return {"key": ctx.idempotency_key, "tool": tool, "balances": {}}


def stamp_of(raw: Raw, key: str) -> dict[str, Any] | None:
    """The stamp that the call with this idempotency key has left, if it got so far."""
    stamps = meta_of(raw).get(STAMPS) or ()
    return next((stamp for stamp in stamps if stamp["key"] == key), None)


async def _change_balances(store: Store, customer_id: int, tool: str, key: str, amounts: Mapping[str, Decimal]) -> None:
    path = f"customers/{customer_id}"
    customer = await store.object(path)
    if stamp_of(customer, key) is not None:
        return
    methods = payment_methods(customer)
    for card, amount in amounts.items():
        method = next((m for m in methods if m["id"] == card), None)
        balance = Decimal(str(method["balance"])) + amount if method else Decimal(-1)
        if method is None or balance < 0:
            raise UpstreamError(f"Gift card {card} is gone or no longer holds {money(-amount)}.")
        method["balance"] = money(balance)
    stamp = {"key": key, "tool": tool, "balances": {}}
    await _put(store, path, customer, Change(meta={PAYMENT_METHODS: methods}), stamp)


async def _put(store: Store, path: str, raw: Object, change: Change, stamp: Mapping[str, Any]) -> Object:
    """One stamped PUT. After no answer the store is asked whether it took the change, and sent it again if not."""
    stamps = [*(meta_of(raw).get(STAMPS) or ()), stamp][-STAMPS_KEPT:]
    body = {**change.fields, "meta_data": meta_update(raw, {**change.meta, STAMPS: stamps})}
    try:
        return await store.put(path, body)
    except OutcomeUnknown as unanswered:
        try:
            current = await store.object(path)
            if stamp_of(current, stamp["key"]) is not None:
                return current
            return await store.put(path, body)
        except ToolError:
            raise unanswered from None


_locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()


@asynccontextmanager
async def alone(store: Store, path: str) -> AsyncIterator[None]:
    """Hold an object: one write at a time to it, as a store's PUT cannot be conditional. Orders before customers."""
    key = (store.url, path)
    lock = _locks.get(key)
    if lock is None:
        lock = _locks[key] = asyncio.Lock()
    async with lock:
        yield
