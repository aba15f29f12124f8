"""PostgREST's protocol in front of a real database: its queries, preferences, ranges, roles by JWT, and errors.

It does what docs.postgrest.org (v14: references/api/tables_views, functions, preferences, errors, auth) describes, as
far as clients of tables and functions use it; row-level security and types are Postgres' own. The real one is no
package of any registry that tests may use.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
import psycopg
from postgrest_parts import (
    Problem,
    as_json,
    columns_of,
    conditions,
    forbidden,
    known,
    openapi,
    order,
    preferences,
    primary_key,
    problem_answer,
    selected,
    sql_answer,
)
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Composable, Identifier
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


@dataclass
class Double:
    """One project's API. `lose_answer`: so many requests that write are applied, and their answers lost."""

    url: str
    secret: str
    anon_key: str
    schemas: tuple[str, ...] = ("public",)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    lose_answers: int = 0
    fail_before: int = 0
    lists_tables: bool = True

    def app(self) -> Starlette:
        every = ["GET", "HEAD", "POST", "PATCH", "DELETE"]
        return Starlette(
            routes=[
                Route("/rest/v1/", self.root, methods=["GET"]),
                Route("/rest/v1/rpc/{name}", self.rpc, methods=["GET", "HEAD", "POST"]),
                Route("/rest/v1/{name}", self.table, methods=every),
            ]
        )

    async def root(self, request: Request) -> Response:
        return await self._answer(request, openapi if self.lists_tables else forbidden)

    async def rpc(self, request: Request) -> Response:
        return await self._answer(request, _rpc)

    async def table(self, request: Request) -> Response:
        return await self._answer(request, _table)

    async def _answer(self, request: Request, work: Any) -> Response:
        self.requests.append((request.method, request.url.path, request.headers.get("prefer", "")))
        writes = request.method not in ("GET", "HEAD")
        if writes and self.fail_before:
            self.fail_before -= 1
            return Response("upstream connect error", 503)
        try:
            claims = self._claims(request)
            async with await AsyncConnection.connect(self.url, row_factory=dict_row) as connection:
                await self._begin(connection, request, claims, read_only=not writes)
                response: Response = await work(connection, request, self._schema(request))
        except Problem as problem:
            return problem_answer(problem.status, problem.body)
        except psycopg.Error as error:
            return sql_answer(error, "role" in request.headers.get("authorization", ""))
        if writes and self.lose_answers:
            self.lose_answers -= 1
            return Response("bad gateway", 502)  # after the commit, as a proxy says it
        return response

    def _claims(self, request: Request) -> dict[str, Any]:
        """The gateway before PostgREST wants the project's key; the token says the role."""
        if request.headers.get("apikey") != self.anon_key:
            raise Problem(401, "401", "Invalid API key")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token == self.anon_key and token.startswith("sb_publishable_"):
            return {"role": "anon"}
        if token.count(".") != 2:
            raise Problem(401, "PGRST301", f"Expected 3 parts in JWT; got {token.count('.') + 1}")
        try:
            return dict(jwt.decode(token, self.secret, algorithms=["HS256"], audience="authenticated"))
        except jwt.ExpiredSignatureError:
            raise Problem(401, "PGRST303", "JWT expired") from None
        except jwt.PyJWTError:
            raise Problem(401, "PGRST301", "No suitable key or wrong key type") from None

    def _schema(self, request: Request) -> str:
        name = "accept-profile" if request.method in ("GET", "HEAD") else "content-profile"
        schema = request.headers.get(name, self.schemas[0])
        if schema not in self.schemas:
            raise Problem(406, "PGRST106", f"Invalid schema: {schema}")
        return schema

    async def _begin(
        self, connection: AsyncConnection[DictRow], request: Request, claims: dict[str, Any], *, read_only: bool
    ) -> None:
        if read_only:
            await connection.set_read_only(True)
        await connection.execute(
            "SELECT set_config('role', %s, true), set_config('request.jwt.claims', %s, true),"
            " set_config('search_path', 'public, extensions', true)",
            (claims.get("role", "anon"), json.dumps(claims)),
        )


# -- tables


async def _table(connection: AsyncConnection[DictRow], request: Request, schema: str) -> Response:
    name = request.path_params["name"]
    columns = await columns_of(connection, schema, name)
    if not columns:
        raise Problem(404, "PGRST205", f"Could not find the table '{schema}.{name}' in the schema cache")
    table = Identifier(schema, name)
    where, values = conditions(request)
    match request.method:
        case "GET" | "HEAD":
            return await _select(connection, request, table, where, values)
        case "POST":
            return await _insert(connection, request, table, columns)
        case "PATCH":
            body = await request.json()
            known(body, columns, name)
            sets = SQL(", ").join(SQL("{0} = body.{0}").format(Identifier(key)) for key in body)
            statement = SQL("UPDATE {0} SET {1} FROM json_populate_record(NULL::{0}, %s::json) body").format(
                table, sets
            )
            where, values = conditions(request, table)
            return await _changed(connection, request, table, statement + where, [json.dumps(body), *values])
    return await _changed(connection, request, table, SQL("DELETE FROM {}").format(table) + where, values)


async def _select(
    connection: AsyncConnection[DictRow], request: Request, table: Composable, where: Composable, values: list[Any]
) -> Response:
    prefer = preferences(request)
    total = "*"
    if prefer.get("count") == "exact":
        counted = await (
            await connection.execute(SQL("SELECT count(*) AS n FROM {}").format(table) + where, values)
        ).fetchone()
        total = str(counted["n"]) if counted else "0"
    query = SQL("SELECT {} FROM {}").format(selected(request), table) + where + order(request)
    limit, offset = request.query_params.get("limit"), int(request.query_params.get("offset", 0))
    if limit is not None:
        query += SQL(" LIMIT %s")
        values = [*values, int(limit)]
    if offset:
        query += SQL(" OFFSET %s")
        values = [*values, offset]
    text, rows = await as_json(connection, query, values)
    if total != "*" and offset > int(total):
        details = f"An offset of {offset} was requested, but there are only {total} rows."
        raise Problem(416, "PGRST103", "Requested range not satisfiable", details)
    unit = f"{offset}-{offset + rows - 1}" if rows else "*"
    status = 206 if total != "*" and rows < int(total) else 200
    headers = {"Content-Range": f"{unit}/{total}"}
    return Response(b"" if request.method == "HEAD" else text, status, headers, media_type="application/json")


async def _insert(
    connection: AsyncConnection[DictRow], request: Request, table: Composable, columns: Sequence[str]
) -> Response:
    body = await request.json()
    rows = body if isinstance(body, list) else [body]
    wanted = request.query_params.get("columns")
    names = [part.strip('"') for part in wanted.split(",")] if wanted else list(rows[0])
    if not wanted and any(row.keys() != rows[0].keys() for row in rows):
        raise Problem(400, "PGRST102", "All object keys must match")
    known(names, columns, request.path_params["name"])
    listed = SQL(", ").join(map(Identifier, names))
    statement = SQL("INSERT INTO {0} ({1}) SELECT {1} FROM json_populate_recordset(NULL::{0}, %s::json)")
    statement = statement.format(table, listed)
    resolution = preferences(request).get("resolution")
    if resolution:
        target = [part.strip('"') for part in request.query_params.get("on_conflict", "").split(",") if part]
        keys = target or await primary_key(connection, table)
        conflict = SQL(" ON CONFLICT ({})").format(SQL(", ").join(map(Identifier, keys)))
        others = [n for n in names if n not in keys]
        if resolution == "ignore-duplicates" or not others:
            statement += conflict + SQL(" DO NOTHING")
        else:
            sets = SQL(", ").join(SQL("{0} = excluded.{0}").format(Identifier(n)) for n in others)
            statement += conflict + SQL(" DO UPDATE SET ") + sets
    return await _changed(connection, request, table, statement, [json.dumps(rows)], status=201)


async def _changed(
    connection: AsyncConnection[DictRow],
    request: Request,
    table: Composable,
    statement: Composable,
    values: Sequence[Any],
    *,
    status: int = 0,
) -> Response:
    prefer = preferences(request)
    whole = prefer.get("return") == "representation"
    if whole:
        everything = request.query_params.get("select", "*") == "*"
        target = SQL("{}.*").format(table) if everything else selected(request, table)
        cursor = await connection.execute(SQL("WITH done AS (") + statement + SQL(" RETURNING ") + target + SQL(
            ") SELECT coalesce(json_agg(done), '[]')::text AS body, count(*) AS n FROM done"), values)  # fmt: skip
        found = await cursor.fetchone()
        assert found is not None
        text, count = found["body"], found["n"]
    else:
        text, count = "", (await connection.execute(statement, values)).rowcount
    most = prefer.get("max-affected")
    if most is not None and prefer.get("handling") == "strict" and count > int(most):
        message = "Query result exceeds max-affected preference constraint"
        raise Problem(400, "PGRST124", message, f"The query affects {count} rows")
    applied = ", ".join(
        f"{k}={v}" for k, v in prefer.items() if k in ("resolution", "return", "handling", "max-affected")
    )
    return Response(
        text, status or (200 if whole else 204), {"Preference-Applied": applied}, media_type="application/json"
    )


# -- functions


async def _rpc(connection: AsyncConnection[DictRow], request: Request, schema: str) -> Response:
    name = request.path_params["name"]
    given = dict(request.query_params) if request.method != "POST" else await request.json()
    found = await (
        await connection.execute(
            "SELECT p.proretset AS many, p.proargnames::text[] AS names, p.pronargs AS inputs,"
            " ARRAY(SELECT format_type(k, NULL) FROM unnest(p.proargtypes::oid[]) k) AS types"
            " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = %s AND p.proname = %s",
            (schema, name),
        )
    ).fetchone()
    types = dict(zip((found["names"] or [])[: found["inputs"]], found["types"], strict=True)) if found else {}
    if found is None or not set(given) <= types.keys():
        signature = f"{schema}.{name}({', '.join(given)})"
        raise Problem(404, "PGRST202", f"Could not find the function {signature} in the schema cache")
    arguments = SQL(", ").join(SQL("{} => %s::{}").format(Identifier(k), SQL(types[k])) for k in given)
    values = [json.dumps(v) if isinstance(v, dict | list) else v for v in given.values()]
    called = SQL("{}({})").format(Identifier(schema, name), arguments)
    shape = "coalesce(json_agg(r), '[]')" if found["many"] else "to_json(r)"
    query = f"SELECT {shape}::text AS body FROM {{}} r"
    row = await (await connection.execute(SQL(query).format(called), values)).fetchone()
    return Response(row["body"] if row and row["body"] else "null", media_type="application/json")
