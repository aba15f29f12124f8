"""The server of docs/cells.md: tickets that are read and closed, and a tool that fails as it is asked to."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from servers.context import ToolContext
from servers.errors import ERRORS, RateLimited, ToolNotFound
from servers.registry import Registry, load_registry
from servers.tool import EVERYBODY, Tool, tool

OPEN = {7: "3.50", 8: "0.75", 9: "12.00"}


class Ticket(TypedDict):
    number: int
    customer: str
    state: Literal["open", "closed"]
    hours: str


def ticket(number: int, state: Literal["open", "closed"] = "open") -> Ticket:
    return Ticket(number=number, customer="ada@example.com", state=state, hours=OPEN[number])


@tool(effect="read", roles=EVERYBODY)
async def find_ticket(ctx: ToolContext, *, number: int) -> Ticket:
    """One ticket by its number."""
    if number not in OPEN:
        raise ToolNotFound(f"There is no ticket {number}.", hint="list_tickets has those there are.")
    return ticket(number)


@tool(effect="read", roles=EVERYBODY)
async def list_tickets(
    ctx: ToolContext, *, state: Literal["open", "closed"] = "open", limit: Annotated[int, Meta(ge=1, le=500)] = 100
) -> list[Ticket]:
    """All tickets, the newest first."""
    return [ticket(number, state) for number in OPEN] * 100


@tool(effect="write", roles=EVERYBODY)
async def close_ticket(ctx: ToolContext, *, number: int, reason: Literal["solved", "duplicate"]) -> Ticket:
    """Close a ticket."""
    return ticket(number, "closed")


@tool(effect="read", roles=EVERYBODY)
async def fail(ctx: ToolContext, *, how: Annotated[str, Meta(max_length=40)]) -> Ticket:
    """Fail as it is asked to."""
    kinds = {cls.__name__: cls for cls in ERRORS}
    if how == "RateLimited":
        raise RateLimited("Too many requests.", retry_after=1.5, hint="Wait.")
    if how == "schema":
        return {"number": "many"}  # type: ignore[typeddict-item]
    raise kinds[how](f"This is {how}.", hint="Try otherwise.", data={"why": how})


def registry() -> Registry:
    own: list[Tool] = [find_ticket, list_tickets, close_ticket, fail]
    product = load_registry()
    return Registry([*product, *own], {**product.documents, "tickets": "Tickets of customers."})
