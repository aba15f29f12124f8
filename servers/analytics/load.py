"""Messages and orders from elsewhere into the tables that reports read. Written again, they are left as they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

import msgspec

from ..context import Rows, TenantDatabase

#: Rows that go in one statement.
MOST = 2_000


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation. `seq` is its place in it, and unique there."""

    conversation: str
    seq: int
    at: datetime
    #: False where its source had no time, and `at` only keeps the order.
    dated: bool = True
    role: Literal["customer", "agent"] = "customer"
    text: str
    intents: tuple[str, ...] = ()
    customer: int | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    sku: str
    name: str
    quantity: str
    total: str


class PlacedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as a file has it; amounts are decimals as text, below zero for what was taken back."""

    id: int
    number: str
    #: 0: not known.
    customer: int
    status: str
    currency: str
    created: datetime
    country: str
    lines: tuple[Line, ...]


class Written(msgspec.Struct, frozen=True):
    """`left`: those that were there before."""

    written: int
    left: int


async def write_messages(database: TenantDatabase, tenant: str, messages: Sequence[Message]) -> Written:
    """All of them or, after an error, none. A conversation begins with the first message of it that is written."""
    async with database.transaction() as rows:
        written = await insert_messages(rows, tenant, messages)
    return Written(written, len(messages) - written)


async def insert_messages(rows: Rows, tenant: str, messages: Sequence[Message]) -> int:
    """How many of them were new."""
    return await rows.execute(
        """
        INSERT INTO chat_message (tenant, conversation, seq, started, at, dated, role, text, intents, customer)
        SELECT %(tenant)s, conversation, seq,
               coalesce((SELECT min(started) FROM chat_message known
                         WHERE tenant = %(tenant)s AND known.conversation = new.conversation),
                        min(at) OVER (PARTITION BY conversation)),
               at, dated, role, text, string_to_array(intents, ' '), customer
        FROM unnest(%(conversation)s::text[], %(seq)s::int[], %(at)s::timestamptz[], %(dated)s::bool[],
                    %(role)s::text[], %(text)s::text[], %(intents)s::text[], %(customer)s::bigint[])
             AS new(conversation, seq, at, dated, role, text, intents, customer)
        ON CONFLICT DO NOTHING
        """,
        {
            "tenant": tenant,
            "conversation": [m.conversation for m in messages],
            "seq": [m.seq for m in messages],
            "at": [m.at for m in messages],
            "dated": [m.dated for m in messages],
            "role": [m.role for m in messages],
            "text": [m.text.replace("\0", "") for m in messages],
            "intents": [" ".join("_".join(i.lower().split()) for i in m.intents if i.strip()) for m in messages],
            "customer": [m.customer for m in messages],
        },
    )


async def write_orders(database: TenantDatabase, tenant: str, orders: Sequence[PlacedOrder]) -> Written:
    """All of them with their lines or, after an error, none. Of several with one id, the first."""
    given, orders = len(orders), list({o.id: o for o in reversed(orders)}.values())
    data = [
        msgspec.json.encode({"number": o.number, "billing": {"country": o.country}, "source": "file"}).decode()
        for o in orders
    ]
    async with database.transaction() as rows:
        new = await rows.fetch(
            """
            INSERT INTO store_order (tenant, id, content_hash, data, number, customer_id, email, status, currency,
                                     total, created_at)
            SELECT %(tenant)s, id, 'file', data::jsonb, number, customer, '', status, currency, total, created
            FROM unnest(%(id)s::bigint[], %(data)s::text[], %(number)s::text[], %(customer)s::bigint[],
                        %(status)s::text[], %(currency)s::text[], %(total)s::numeric[], %(created)s::timestamptz[])
                 AS new(id, data, number, customer, status, currency, total, created)
            ON CONFLICT DO NOTHING RETURNING id
            """,
            {
                "tenant": tenant,
                "id": [o.id for o in orders],
                "data": data,
                "number": [o.number for o in orders],
                "customer": [o.customer for o in orders],
                "status": [o.status for o in orders],
                "currency": [o.currency for o in orders],
                "total": [sum(Decimal(line.total) for line in o.lines) for o in orders],
                "created": [o.created for o in orders],
            },
        )
        fresh = {row["id"] for row in new}
        await _insert_lines(rows, tenant, [o for o in orders if o.id in fresh])
    return Written(len(fresh), given - len(fresh))


async def _insert_lines(rows: Rows, tenant: str, orders: Sequence[PlacedOrder]) -> None:
    lines = [(o.id, n, line) for o in orders for n, line in enumerate(o.lines, 1)]
    await rows.execute(
        """
        INSERT INTO store_order_item (tenant, order_id, line, product_id, variation_id, sku, name, quantity, total)
        SELECT %(tenant)s, order_id, line, 0, 0, sku, name, quantity, total
        FROM unnest(%(order)s::bigint[], %(line)s::bigint[], %(sku)s::text[], %(name)s::text[], %(quantity)s::numeric[],
                    %(total)s::numeric[]) AS new(order_id, line, sku, name, quantity, total)
        """,
        {
            "tenant": tenant,
            "order": [order for order, _, _ in lines],
            "line": [n for _, n, _ in lines],
            "sku": [line.sku for _, _, line in lines],
            "name": [line.name for _, _, line in lines],
            "quantity": [line.quantity for _, _, line in lines],
            "total": [line.total for _, _, line in lines],
        },
    )
