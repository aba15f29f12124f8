"""The tools' work on Postgres itself. Writes happen once: each leaves its key in the same transaction."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Composable, Literal
from psycopg.types.json import Json

from ..context import ToolContext
from ..errors import ToolInputError, ToolNotFound
from . import database
from .access import function_of, outcome_unknown, project_of, shown, table_of
from .database import Connection
from .login import LEDGER
from .shapes import Filter, Match, Order, TableInfo, TablePage
from .statements import Tab, ident, listed, order_by, same_columns, verbatim, where

#: Rows whose keys an insert tells.
KEYS_TOLD = 1000


class Postgres:
    """`backend.Tables`."""

    def __init__(self, ctx: ToolContext) -> None:
        self._ctx = ctx

    async def list_tables(self) -> list[TableInfo]:
        async with database.transaction(self._ctx, read_only=True) as connection:
            found = await database.tables(self._ctx, connection)
        return [
            {
                "table": shown(self._ctx, t.schema, t.name),
                "kind": "view" if t.kind == "view" else "table",
                "description": t.description,
                "may": list(t.may),
            }
            for t in found
        ]

    async def describe(self, table: str) -> TablePage:
        async with database.transaction(self._ctx, read_only=True) as connection:
            tab = await self._table(connection, table)
        return {
            "table": shown(self._ctx, tab.schema, tab.name),
            "description": tab.description,
            "columns": [
                {"name": c.name, "type": c.type, "required": c.required, "description": c.description[:500]}
                for c in tab.columns
            ],
            "primary_key": list(tab.primary_key),
            "may": list(tab.may),
        }

    async def select(
        self,
        table: str,
        columns: Sequence[str],
        filters: Sequence[Filter],
        order: Sequence[Order],
        limit: int,
        offset: int,
    ) -> list[dict[str, Any]]:
        async with database.transaction(self._ctx, read_only=True) as connection:
            tab = await self._table(connection, table)
            condition, values = where(tab, filters)
            query = SQL("SELECT {} FROM {}").format(listed(tab.chosen(columns)), tab.sql) + condition
            query += order_by(tab, order) + SQL(" LIMIT %s OFFSET %s")
            return await database.fetch(self._ctx, connection, query, [*values, limit, offset])

    async def stream(
        self, table: str, columns: Sequence[str], filters: Sequence[Filter], order: Sequence[Order]
    ) -> AsyncIterator[list[dict[str, Any]]]:
        async with database.transaction(self._ctx, read_only=True) as connection:
            tab = await self._table(connection, table)
            condition, values = where(tab, filters)
            query = SQL("SELECT {} FROM {}").format(listed(tab.chosen(columns)), tab.sql) + condition
            async for batch in database.batches(self._ctx, connection, query + order_by(tab, order), values):
                yield batch

    async def count(self, table: str, filters: Sequence[Filter]) -> int:
        async with database.transaction(self._ctx, read_only=True) as connection:
            tab = await self._table(connection, table)
            condition, values = where(tab, filters)
            query = SQL("SELECT count(*) AS rows FROM {}").format(tab.sql) + condition
            found = await (await connection.execute(query, values)).fetchone()
        return int(found["rows"]) if found else 0

    async def nearest(
        self,
        table: str,
        column: str,
        vector: Sequence[float],
        columns: Sequence[str],
        filters: Sequence[Filter],
        limit: int,
    ) -> list[Match]:
        async with database.transaction(self._ctx, read_only=True) as connection:
            tab = await self._table(connection, table)
            near = tab.column(column)
            if not near.is_vector:
                raise ToolInputError(f"{column} is {near.type}, not a vector.")
            # An approximate index would leave some of the nearest out: exact by default, whatever indexes there are.
            await connection.execute(b"SELECT set_config('enable_indexscan', 'off', true)")
            condition, values = where(tab, [*filters, {"column": column, "op": "is_null", "value": False}])
            distance = SQL("{} <=> %s::{}").format(ident(column), verbatim(near.type))
            query = SQL(
                "SELECT 1 - ({}) AS similarity, (SELECT row_to_json(kept) FROM (SELECT {}) kept) AS row"
            ).format(distance, listed(tab.chosen(columns)))
            query += SQL(" FROM {}").format(tab.sql) + condition + SQL(" ORDER BY ") + distance
            query += SQL("").join(SQL(", ") + ident(name) for name in tab.primary_key) + SQL(" LIMIT %s")
            text = vector_text(vector)
            found = await database.fetch(self._ctx, connection, query, [text, *values, text, limit])
        return [{"similarity": float(row["similarity"]), "row": row["row"]} for row in found]

    async def insert(self, tool: str, table: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        async def work(connection: Connection) -> dict[str, Any]:
            tab = await self._table(connection, table, "insert")
            columns = same_columns(tab, rows)
            keys: list[dict[str, Any]] = []
            for batch in self._batches(rows):
                query = _insert(tab, columns) + SQL(" RETURNING ")
                found = await connection.execute(query + _json_of(tab.primary_key), [_text(batch)])
                keys += [database.parsed(row["row"]) for row in await found.fetchall()]
            told = keys[:KEYS_TOLD] if tab.primary_key else []
            return {"inserted": len(keys), "keys": told}

        return await self._once(tool, work)

    async def upsert(
        self, tool: str, table: str, rows: Sequence[dict[str, Any]], on_conflict: Sequence[str], keep: bool
    ) -> dict[str, Any]:
        async def work(connection: Connection) -> dict[str, Any]:
            tab = await self._table(connection, table, "insert")
            columns = same_columns(tab, rows)
            unique = [tab.column(name).name for name in on_conflict] or list(tab.primary_key)
            check_conflict(table, unique, columns)
            query = _insert(tab, columns) + _on_conflict(unique, columns, keep) + SQL(" RETURNING (xmax = 0) AS fresh")
            touched = fresh = 0
            for batch in self._batches(rows):
                found = await (await connection.execute(query, [_text(batch)])).fetchall()
                touched, fresh = touched + len(found), fresh + sum(row["fresh"] for row in found)
            return {"rows": touched, "inserted": fresh}

        return await self._once(tool, work)

    async def update(
        self, tool: str, table: str, values: Mapping[str, Any], filters: Sequence[Filter], at_most: int
    ) -> dict[str, Any]:
        async def work(connection: Connection) -> dict[str, Any]:
            tab = await self._table(connection, table, "update")
            columns = same_columns(tab, [dict(values)])
            kept = [*tab.primary_key, *(c for c in columns if c not in tab.primary_key)]
            before = await self._before(connection, tab, kept, filters, at_most)
            condition, parameters = where(tab, filters)
            query = SQL(
                "UPDATE {table} SET ({columns}) = (SELECT {columns} FROM json_populate_record({row}, %s::json))"
            )
            text = query.format(table=tab.sql, columns=listed(columns), row=_typed(tab)) + condition
            done = await connection.execute(text, [Json(dict(values)), *parameters])
            check_at_most(done.rowcount, at_most)
            return {"updated": done.rowcount, "before": before}

        return await self._once(tool, work)

    async def delete(self, tool: str, table: str, filters: Sequence[Filter], at_most: int) -> dict[str, Any]:
        async def work(connection: Connection) -> dict[str, Any]:
            tab = await self._table(connection, table, "delete")
            condition, parameters = where(tab, filters)
            columns = [c.name for c in tab.columns]
            query = SQL("DELETE FROM {}").format(tab.sql) + condition + SQL(" RETURNING ") + _json_of(columns)
            done = await connection.execute(query, parameters)
            check_at_most(done.rowcount, at_most)
            return {"deleted": done.rowcount, "before": [database.parsed(r["row"]) for r in await done.fetchall()]}

        return await self._once(tool, work)

    async def call(self, tool: str, function: str, arguments: Mapping[str, Any], *, read_only: bool) -> Any:
        if read_only:
            async with database.transaction(self._ctx, read_only=True) as connection:
                return await self._call(connection, function, arguments)

        async def work(connection: Connection) -> dict[str, Any]:
            return {"result": await self._call(connection, function, arguments)}

        return (await self._once(tool, work))["result"]

    async def _call(self, connection: Connection, name: str, arguments: Mapping[str, Any]) -> Any:
        function = await _function(connection, *function_of(self._ctx, name), list(arguments))
        given = SQL(", ").join(
            SQL("{} => %s::{}").format(ident(key), verbatim(function.types[key])) for key in arguments
        )
        called = SQL("{}({})").format(ident(function.schema, function.name), given)
        query = SQL("SELECT {} AS result") if not function.many else SQL("SELECT result FROM {} AS result")
        values = [_argument(function.types[key], value) for key, value in arguments.items()]
        found = [row["result"] for row in await database.fetch(self._ctx, connection, query.format(called), values)]
        return found if function.many else found[0]

    async def _before(
        self, connection: Connection, tab: Tab, columns: Sequence[str], filters: Sequence[Filter], at_most: int
    ) -> list[dict[str, Any]]:
        """The rows as they are, held until the end of the transaction.

        Raises:
            ToolInputError: more of them than may be changed.
        """
        condition, values = where(tab, filters)
        inner = SQL("SELECT {} FROM {}").format(listed(columns), tab.sql) + condition + SQL(" LIMIT %s FOR UPDATE")
        found = await database.fetch(self._ctx, connection, inner, [*values, at_most + 1])
        check_at_most(len(found), at_most)
        return found

    async def _once(self, tool: str, work: Callable[[Connection], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Do it and leave the call's key, both or neither. A call that was made before is answered from the key's row.

        Raises:
            UpstreamError: an earlier attempt may have been applied, and the project has no ledger to tell.
        """
        ctx = self._ctx
        async with database.plain_transaction(ctx) as connection:
            found = await (await connection.execute(_LEDGER, (LEDGER, self._limit, self._limit))).fetchone()
            ledger = bool(found and found["ledger"])
            if ledger:
                entered = await connection.execute(
                    b"INSERT INTO omniops_tools.applied (tenant, key, tool) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                    (ctx.tenant, ctx.idempotency_key, tool),
                )
                if not entered.rowcount:
                    return await _earlier(connection, ctx)
            elif ctx.resuming:
                raise outcome_unknown(tool.replace("_", " "))
            await database.take_role(ctx, connection, read_only=False)
            done = await work(connection)
            if ledger:
                await database.leave_role(connection)
                await connection.execute(
                    b"UPDATE omniops_tools.applied SET result = %s WHERE tenant = %s AND key = %s",
                    (Json(done), ctx.tenant, ctx.idempotency_key),
                )
        return done

    @property
    def _limit(self) -> str:
        return f"{int(project_of(self._ctx).statement_timeout_s * 1000)}ms"

    def _batches(self, rows: Sequence[dict[str, Any]]) -> list[Sequence[dict[str, Any]]]:
        size = project_of(self._ctx).batch_rows
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    async def _table(self, connection: Connection, table: str, right: str = "select") -> Tab:
        return await database.table(self._ctx, connection, *table_of(self._ctx, table), right=right)


def check_conflict(table: str, unique: Sequence[str], columns: Sequence[str]) -> None:
    """Raises ToolInputError: nothing to know rows by, or rows without it."""
    if not unique:
        raise ToolInputError(f"{table} has no primary key: name the columns of a unique constraint in on_conflict.")
    missing = [name for name in unique if name not in columns]
    if missing:
        raise ToolInputError(f"The rows lack {', '.join(missing)}, by which they are known.")


def check_at_most(rows: int, at_most: int) -> None:
    """Raises ToolInputError: more rows than may be changed."""
    if rows > at_most:
        raise ToolInputError(
            f"More than {at_most} rows fit, so nothing was changed.", hint="Narrow the filters, or raise at_most."
        )


def vector_text(vector: Sequence[float]) -> str:
    """pgvector's text form."""
    return "[" + ",".join(repr(float(value)) for value in vector) + "]"


async def _earlier(connection: Connection, ctx: ToolContext) -> dict[str, Any]:
    found = await (
        await connection.execute(
            b"SELECT result::text AS result FROM omniops_tools.applied WHERE tenant = %s AND key = %s",
            (ctx.tenant, ctx.idempotency_key),
        )
    ).fetchone()
    if found is None or found["result"] is None:
        raise outcome_unknown("write")
    result: dict[str, Any] = database.parsed(found["result"])
    return result


def _insert(tab: Tab, columns: Sequence[str]) -> Composable:
    return SQL("INSERT INTO {} ({}) SELECT {} FROM json_populate_recordset({}, %s::json)").format(
        tab.sql, listed(columns), listed(columns), _typed(tab)
    )


def _on_conflict(unique: Sequence[str], columns: Sequence[str], keep: bool) -> Composable:
    others = [name for name in columns if name not in unique]
    if keep or not others:
        return SQL(" ON CONFLICT ({}) DO NOTHING").format(listed(unique))
    sets = SQL(", ").join(SQL("{0} = excluded.{0}").format(ident(name)) for name in others)
    return SQL(" ON CONFLICT ({}) DO UPDATE SET {}").format(listed(unique), sets)


def _typed(tab: Tab) -> Composable:
    """A row without values, which gives JSON the table's types."""
    return SQL("NULL::{}").format(tab.sql)


def _json_of(columns: Sequence[str]) -> Composable:
    """The columns of a RETURNING as one JSON text."""
    pairs = SQL(", ").join(verbatim(Literal(name).as_string()) + SQL("::text, ") + ident(name) for name in columns)
    return SQL("json_build_object({})::text AS row").format(pairs)


def _text(rows: Sequence[dict[str, Any]]) -> str:
    return json.dumps(rows)


def _argument(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind.rpartition(".")[2].startswith(("vector", "halfvec")) and isinstance(value, list):
        return vector_text(value)
    return json.dumps(value) if kind in ("json", "jsonb") or isinstance(value, dict) else value


_LEDGER = b"""
SELECT to_regclass(%s) AS ledger, set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)
"""

_FUNCTION = b"""
SELECT p.proretset AS many,
       ARRAY(SELECT coalesce(name, '') FROM unnest(p.proargnames, p.proargmodes) WITH ORDINALITY a(name, mode, n)
             WHERE coalesce(mode, 'i') IN ('i', 'b', 'v') ORDER BY n) AS names,
       ARRAY(SELECT format_type(kind, NULL) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a(kind, n) ORDER BY n)
           AS types
FROM pg_proc p JOIN pg_namespace s ON s.oid = p.pronamespace
WHERE s.nspname = %s AND p.proname = %s AND p.prokind = 'f' AND has_schema_privilege(s.oid, 'USAGE')
  AND has_function_privilege(p.oid, 'EXECUTE')
ORDER BY p.pronargs
"""


@dataclass(frozen=True)
class _Function:
    schema: str
    name: str
    #: By the name of each argument.
    types: Mapping[str, str]
    #: It returns rows.
    many: bool


async def _function(connection: Connection, schema: str, name: str, given: Sequence[str]) -> _Function:
    """The one that takes these arguments.

    Raises:
        ToolNotFound, ToolInputError
    """
    found = await (await connection.execute(_FUNCTION, (schema, name))).fetchall()
    if not found:
        raise ToolNotFound(f"There is no function {name!r} for this session.")
    for row in found:
        types = dict(zip(row["names"], row["types"], strict=False))
        if set(given) <= types.keys():
            return _Function(schema, name, types, row["many"])
    valid = list(dict.fromkeys(each for row in found for each in row["names"] if each))
    wrong = ", ".join(sorted(set(given) - set(valid)))[:200]
    raise ToolInputError(
        f"{name} does not take {wrong or 'these arguments together'}.",
        hint=f"It takes: {', '.join(valid) or 'nothing'}.",
        data={"valid": valid},
    )
