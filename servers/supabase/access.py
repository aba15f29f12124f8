"""Who asks: a session's claims, and what it may ask for. Nothing of this comes from a cell."""

from __future__ import annotations

from ..checking import closest
from ..context import ToolContext
from ..errors import ToolDenied, ToolInputError, UpstreamError
from .project import SupabaseProject


def project_of(ctx: ToolContext) -> SupabaseProject:
    """
    Raises:
        ToolDenied: the tenant has no project.
        ToolError: it has one that cannot be used as it is set.
    """
    if "supabase" in ctx.unusable:
        raise ctx.unusable["supabase"]
    if ctx.supabase is None:
        raise ToolDenied(
            "This tenant has no tables of its own.", hint="The operator connects a project: docs/supabase.md says how."
        )
    return ctx.supabase


def claims_of(ctx: ToolContext) -> dict[str, str]:
    """What row-level security decides by, as `request.jwt.claims` has it.

    A conversation has the customer that it was verified for in place of the staff's `sub` and further claims.

    Raises:
        ToolDenied: no customer is verified yet.
    """
    project = project_of(ctx)
    own = {"role": project.role, "tenant": ctx.tenant}
    if not ctx.pins.customer_required:
        return {**project.claims, **own}
    if ctx.pins.customer is None:
        raise ToolDenied(
            "No customer is verified in this conversation yet.", hint="Call woocommerce.verify_customer first."
        )
    return {**own, "customer": str(ctx.pins.customer)}


def check_customer_may(ctx: ToolContext, name: str) -> None:
    """
    Raises:
        ToolDenied: a conversation with a customer asks for what the operator has not opened to it.
    """
    if ctx.pins.customer_required and name not in project_of(ctx).customer_may:
        raise ToolDenied(f"{name} is not open to conversations with customers.")


def table_of(ctx: ToolContext, table: str) -> tuple[str, str]:
    """Schema and name. A name without a schema is in the first one of the project's.

    Raises:
        ToolDenied: another schema.
        ToolInputError: no name at all.
    """
    return _qualified(ctx, table, "table")


def function_of(ctx: ToolContext, function: str) -> tuple[str, str]:
    """Schema and name, by the same rule."""
    return _qualified(ctx, function, "function")


def _qualified(ctx: ToolContext, text: str, what: str) -> tuple[str, str]:
    schemas = project_of(ctx).schemas
    schema, dot, name = text.rpartition(".")
    schema = schema if dot else schemas[0]
    if not name or "\0" in text or len(name.encode(errors="replace")) > 63:
        raise ToolInputError(f"{text[:80]!r} can be no {what}: 'name' or 'schema.name'.")
    if schema not in schemas:
        raise ToolDenied(f"The schema {schema[:63]!r} is not open to tools.", hint=f"Open are: {', '.join(schemas)}.")
    check_customer_may(ctx, shown(ctx, schema, name))
    return schema, name


def shown(ctx: ToolContext, schema: str, name: str) -> str:
    """As the tools take it: without the first schema."""
    return name if schema == project_of(ctx).schemas[0] else f"{schema}.{name}"


def unknown(kind: str, name: str, known: list[str]) -> ToolInputError:
    """A wrong name, with the likely one."""
    likely = closest(name, known)
    return ToolInputError(
        f"There is no {kind} {name[:63]!r}. " + (f"Did you mean {likely}?" if likely else ""),
        hint=f"There are: {', '.join(known[:40])}.",
        data={"valid": known[:100]},
    )


def outcome_unknown(what: str) -> UpstreamError:
    """An earlier attempt may have done it, and nothing tells whether it did."""
    return UpstreamError(
        f"Whether an earlier attempt to {what} was applied is not known, so it is not made again.",
        hint="Look at the rows, and decide in a new cell.",
        data={"outcome": "unknown"},
    )
