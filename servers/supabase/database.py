"""Postgres itself, as PostgREST asks it: a transaction per call, under the tenant's role and claims, within limits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable
from psycopg_pool import PoolTimeout

from ..context import ToolContext
from ..errors import BudgetExceeded, ToolDenied, ToolNotFound
from .access import claims_of, project_of, shown
from .connections import unreachable
from .problems import sql_problem
from .statements import Col, Tab

Connection = AsyncConnection[DictRow]

_SETTINGS = """
SELECT set_config('transaction_read_only', %(read_only)s, true), set_config('role', %(role)s, true),
       set_config('request.jwt.claims', %(claims)s, true), set_config('search_path', %(path)s, true),
       set_config('statement_timeout', %(limit)s, true), set_config('lock_timeout', %(limit)s, true),
       set_config('idle_in_transaction_session_timeout', %(idle)s, true)
"""

#: Of views only those that ask with the rights of whoever asks: others go around row-level security, as do copies
#: (materialized views) and tables elsewhere.
_TABLES = """
SELECT n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       coalesce(obj_description(c.oid, 'pg_class'), '') AS description,
       c.relrowsecurity AS secured,
       coalesce('security_invoker=true' = ANY(c.reloptions) OR 'security_invoker=on' = ANY(c.reloptions), false)
           AS invoker,
       ARRAY(SELECT right_ FROM unnest(ARRAY['select', 'insert', 'update', 'delete']) right_
             WHERE CASE right_ WHEN 'delete' THEN has_table_privilege(c.oid, 'DELETE')
                   ELSE has_any_column_privilege(c.oid, right_) END) AS may,
       CASE WHEN %(name)s::text IS NULL THEN '[]'::json ELSE (
           SELECT coalesce(json_agg(json_build_object(
                      'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                      'required', a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '',
                      'description', coalesce(col_description(c.oid, a.attnum), '')) ORDER BY a.attnum), '[]')
           FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND has_column_privilege(c.oid, a.attnum, 'SELECT')) END AS columns,
       ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(attnum, position)
             JOIN pg_attribute a ON a.attnum = k.attnum
             WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid ORDER BY position) AS primary_key
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY(%(schemas)s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND (%(name)s::text IS NULL OR c.relname = %(name)s)
  AND has_schema_privilege(n.oid, 'USAGE')
ORDER BY array_position(%(schemas)s::text[], n.nspname::text), c.relname
"""

#: Tables that are listed.
MOST_TABLES = 500


@asynccontextmanager
async def transaction(ctx: ToolContext, *, read_only: bool) -> AsyncIterator[Connection]:
    """A transaction in which row-level security decides by the session's claims.

    Raises:
        ToolError: for whatever the database says.
    """
    async with plain_transaction(ctx) as connection:
        await take_role(ctx, connection, read_only=read_only)
        yield connection


@asynccontextmanager
async def plain_transaction(ctx: ToolContext) -> AsyncIterator[Connection]:
    """A transaction of the login itself, which has no right to any table of the tenant's."""
    pool = await project_of(ctx).connections.pool(project_of(ctx))
    try:
        async with pool.connection() as connection, connection.transaction():
            yield connection
    except PoolTimeout as error:
        raise unreachable(error) from None
    except psycopg.Error as error:
        raise sql_problem(error) from None


async def take_role(ctx: ToolContext, connection: Connection, *, read_only: bool) -> None:
    """From here to the end of the transaction."""
    project = project_of(ctx)
    limit = f"{int(project.statement_timeout_s * 1000)}ms"
    await connection.execute(
        _SETTINGS.encode(),
        {
            "read_only": "on" if read_only else "off",
            "role": project.role,
            "claims": json.dumps(claims_of(ctx)),
            # as in Supabase: where extensions such as pgvector are
            "path": ", ".join(_quoted(name) for name in (*project.schemas, "extensions")),
            "limit": limit,
            "idle": limit,
        },
    )


async def leave_role(connection: Connection) -> None:
    """The rest of the transaction is the login's own again."""
    await connection.execute(b"SET LOCAL ROLE NONE")


async def table(ctx: ToolContext, connection: Connection, schema: str, name: str, *, right: str = "select") -> Tab:
    """What the role may know of a table.

    Raises:
        ToolNotFound: there is none that it may use.
        ToolDenied: row-level security does not guard it, or the role lacks the right.
    """
    found = await _tables(ctx, connection, [schema], name)
    known = shown(ctx, schema, name)
    if not found or not found[0]["may"]:
        likely = [shown(ctx, t["schema"], t["name"]) for t in await _tables(ctx, connection, None, None)]
        hint = f"There are: {', '.join(likely[:40])}." if likely and not ctx.pins.customer_required else ""
        raise ToolNotFound(f"There is no table {known!r} for this session.", hint=hint)
    row = found[0]
    problem = unguarded(ctx, row)
    if problem:
        raise ToolDenied(f"{known}: {problem}", hint="The operator can change that: docs/supabase.md.")
    if right not in row["may"]:
        raise ToolDenied(f"The role {project_of(ctx).role!r} may not {right} in {known}.")
    return _tab(row)


async def tables(ctx: ToolContext, connection: Connection) -> list[Tab]:
    """All that the session may use, without columns."""
    rows = await all_tables(ctx, connection)
    return [_tab(row) for row in rows if not unguarded(ctx, row)][:MOST_TABLES]


async def all_tables(ctx: ToolContext, connection: Connection) -> list[dict[str, Any]]:
    """Those too that the role has rights to, but that nothing guards."""
    return [row for row in await _tables(ctx, connection, None, None) if row["may"]]


def unguarded(ctx: ToolContext, row: dict[str, Any]) -> str:
    """Why a table may not be used, "" where it may."""
    if shown(ctx, row["schema"], row["name"]) in project_of(ctx).open_tables:
        return ""
    match row["kind"]:
        case "r" | "p":
            return "" if row["secured"] else "it has no row-level security, so nothing keeps tenants apart in it."
        case "v":
            return "" if row["invoker"] else "the view lacks security_invoker, so it goes around row-level security."
    return "row-level security does not work for materialized views and foreign tables."


async def fetch(
    ctx: ToolContext, connection: Connection, select: Composable, parameters: Sequence[Any]
) -> list[dict[str, Any]]:
    """The rows of a SELECT as JSON has them, one by one, so that too many bytes are never held.

    Raises:
        BudgetExceeded
    """
    most = project_of(ctx).result_mb * 2**20
    rows: list[dict[str, Any]] = []
    size = 0
    query = SQL("SELECT row_to_json(found)::text AS row FROM (") + select + SQL(") found")
    async with connection.cursor() as cursor:
        async for record in cursor.stream(query, parameters):
            size += len(record["row"])
            if size > most:
                raise BudgetExceeded(
                    f"The rows take more than {project_of(ctx).result_mb} MiB.",
                    hint="Name fewer columns, or ask for fewer rows at once.",
                    data={"budget": "supabase.result_mb", "rows": len(rows)},
                )
            rows.append(parsed(record["row"]))
    return rows


async def batches(
    ctx: ToolContext, connection: Connection, select: Composable, parameters: Sequence[Any]
) -> AsyncIterator[list[dict[str, Any]]]:
    """The rows of a SELECT in batches, of which one at a time is held; each has a statement's time."""
    query = SQL("SELECT row_to_json(found)::text AS row FROM (") + select + SQL(") found")
    async with connection.cursor(name="omniops_rows") as cursor:
        await cursor.execute(query, parameters)
        while records := await cursor.fetchmany(project_of(ctx).batch_rows):
            yield [parsed(record["row"]) for record in records]


def parsed(text: str) -> Any:
    """JSON whose numbers keep their digits: one that no float has stays text."""
    return json.loads(text, parse_float=_exact)


def _exact(text: str) -> float | str:
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else text


async def _tables(
    ctx: ToolContext, connection: Connection, schemas: list[str] | None, name: str | None
) -> list[dict[str, Any]]:
    parameters = {"schemas": schemas or list(project_of(ctx).schemas), "name": name}
    rows = await (await connection.execute(_TABLES.encode(), parameters)).fetchall()
    if not ctx.pins.customer_required:
        return rows
    return [row for row in rows if shown(ctx, row["schema"], row["name"]) in project_of(ctx).customer_may]


def _tab(row: dict[str, Any]) -> Tab:
    return Tab(
        schema=row["schema"],
        name=row["name"],
        kind="view" if row["kind"] in ("v", "m") else "table",
        description=row["description"][:500],
        columns=tuple(Col(**column) for column in row["columns"]),
        primary_key=tuple(row["primary_key"]),
        may=tuple(row["may"]),
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
