"""An order's payment history and a customer's payment methods: what is paid, what comes back, what a gift card bears.

The shop keeps a gift card's balance with the customer; other methods are charged and refunded by the shop's payment
provider, of which the history is the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ..errors import ToolDenied, ToolInputError, ToolNotFound
from .client import Object, Store
from .shapes import PAYMENTS, Raw, meta_of, money, payment_methods

PAYMENT = "payment"
REFUND = "refund"


@dataclass(frozen=True)
class Method:
    """One way of paying that a customer has. `balance` is None except for gift cards."""

    id: str
    balance: Decimal | None

    @property
    def is_gift_card(self) -> bool:
        return self.balance is not None


def history_of(order: Raw) -> list[dict[str, Any]]:
    """The order's payments and refunds, oldest first; a fresh list."""
    return [dict(entry) for entry in meta_of(order).get(PAYMENTS) or ()]


def entry(transaction_type: str, amount: Decimal, method_id: str) -> dict[str, str]:
    return {"transaction_type": transaction_type, "amount": money(amount), "payment_method_id": method_id}


def still_paid(history: Iterable[Mapping[str, Any]]) -> dict[str, Decimal]:
    """By method, what was paid and not refunded yet."""
    paid: dict[str, Decimal] = {}
    for item in history:
        sign = 1 if item["transaction_type"] == PAYMENT else -1
        method = str(item["payment_method_id"])
        paid[method] = paid.get(method, Decimal(0)) + sign * Decimal(str(item["amount"]))
    return {method: amount for method, amount in paid.items() if amount > 0}


async def methods_of(store: Store, order: Object) -> dict[str, Method]:
    """The payment methods of the order's customer.

    Raises:
        ToolDenied: the order is a guest's, who has none.
    """
    if not order["customer_id"]:
        raise ToolDenied(f"Order {order['number']} was placed by a guest, who has no payment methods on file.")
    try:
        customer = await store.object(f"customers/{order['customer_id']}")
    except ToolNotFound:
        raise ToolDenied(f"The account that placed order {order['number']} no longer exists.") from None
    return {
        str(m["id"]): Method(str(m["id"]), Decimal(str(m["balance"])) if m.get("balance") is not None else None)
        for m in payment_methods(customer)
    }


def choose(methods: Mapping[str, Method], method_id: str) -> Method:
    """
    Raises:
        ToolInputError: the customer has no such method; the valid ones are named.
    """
    if method_id not in methods:
        raise ToolInputError(
            f"The customer has no payment method {method_id!r}. Theirs: {', '.join(methods) or 'none'}.",
            data={"valid": list(methods)},
        )
    return methods[method_id]


def require_cover(method: Method, amount: Decimal) -> None:
    """
    Raises:
        ToolInputError: a gift card that holds less than `amount`.
    """
    if method.balance is not None and method.balance < amount:
        raise ToolInputError(
            f"Gift card {method.id} holds {money(method.balance)}, which does not cover {money(amount)}.",
            hint="Choose another payment method of the customer.",
        )
