"""Tools whose upstream is a table that counts: what was applied how often is there to be seen, also after a kill."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Literal, TypedDict

from servers.context import Rows, ToolContext
from servers.errors import RateLimited, ToolDenied, ToolInputError, UpstreamError
from servers.preview import Done, Preview, Undo
from servers.registry import Registry
from servers.tool import CONVERSATION, EVERYBODY, OPERATOR, Tool, tool

UPSTREAM = """
CREATE TABLE effect (id bigint GENERATED ALWAYS AS IDENTITY, key text, name text, amount integer);
CREATE TABLE look (name text);
GRANT SELECT, INSERT ON effect, look TO omniops_tool;
"""

#: Tools that wait do so until the test opens their gate.
GATES: dict[str, asyncio.Event] = {}
#: Calls of waiting tools that have begun.
BEGUN: dict[str, asyncio.Event] = {}

EXACT: dict[str, Any] = {
    "floats": [0.1, 1e308, 5e-324, -0.0, 1.0, math.inf, -math.inf],
    "integers": [2**53 + 1, -(2**63), 2**64, 10**80],
    "strings": ["", "\x00", "naïve – 日本語 🛍", "\ud800", '"\\/\u2028'],
    "order": {"z": 1, "a": {"nested": [None, True, []]}, "": 0},
}


class Total(TypedDict):
    name: str
    total: int


async def total(rows: Rows, name: str) -> Total:
    found = await rows.fetch("SELECT coalesce(sum(amount), 0)::int AS total FROM effect WHERE name = %s", (name,))
    return {"name": name, "total": found[0]["total"]}


async def apply(ctx: ToolContext, name: str, amount: int) -> Total:
    """As a write does it: look for this call's stamp where an earlier attempt may have left it."""
    assert ctx.database is not None
    async with ctx.database.transaction() as rows:
        stamped = ctx.resuming and await rows.fetch("SELECT 1 FROM effect WHERE key = %s", (ctx.idempotency_key,))
        if not stamped:
            await rows.execute("INSERT INTO effect (key, name, amount) VALUES (%s, %s, %s)",
                               (ctx.idempotency_key, name, amount))  # fmt: skip
        return await total(rows, name)


async def wait(gate: str) -> None:
    BEGUN.setdefault(gate, asyncio.Event()).set()
    await GATES.setdefault(gate, asyncio.Event()).wait()


@tool(effect="read", roles=EVERYBODY)
async def look(ctx: ToolContext, *, name: str) -> Total:
    """The total of a name."""
    assert ctx.database is not None
    async with ctx.database.transaction() as rows:
        await rows.execute("INSERT INTO look VALUES (%s)", (name,))
        return await total(rows, name)


@tool(effect="write", roles=CONVERSATION)
async def add(ctx: ToolContext, *, name: str, amount: int = 1) -> Total:
    """Add to the total of a name."""
    return await apply(ctx, name, amount)


@tool(effect="critical", roles=CONVERSATION)
async def wipe(ctx: ToolContext) -> str:
    """Everything."""
    return "wiped"


async def preview_pay(ctx: ToolContext, *, name: str, amount: int) -> Preview:
    """Refuses what `pay` would; reads only."""
    assert ctx.database is not None
    async with ctx.database.transaction() as rows:
        now = await total(rows, name)
    if amount > 1000:
        raise ToolInputError(f"{amount} is more than there is.")
    before, after = str(now["total"]), str(now["total"] + amount)
    return Preview(target=f"account {name}", currency="EUR", before={"total": before}, after={"total": after})


def undo_pay(done: Done) -> Undo:
    return Undo("take_back", dict(done.args))


@tool(
    effect="critical",
    roles=EVERYBODY,
    revert="take_back",
    amount="amount",
    preview=preview_pay,
    undo=undo_pay,
)
async def pay(ctx: ToolContext, *, name: str, amount: int) -> Total:
    """Pay money out, which a person has to approve."""
    return await apply(ctx, name, amount)


@tool(effect="critical", roles=OPERATOR)
async def take_back(ctx: ToolContext, *, name: str, amount: int) -> Total:
    """Take a payment back."""
    return await apply(ctx, name, -amount)


@tool(effect="read", roles=EVERYBODY)
async def wait_and_look(ctx: ToolContext, *, gate: str) -> Total:
    """`look`, once the gate is open."""
    await wait(gate)
    return await look.implementation(ctx, name=gate)  # type: ignore[no-any-return]


@tool(effect="write", roles=CONVERSATION)
async def wait_and_add(ctx: ToolContext, *, gate: str) -> Total:
    """`add`, once the gate is open."""
    await wait(gate)
    return await apply(ctx, gate, 1)


@tool(effect="write", roles=CONVERSATION)
async def add_without_answer(ctx: ToolContext, *, name: str) -> Total:
    """`add`, but the first answer is lost."""
    done = await apply(ctx, name, 1)
    if not ctx.resuming:
        raise UpstreamError("connection reset")
    return done


@tool(effect="read", roles=EVERYBODY)
async def echo(ctx: ToolContext, *, value: Any) -> Any:
    """The value."""
    return value


@tool(effect="read", roles=EVERYBODY)
async def exact(ctx: ToolContext) -> dict[str, Any]:
    """Values that are easily bent on the way."""
    return EXACT


@tool(effect="read", roles=EVERYBODY)
async def big(ctx: ToolContext, *, size: int) -> str:
    """So many characters."""
    return "x" * size


@tool(effect="read", roles=EVERYBODY)
async def whose(ctx: ToolContext) -> dict[str, Any]:
    """Who the call is made for."""
    return {"tenant": ctx.tenant, "session": ctx.session, "customer": ctx.pins.customer}


@tool(effect="read", roles=EVERYBODY)
async def verify(ctx: ToolContext, *, customer: int) -> int:
    """Pin the customer."""
    await ctx.pins.pin_customer(customer)
    return customer


@tool(effect="read", roles=EVERYBODY)
async def fail(
    ctx: ToolContext, *, how: Literal["bug", "upstream", "slow down", "denied", "input", "shape", "object"]
) -> int:
    """Fail in this way."""
    assert ctx.database is not None
    async with ctx.database.transaction() as rows:
        await rows.execute("INSERT INTO look VALUES (%s)", (how,))
    match how:
        case "bug":
            raise RuntimeError("could not reach https://shop/?consumer_secret=cs_0123456789abcdef0123 as hunter2222")
        case "upstream":
            raise UpstreamError("the store said hunter2222", hint="hunter2222", data={"hunter2222": ["hunter2222"]})
        case "slow down":
            raise RateLimited("slow down", data={"retry_after": 2.5})
        case "denied":
            raise ToolDenied("not yours")
        case "input":
            raise ToolInputError("no such thing")
        case "shape":
            return "no integer"  # type: ignore[return-value]
    return object()  # type: ignore[return-value]


def registry() -> Registry:
    return Registry([t for t in globals().values() if isinstance(t, Tool)], {"counting": "Counts what is done."})
