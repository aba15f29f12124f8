"""The tools that `benchmarks.calls` calls. What they answer is made once, so that the way of it is measured alone."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any, TypedDict

import pyarrow

from servers.context import ToolContext
from servers.registry import Registry
from servers.table import Table
from servers.tool import EVERYBODY, Tool, tool

#: Rows of the table, and of what streams; rows of one part.
ROWS, STREAMED, PART = 100_000, 1_000_000, 10_000

_START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_STATES = ("processing", "completed", "refunded", "on-hold")


class Line(TypedDict):
    """A line of an order."""

    order: int
    placed: datetime.datetime
    sku: str
    state: str
    total: float


@lru_cache(maxsize=2)
def lines(count: int) -> pyarrow.Table:
    """So many lines, every one different."""
    numbers = range(count)
    return pyarrow.table(
        {
            "order": pyarrow.array(numbers, pyarrow.int64()),
            "placed": pyarrow.array([_START + datetime.timedelta(seconds=n) for n in numbers]).cast(
                pyarrow.timestamp("us", tz="UTC")
            ),
            "sku": pyarrow.array([f"SKU-{n * 7919 % 1_000_003:07}" for n in numbers], pyarrow.large_string()),
            "state": pyarrow.array([_STATES[n % 4] for n in numbers], pyarrow.large_string()),
            "total": pyarrow.array([n * 0.37 for n in numbers], pyarrow.float64()),
        }
    )


@lru_cache(maxsize=1)
def plain_lines() -> list[dict[str, Any]]:
    """The table's rows as JSON can have them."""
    return [{**row, "placed": row["placed"].isoformat()} for row in lines(ROWS).to_pylist()]


@tool(effect="read", roles=EVERYBODY)
async def echo(ctx: ToolContext, *, value: int) -> int:
    """Say it back."""
    return value


@tool(effect="write", roles=EVERYBODY)
async def note(ctx: ToolContext, *, value: int) -> int:
    """Say it back; journaled as a change."""
    return value


@tool(effect="read", roles=EVERYBODY)
async def table(ctx: ToolContext) -> Table[Line]:
    """All lines, as a table."""
    return Table(lines(ROWS))


@tool(effect="read", roles=EVERYBODY)
async def rows(ctx: ToolContext) -> list[dict[str, Any]]:
    """All lines, as plain rows."""
    return plain_lines()


@tool(effect="read", roles=EVERYBODY)
async def stream(ctx: ToolContext) -> AsyncIterator[Table[Line]]:
    """Ten times the lines, some at a time."""
    whole = lines(ROWS)
    for start in range(0, STREAMED, PART):
        yield Table(whole.slice(start % ROWS, PART))


def registry() -> Registry:
    """These tools, as the server `call_tools`."""
    return Registry([each for each in globals().values() if isinstance(each, Tool)], {"call_tools": "To be measured."})
