"""Whether a tenant's project is connected as it should be: what works, what does not, and what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg_pool import PoolTimeout

from ..context import ToolContext
from ..errors import ToolError
from . import database
from .access import project_of, shown
from .backend import tables_of
from .connections import unreachable
from .login import LEDGER, check_login


@dataclass(frozen=True)
class Finding:
    what: str
    state: Literal["works", "fails", "absent"]
    told: str


async def check(ctx: ToolContext) -> AsyncIterator[Finding]:
    """One finding after another; the first failure ends it. Changes nothing."""
    try:
        async for finding in _database(ctx) if project_of(ctx).database_url else _api(ctx):
            yield finding
    except ToolError as error:
        yield Finding("supabase", "fails", " ".join(part for part in (error.message, error.hint) if part))


async def _database(ctx: ToolContext) -> AsyncIterator[Finding]:
    project = project_of(ctx)
    pool = await project.connections.pool(project)
    try:
        async with pool.connection() as connection:
            login = await check_login(connection, project.role)
            yield Finding(
                "login", "works", f"{login['login']} on Postgres {login['version']}; statements run as {project.role}."
            )
            rights = await (
                await connection.execute(
                    b"SELECT to_regclass(%s) IS NOT NULL AND coalesce(has_table_privilege(to_regclass(%s),"
                    b" 'SELECT, INSERT, UPDATE'), false) AS ledger",
                    (LEDGER, LEDGER),
                )
            ).fetchone()
    except (psycopg.Error, PoolTimeout) as error:
        raise unreachable(error) from None
    if rights and rights["ledger"]:
        yield Finding("ledger", "works", f"{LEDGER} is there: writes happen once.")
    else:
        yield Finding(
            "ledger", "absent", f"No {LEDGER}: a write that broke off stays open. docs/supabase.md has its SQL."
        )
    async with database.transaction(ctx, read_only=True) as connection:
        rows = await database.all_tables(ctx, connection)
    usable = [shown(ctx, row["schema"], row["name"]) for row in rows if not database.unguarded(ctx, row)]
    if usable:
        yield Finding("tables", "works", f"{len(usable)}: {', '.join(usable[:20])}.")
    else:
        yield Finding("tables", "absent", f"{project.role} may use no table in {', '.join(project.schemas)}.")
    for row in rows:
        problem = database.unguarded(ctx, row)
        if problem:
            yield Finding(shown(ctx, row["schema"], row["name"]), "absent", f"Not usable: {problem}")


async def _api(ctx: ToolContext) -> AsyncIterator[Finding]:
    project = project_of(ctx)
    listed = await tables_of(ctx).list_tables()
    yield Finding("API", "works", f"It lists {len(listed)} tables: {', '.join(t['table'] for t in listed[:20])}.")
    if project.jwt_secret:
        yield Finding("claims", "works", f"Requests are signed, as {project.role}.")
    else:
        yield Finding(
            "claims", "absent", "No jwt_secret: requests go as anon, and conversations cannot use the tables."
        )
