"""Notes on orders. The store keeps no meta_data with them: a note is known by what it says, once per order."""

from __future__ import annotations

import re
from html import unescape
from typing import Annotated, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...tool import OPERATOR, STAFF, tool
from .. import previews, undo
from ..access import order_of
from ..arguments import Removed
from ..client import Object, Store, store_of
from ..create import create_named, remove
from ..operations import OrderId
from ..shapes import Raw

NoteText = Annotated[str, Meta(description="plain text", min_length=1, max_length=2000)]


class OrderNote(TypedDict):
    id: int
    note: str
    author: str
    for_customer: Annotated[bool, Meta(description="true: it was e-mailed to the customer")]
    date_created: Annotated[str, Meta(description="UTC")]


@tool(effect="read", roles=STAFF)
async def list_order_notes(ctx: ToolContext, *, order_id: OrderId) -> list[OrderNote]:
    """Notes on an order, newest first: the staff's, the customer's and the store's own."""
    store = store_of(ctx)
    order = await order_of(ctx, store, order_id)
    notes: list[Object] = await store.get(f"orders/{order['id']}/notes")
    return [_view(raw) for raw in notes]


@tool(
    effect="write",
    roles=OPERATOR,
    revert="delete_order_note",
    undo=undo.remove_made("delete_order_note", "note_id", "order_id"),
)
async def add_order_note(ctx: ToolContext, *, order_id: OrderId, note: NoteText) -> OrderNote:
    """Note something on an order for the staff; the customer does not see it. An order holds a text once."""
    return await _add(ctx, order_id, note, for_customer=False)


@tool(effect="critical", roles=OPERATOR, preview=previews.note_to_customer)
async def send_order_note(ctx: ToolContext, *, order_id: OrderId, note: NoteText) -> OrderNote:
    """Note something on an order and e-mail it to the customer. Cannot be called back. An order holds a text once."""
    return await _add(ctx, order_id, note, for_customer=True)


@tool(effect="critical", roles=OPERATOR)
async def delete_order_note(
    ctx: ToolContext, *, order_id: OrderId, note_id: Annotated[int, Meta(description="of list_order_notes", ge=1)]
) -> Removed:
    """Delete a note of an order for good."""
    order = await order_of(ctx, store_of(ctx), order_id)
    what = f"note {note_id} on order {order['number']}"
    before = await remove(ctx, f"orders/{order['id']}/notes/{note_id}", force=True, what=what)
    return Removed(id=note_id, name=str(before.get("note") or "")[:80], permanently=True)


async def _add(ctx: ToolContext, order_id: int | str, note: str, *, for_customer: bool) -> OrderNote:
    order = await order_of(ctx, store_of(ctx), order_id)
    path = f"orders/{order['id']}/notes"

    async def find(store: Store) -> Object | None:
        notes: list[Object] = await store.get(path)
        return next(
            (n for n in notes if n["customer_note"] is for_customer and _plain(n["note"]) == _plain(note)), None
        )

    what = f"the same note on order {order['number']}"
    return _view(await create_named(ctx, path, {"note": note, "customer_note": for_customer}, find=find, what=what))


def _plain(text: object) -> str:
    """A note's words, whatever a store makes of its markup and entities."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", str(text))).split())


def _view(raw: Raw) -> OrderNote:
    return OrderNote(
        id=int(raw["id"]),
        note=str(raw["note"]),
        author=str(raw.get("author") or ""),
        for_customer=bool(raw.get("customer_note")),
        date_created=str(raw.get("date_created_gmt") or ""),
    )
