"""What PostgREST reads from a request and answers with: filters, preferences, errors, and what it says of tables."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Identifier
from starlette.requests import Request
from starlette.responses import Response

OPERATORS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "LIKE", "ilike": "ILIKE"}
OPERATORS |= {"cs": "@>", "cd": "<@"}
RESERVED = {"select", "order", "limit", "offset", "columns", "on_conflict"}

#: PostgreSQL's codes as HTTP statuses, the longest prefix first.
STATUSES = {
    "23503": 409, "23505": 409, "25006": 405, "42883": 404, "42P01": 404, "42P17": 500, "53400": 500, "57P01": 503,
    "P0001": 400, "42501": 403, "08": 503, "09": 500, "0L": 403, "0P": 403, "25": 500, "28": 403, "2D": 500,
    "38": 500, "39": 500, "3B": 500, "40": 500, "53": 503, "54": 500, "55": 500, "57": 500, "58": 500, "F0": 500,
    "HV": 500, "XX": 500, "21": 500,
}  # fmt: skip


class Problem(Exception):
    """An error of PostgREST's own."""

    def __init__(self, status: int, code: str, message: str, details: str | None = None) -> None:
        self.status = status
        self.body = {"code": code, "details": details, "hint": None, "message": message}


_COLUMNS = """
SELECT c.relname AS name, obj_description(c.oid, 'pg_class') AS description, a.attname AS column,
       format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
       a.atthasdef OR a.attidentity <> '' AS has_default, col_description(c.oid, a.attnum) AS about,
       coalesce(a.attnum = ANY(i.indkey), false) AS pk, has_table_privilege(c.oid, 'INSERT') AS post,
       has_table_privilege(c.oid, 'UPDATE') AS patch, has_table_privilege(c.oid, 'DELETE') AS delete
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
  AND has_table_privilege(c.oid, 'SELECT') ORDER BY c.relname, a.attnum
"""


# -- the query


def preferences(request: Request) -> dict[str, str]:
    parts = [p.strip() for p in request.headers.get("prefer", "").split(",") if "=" in p]
    return dict(p.split("=", 1) for p in parts)


def selected(request: Request, table: Composable | None = None) -> Composable:
    selected = request.query_params.get("select", "*")
    if selected == "*":
        return SQL("*")
    names = [part.strip('"') for part in selected.split(",")]
    if not all(re.fullmatch(r"\w+", name) for name in names):
        raise Problem(400, "PGRST100", f'"failed to parse select parameter ({selected})" (line 1, column 1)')
    return SQL(", ").join((table + SQL(".") if table else SQL("")) + Identifier(name) for name in names)


def order(request: Request) -> Composable:
    order = request.query_params.get("order")
    if not order:
        return SQL("")
    parts = []
    for each in order.split(","):
        name, *rest = each.split(".")
        words = {"asc": " ASC", "desc": " DESC", "nullsfirst": " NULLS FIRST", "nullslast": " NULLS LAST"}
        parts.append(Identifier(name) + SQL("".join(words[word] for word in rest)))  # type: ignore[arg-type]
    return SQL(" ORDER BY ") + SQL(", ").join(parts)


def conditions(request: Request, table: Composable | None = None) -> tuple[Composable, list[Any]]:
    parts: list[Composable] = []
    values: list[Any] = []
    for key, text in request.query_params.multi_items():
        if key in RESERVED:
            continue
        negated = text.startswith("not.")
        op, dot, value = text.removeprefix("not.").partition(".")
        name = (table + SQL(".") if table else SQL("")) + Identifier(key.strip('"'))
        if op == "is" and value in ("null", "true", "false", "unknown"):
            part: Composable = name + SQL(f" IS {value.upper()}")  # type: ignore[arg-type]
        elif op == "in" and value[:1] == "(" and value[-1:] == ")":
            items = _items(value[1:-1])
            part = name + SQL(" IN (") + SQL(", ").join(SQL("%s") for _ in items) + SQL(")") if items else SQL("false")
            values += items
        elif op in OPERATORS and dot:
            value = value.replace("*", "%") if op in ("like", "ilike") else value
            part, values = name + SQL(f" {OPERATORS[op]} %s"), [*values, value]  # type: ignore[arg-type]
        else:
            message = f'"failed to parse filter ({text})" (line 1, column 1)'
            raise Problem(
                400, "PGRST100", message, f'unexpected "{text[:1]}" expecting "not" or operator (eq, gt, ...)'
            )
        parts.append(SQL("NOT (") + part + SQL(")") if negated else part)
    return (SQL(" WHERE ") + SQL(" AND ").join(parts) if parts else SQL("")), values


def _items(text: str) -> list[str]:
    """`a,"b,c",d` as three values."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|([^,]+)', text)
    return [re.sub(r"\\(.)", r"\1", quoted) if quoted or not plain else plain for quoted, plain in found]


def known(names: Any, columns: Sequence[str], table: str) -> None:
    for name in names:
        if name not in columns:
            raise Problem(400, "PGRST204", f"Could not find the '{name}' column of '{table}' in the schema cache")


async def columns_of(connection: AsyncConnection[DictRow], schema: str, name: str) -> list[str]:
    rows = await connection.execute(
        "SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s"
        " AND a.attnum > 0 AND NOT a.attisdropped",
        (schema, name),
    )
    return [row["attname"] for row in await rows.fetchall()]


async def primary_key(connection: AsyncConnection[DictRow], table: Composable) -> list[str]:
    rows = await connection.execute(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)"
        " WHERE i.indisprimary AND i.indrelid = %s::regclass",
        (table.as_string(connection),),
    )
    return [row["attname"] for row in await rows.fetchall()]


async def as_json(connection: AsyncConnection[DictRow], query: Composable, values: Sequence[Any]) -> tuple[bytes, int]:
    whole = SQL("SELECT coalesce(json_agg(r), '[]')::text AS body, count(*) AS n FROM (") + query + SQL(") r")
    found = await (await connection.execute(whole, values)).fetchone()
    assert found is not None
    return found["body"].encode(), found["n"]


# -- the root


async def forbidden(connection: AsyncConnection[DictRow], request: Request, schema: str) -> Response:
    raise Problem(401, "PGRST302", "Anonymous access is disabled")


async def openapi(connection: AsyncConnection[DictRow], request: Request, schema: str) -> Response:
    rows = await (
        await connection.execute(
            _COLUMNS,
            (schema,),
        )
    ).fetchall()
    definitions: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for row in rows:
        made = definitions.setdefault(row["name"], {"type": "object", "required": [], "properties": {}})
        if row["description"]:
            made["description"] = row["description"]
        about = "\n\n".join(filter(None, [row["about"], "Note:\nThis is a Primary Key.<pk/>" if row["pk"] else None]))
        column = {"format": row["type"], "type": "string"} | ({"description": about} if about else {})
        made["properties"][row["column"]] = column | ({"default": "computed"} if row["has_default"] else {})
        if row["required"]:
            made["required"].append(row["column"])
        paths[f"/{row['name']}"] = {"get": {}} | {method: {} for method in ("post", "patch", "delete") if row[method]}
    body = {"swagger": "2.0", "definitions": definitions, "paths": paths}
    return Response(json.dumps(body), media_type="application/openapi+json")


# -- errors


def problem_answer(status: int, body: dict[str, Any]) -> Response:
    headers = {"Proxy-Status": f"PostgREST; error={body['code']}"}
    return Response(json.dumps(body), status, headers, media_type="application/json; charset=utf-8")


def sql_answer(error: psycopg.Error, authenticated: bool) -> Response:
    code = error.sqlstate or "XX000"
    status = next((STATUSES[code[:n]] for n in (5, 2) if code[:n] in STATUSES), 400)
    body = {
        "code": code,
        "details": error.diag.message_detail,
        "hint": error.diag.message_hint,
        "message": error.diag.message_primary or str(error),
    }
    return problem_answer(status, body)
