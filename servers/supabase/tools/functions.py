"""Calling the functions that a project has."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolDenied
from ...tool import OPERATOR, STAFF, tool
from ..access import project_of
from ..backend import tables_of
from ..shapes import Called, Value

Function = Annotated[str, Meta(description="such as 'monthly_sales'", min_length=1, max_length=130)]
Arguments = Annotated[dict[str, Value], Meta(description="by name", max_length=50)]


@tool(effect="read", roles=STAFF)
async def read_function(
    ctx: ToolContext,
    *,
    function: Function,
    arguments: Arguments = {},  # noqa: B006 - never changed
) -> Called:
    """Call a function of the database that only reads: the database refuses any change that it tries."""
    return {"result": await tables_of(ctx).call("read_function", function, arguments, read_only=True)}


@tool(effect="write", roles=OPERATOR)
async def run_function(
    ctx: ToolContext,
    *,
    function: Function,
    arguments: Arguments = {},  # noqa: B006 - never changed
) -> Called:
    """Call a function that the operator has declared harmless enough not to ask a person first."""
    declared = project_of(ctx).write_functions
    if function not in declared:
        raise ToolDenied(
            f"{function[:130]} is not declared in supabase.write_functions.",
            hint=f"Use call_function, which asks a person. Declared are: {', '.join(declared) or 'none'}.",
        )
    return {"result": await tables_of(ctx).call("run_function", function, arguments, read_only=False)}


@tool(effect="critical", roles=OPERATOR)
async def call_function(
    ctx: ToolContext,
    *,
    function: Function,
    arguments: Arguments = {},  # noqa: B006 - never changed
) -> Called:
    """Call any function of the database, whatever it does."""
    return {"result": await tables_of(ctx).call("call_function", function, arguments, read_only=False)}
