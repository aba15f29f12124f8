"""Words to the customer, and the way out of a conversation that the tools cannot finish."""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta

from ..context import ToolContext
from ..database import database_of
from ..tool import CONVERSATION, tool


class HandOver(TypedDict):
    id: int
    status: Annotated[str, Meta(description="always 'waiting'")]


@tool(effect="write", roles=CONVERSATION)
async def hand_over(
    ctx: ToolContext,
    *,
    summary: Annotated[
        str, Meta(description="what the customer wants and what was done so far", min_length=1, max_length=4000)
    ],
) -> HandOver:
    """Hand the conversation over to a person, when the customer asks for one or no tool can help."""
    async with database_of(ctx).transaction() as rows:
        await rows.execute(
            "INSERT INTO handover (tenant, session, customer, summary, idempotency_key) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (tenant, idempotency_key) DO NOTHING",
            (ctx.tenant, ctx.session, ctx.pins.customer, summary, ctx.idempotency_key),
        )
        found = await rows.fetch(
            "SELECT id FROM handover WHERE tenant = %s AND idempotency_key = %s", (ctx.tenant, ctx.idempotency_key)
        )
    return HandOver(id=found[0]["id"], status="waiting")


@tool(effect="read", roles=CONVERSATION)
async def reply(
    ctx: ToolContext,
    *,
    text: Annotated[str, Meta(description="plain text", min_length=1, max_length=8000)],
) -> str:
    """Answer the customer from this cell: sent when the cell has run to its end, which ends your turn."""
    # Nothing is done here: the agent's loop sends what the journal has, and only of a cell that went well.
    return "sent at this cell's end"
