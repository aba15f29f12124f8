"""Changing tables. Each call is applied once, all of it or nothing; through a project's API see docs/supabase.md."""

from __future__ import annotations

from typing import Annotated, cast

from msgspec import Meta

from ...context import ToolContext
from ...tool import OPERATOR, tool
from ..backend import tables_of
from ..shapes import Deleted, Inserted, Name, Row, SomeFilters, Table, Updated, Upserted

Rows = Annotated[list[Row], Meta(description="all with the same columns", min_length=1, max_length=10_000)]
AtMost = Annotated[int, Meta(description="where more rows fit, none is changed", ge=1, le=10_000)]


@tool(effect="write", roles=OPERATOR, revert="delete_rows by the keys that it returned")
async def insert_rows(ctx: ToolContext, *, table: Table, rows: Rows) -> Inserted:
    """Add rows. One that breaks a constraint keeps all of them out."""
    return cast(Inserted, await tables_of(ctx).insert("insert_rows", table, rows))


@tool(effect="write", roles=OPERATOR, revert="upsert_rows with the former values, which it does not return")
async def upsert_rows(
    ctx: ToolContext,
    *,
    table: Table,
    rows: Rows,
    on_conflict: Annotated[
        list[Name], Meta(description="columns that a row is known by; none: the primary key", max_length=16)
    ] = [],  # noqa: B006 - never changed
    keep_existing: Annotated[bool, Meta(description="leave rows as they are that exist already")] = False,
) -> Upserted:
    """Add rows, and change those that exist already. For many rows at once, and safe to repeat."""
    done = await tables_of(ctx).upsert("upsert_rows", table, rows, on_conflict, keep_existing)
    return cast(Upserted, done)


@tool(effect="write", roles=OPERATOR, revert="update_rows, row by row, with the values in `before`")
async def update_rows(
    ctx: ToolContext,
    *,
    table: Table,
    values: Annotated[Row, Meta(description="new values by column", min_length=1, max_length=100)],
    filters: SomeFilters,
    at_most: AtMost = 100,
) -> Updated:
    """Change columns of the rows that fit; what they were is in `before`."""
    return cast(Updated, await tables_of(ctx).update("update_rows", table, values, filters, at_most))


@tool(effect="critical", roles=OPERATOR, revert="insert_rows with `before`; what else went with them is gone")
async def delete_rows(ctx: ToolContext, *, table: Table, filters: SomeFilters, at_most: AtMost = 100) -> Deleted:
    """Delete the rows that fit; what they were is in `before`."""
    return cast(Deleted, await tables_of(ctx).delete("delete_rows", table, filters, at_most))
