"""The tenant's database, where a tool needs one."""

from __future__ import annotations

from .context import TenantDatabase, ToolContext
from .errors import ToolDenied


def database_of(ctx: ToolContext) -> TenantDatabase:
    """
    Raises:
        ToolDenied: this call was given no database.
    """
    if ctx.database is None:
        raise ToolDenied("No database is configured for this call.", hint="Set DATABASE_URL, or use the embedded one.")
    return ctx.database
