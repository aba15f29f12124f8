"""Reading tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta

from ...context import ToolContext
from ...tool import EVERYBODY, tool
from ..backend import tables_of
from ..shapes import Columns, Count, Filters, Order, Row, Table, TableInfo, TablePage


@tool(effect="read", roles=EVERYBODY)
async def list_tables(ctx: ToolContext) -> list[TableInfo]:
    """Tables and views of the tenant's own that this session may use."""
    return await tables_of(ctx).list_tables()


@tool(effect="read", roles=EVERYBODY)
async def describe_table(ctx: ToolContext, *, table: Table) -> TablePage:
    """A table's columns with their types, its primary key, and what may be done with it."""
    return await tables_of(ctx).describe(table)


@tool(effect="read", roles=EVERYBODY)
async def select_rows(
    ctx: ToolContext,
    *,
    table: Table,
    columns: Columns = [],  # noqa: B006 - never changed
    filters: Filters = [],  # noqa: B006
    order: Annotated[list[Order], Meta(max_length=10)] = [],  # noqa: B006
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100,
    offset: Annotated[int, Meta(description="rows to leave out, for the next page", ge=0, le=10_000_000)] = 0,
) -> list[Row]:
    """Rows of a table. Fewer than `limit` are all that there are.

    Dates are ISO 8601 text. A number that has more digits than a float is text.
    """
    return await tables_of(ctx).select(table, columns, filters, order, limit, offset)


@tool(effect="read", roles=EVERYBODY)
async def stream_rows(
    ctx: ToolContext,
    *,
    table: Table,
    columns: Columns = [],  # noqa: B006 - never changed
    filters: Filters = [],  # noqa: B006
    order: Annotated[list[Order], Meta(max_length=10)] = [],  # noqa: B006
) -> AsyncIterator[list[Row]]:
    """All rows of a table, some hundred at a time: `for rows in stream_rows(...)`. On Postgres as of one moment."""
    async for rows in tables_of(ctx).stream(table, columns, filters, order):
        yield rows


@tool(effect="read", roles=EVERYBODY)
async def count_rows(
    ctx: ToolContext,
    *,
    table: Table,
    filters: Filters = [],  # noqa: B006 - never changed
) -> Count:
    """How many rows of a table fit."""
    return {"rows": await tables_of(ctx).count(table, filters)}
