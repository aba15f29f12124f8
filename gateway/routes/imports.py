"""Conversations and orders from elsewhere, put where the reports find them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from gateway.acts import act
from gateway.routes.access import Caller, GatewayOf, check_tenant
from gateway.routes.problems import described
from servers.analytics.load import MOST, Line, Message, PlacedOrder, Written, write_messages, write_orders

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["operations"])

_TEXT = r"^[^\x00]*$"
_WORD = r"^[^\x00\s]+$"


def _of_our_time(moment: datetime) -> datetime:
    """Raises ValueError outside of what a shop can mean: other times cannot be told in every zone."""
    if not datetime(1970, 1, 2, tzinfo=UTC) <= moment < datetime(2200, 1, 1, tzinfo=UTC):
        raise ValueError("a time between 1970 and 2200 is wanted")
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_of_our_time)]
Amount = Annotated[Decimal, Field(max_digits=24, decimal_places=12, allow_inf_nan=False)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MessageRow(_Row):
    conversation: str = Field(min_length=1, max_length=200, pattern=_TEXT)
    seq: int = Field(ge=0, lt=2**31, description="Its place in the conversation.")
    at: Moment
    dated: bool = Field(True, description="False: the source had no time, and `at` only keeps the order.")
    role: Literal["customer", "agent"] = "customer"
    text: str = Field(max_length=100_000, pattern=_TEXT)
    intents: list[Annotated[str, Field(max_length=80, pattern=_WORD)]] = Field([], max_length=50)
    customer: int | None = Field(None, ge=1, lt=2**63)


class Messages(_Row):
    messages: list[MessageRow] = Field(max_length=MOST)


class LineRow(_Row):
    sku: str = Field("", max_length=200, pattern=_TEXT)
    name: str = Field("", max_length=1000, pattern=_TEXT)
    quantity: Amount
    total: Amount


class OrderRow(_Row):
    id: int = Field(ge=1, lt=2**63)
    number: str = Field(max_length=100, pattern=_TEXT)
    customer: int = Field(0, ge=0, lt=2**63, description="0: not known.")
    status: str = Field(max_length=40, pattern=_TEXT)
    currency: str = Field(max_length=3, pattern=_TEXT)
    created: Moment
    country: str = Field("", max_length=100, pattern=_TEXT)
    lines: list[LineRow] = Field(max_length=MOST)


class Orders(_Row):
    orders: list[OrderRow] = Field(max_length=MOST)


class WrittenRows(BaseModel):
    written: int
    left: int = Field(description="Those that were there before: they stay as they were.")


@router.post("/messages", responses=described(403, 404))
@act("catalogue.load")
async def load_messages(running: GatewayOf, caller: Caller, tenant: str, body: Messages) -> WrittenRows:
    """Add messages of conversations for the reports. Sending the same again changes nothing."""
    check_tenant(running, caller, tenant)
    rows = [Message(**row.model_dump(exclude={"intents"}), intents=tuple(row.intents)) for row in body.messages]
    return _told(await write_messages(running.database.tenant(tenant), tenant, rows))


@router.post("/orders", responses=described(403, 404))
@act("catalogue.load")
async def load_orders(running: GatewayOf, caller: Caller, tenant: str, body: Orders) -> WrittenRows:
    """Add orders with their lines for the reports. Sending the same again changes nothing."""
    check_tenant(running, caller, tenant)
    orders = [
        PlacedOrder(
            **order.model_dump(exclude={"lines"}),
            lines=tuple(
                Line(sku=line.sku, name=line.name, quantity=str(line.quantity), total=str(line.total))
                for line in order.lines
            ),
        )
        for order in body.orders
    ]
    return _told(await write_orders(running.database.tenant(tenant), tenant, orders))


def _told(written: Written) -> WrittenRows:
    return WrittenRows(written=written.written, left=written.left)
