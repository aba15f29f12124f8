"""The tools' work through a project's API (PostgREST), by the `supabase` client.

What the API cannot do is said, not pretended: there are no transactions over several requests, so an update's former
values are read just before, a bulk upsert goes in batches of its own, and a write that may have been applied by an
earlier attempt is only sent again where that changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import httpx
from postgrest import APIError
from postgrest.types import CountMethod
from supabase import AsyncClient, AsyncClientOptions

from ..context import ToolContext
from ..errors import BudgetExceeded, ToolDenied, ToolError, ToolInputError, UpstreamError
from .access import claims_of, function_of, outcome_unknown, project_of, shown, table_of, unknown
from .connections import TooLarge
from .postgres import KEYS_TOLD, check_at_most, check_conflict, vector_text
from .problems import problem
from .shapes import Column, Filter, Match, Order, TableInfo, TablePage
from .statements import array_text, checked_flag, checked_list, text_of
from .tokens import check_key, signed

#: What the API's query can name without being read as something else.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
#: Names of parameters that are no columns.
_RESERVED = {"select", "order", "limit", "offset", "and", "or", "not", "columns", "on_conflict"}

T = TypeVar("T")


class Rest:
    """`backend.Tables`."""

    def __init__(self, ctx: ToolContext) -> None:
        project = project_of(ctx)
        check_key(project.key)
        if ctx.pins.customer_required and not project.jwt_secret:
            raise ToolDenied("Without jwt_secret the project cannot tell customers apart.")
        self._ctx = ctx
        self._project = project
        token = signed(claims_of(ctx), project.jwt_secret) if project.jwt_secret else project.key
        options = AsyncClientOptions(
            headers={"Authorization": f"Bearer {token}"},
            auto_refresh_token=False,
            persist_session=False,
            httpx_client=project.connections.http(project),
        )
        self._client = AsyncClient(project.url, project.key, options)

    async def list_tables(self) -> list[TableInfo]:
        listed: list[TableInfo] = []
        for schema in self._project.schemas:
            for name, page in (await self._pages(schema)).items():
                if not self._ctx.pins.customer_required or name in self._project.customer_may:
                    told = page["description"]
                    listed.append({"table": name, "kind": "table", "description": told, "may": page["may"]})
        return listed

    async def describe(self, table: str) -> TablePage:
        schema, name = table_of(self._ctx, table)
        pages = await self._pages(schema)
        wanted = shown(self._ctx, schema, name)
        if wanted not in pages:
            raise unknown("table", wanted, list(pages))
        return pages[wanted]

    async def select(
        self,
        table: str,
        columns: Sequence[str],
        filters: Sequence[Filter],
        order: Sequence[Order],
        limit: int,
        offset: int,
    ) -> list[dict[str, Any]]:
        query = self._table(table).select(*([_plain(name) for name in columns] or ["*"]))
        query = _filtered(query, filters)
        for each in order:
            query = query.order(_plain(each["column"]), desc=each.get("descending", False), nullsfirst=False)
        if offset:
            query = query.offset(offset)
        return _rows((await self._ask(query.limit(limit).execute)).data)

    async def stream(
        self, table: str, columns: Sequence[str], filters: Sequence[Filter], order: Sequence[Order]
    ) -> AsyncIterator[list[dict[str, Any]]]:
        if not order:
            raise ToolInputError(
                "Through the project's API rows stream by pages, which want an `order` by columns that tell rows apart."
            )
        offset, size = 0, self._project.batch_rows
        while batch := await self.select(table, columns, filters, order, size, offset):
            yield batch
            offset += len(batch)

    async def count(self, table: str, filters: Sequence[Filter]) -> int:
        query = _filtered(self._table(table).select("*", count=CountMethod.exact, head=True), filters)
        found = await self._ask(query.execute)
        if found.count is None:
            raise UpstreamError("The project's API did not say how many rows there are.")
        return int(found.count)

    async def nearest(
        self,
        table: str,
        column: str,
        vector: Sequence[float],
        columns: Sequence[str],
        filters: Sequence[Filter],
        limit: int,
    ) -> list[Match]:
        raise ToolDenied(
            "Through its API a project is searched by a function of its own only.",
            hint="Use match_documents, or have the operator set database_url.",
        )

    async def insert(self, tool: str, table: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        if self._ctx.resuming:
            raise outcome_unknown("insert rows")
        columns = _same(rows)
        batches = self._batches(rows)
        if len(batches) > 1:  # two requests cannot be one
            raise ToolInputError(
                f"Through the project's API an insert takes {self._project.batch_rows} rows at most.",
                hint="Use upsert_rows, which may be repeated, for more.",
            )
        done = _rows((await self._ask(self._table(table).insert(batches[0]).execute, write=True)).data)
        keys = [{name: row[name] for name in row if name == "id" or name not in columns} for row in done]
        return {"inserted": len(done), "keys": keys[:KEYS_TOLD]}

    async def upsert(
        self, tool: str, table: str, rows: Sequence[dict[str, Any]], on_conflict: Sequence[str], keep: bool
    ) -> dict[str, Any]:
        columns = _same(rows)
        if on_conflict:
            check_conflict(table, [_plain(name) for name in on_conflict], columns)
        elif self._ctx.resuming:
            raise outcome_unknown("upsert rows without on_conflict")
        touched = 0
        for batch in self._batches(rows):
            builder = self._table(table)
            names = ",".join(on_conflict)
            query = builder.upsert(batch, on_conflict=names, ignore_duplicates=keep).select(
                on_conflict[0] if on_conflict else columns[0]
            )
            touched += len(_rows((await self._ask(query.execute, write=True)).data))
        return {"rows": touched}

    async def update(
        self, tool: str, table: str, values: Mapping[str, Any], filters: Sequence[Filter], at_most: int
    ) -> dict[str, Any]:
        if self._ctx.resuming:
            raise outcome_unknown("update rows")
        _same([dict(values)])
        before = _rows(
            (await self._ask(_filtered(self._table(table).select("*"), filters).limit(at_most + 1).execute)).data
        )
        check_at_most(len(before), at_most)
        query = _filtered(self._table(table).update(dict(values)), filters).max_affected(at_most)
        done = _rows((await self._ask(query.execute, write=True)).data)
        return {"updated": len(done), "before": before}

    async def delete(self, tool: str, table: str, filters: Sequence[Filter], at_most: int) -> dict[str, Any]:
        if self._ctx.resuming:
            raise outcome_unknown("delete rows")
        query = _filtered(self._table(table).delete(), filters).max_affected(at_most)
        done = _rows((await self._ask(query.execute, write=True)).data)
        return {"deleted": len(done), "before": done}

    async def call(self, tool: str, function: str, arguments: Mapping[str, Any], *, read_only: bool) -> Any:
        schema, name = function_of(self._ctx, function)
        if not read_only and self._ctx.resuming:
            raise outcome_unknown(f"call {name}")
        for key in arguments:
            _plain(key)
        given = {key: _argument(value) for key, value in arguments.items() if not (read_only and value is None)}
        # GET runs in a read-only transaction
        query = self._client.postgrest.schema(schema).rpc(_plain(name), given, get=read_only)
        return (await self._ask(query.execute, write=not read_only)).data

    def _table(self, table: str) -> Any:
        schema, name = table_of(self._ctx, table)
        return self._client.postgrest.schema(schema).from_(_plain(name))

    async def _ask(self, execute: Callable[[], Awaitable[T]], *, write: bool = False) -> T:
        """
        Raises:
            ToolError
        """
        try:
            return await execute()
        except APIError as error:
            failure = _api_problem(error)
            if write and isinstance(failure, UpstreamError):
                failure.data["outcome"] = "unknown"
            raise failure from None
        except TooLarge:
            raise BudgetExceeded(
                f"The answer takes more than {self._project.result_mb} MiB.",
                hint="Name fewer columns, or ask for fewer rows at once.",
                data={"budget": "supabase.result_mb"},
            ) from None
        except httpx.HTTPError as error:
            what = "did not answer" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
            failure = UpstreamError(
                f"The project's API {what}.", data={"outcome": "unknown"} if write else {"error": type(error).__name__}
            )
            failure.retryable = not write
            raise failure from None

    async def _pages(self, schema: str) -> dict[str, TablePage]:
        """What the API says of its tables, as OpenAPI 2.0; by name as the tools take it."""
        client = self._client.postgrest.schema(schema)
        url = str(client.base_url).rstrip("/") + "/"
        headers = {**dict(client.headers), "Accept": "application/openapi+json"}

        async def get() -> httpx.Response:
            return await client.session.get(url, headers=headers)

        answer = await self._ask(get)
        if answer.status_code in (401, 403, 404):
            raise ToolDenied(
                "The project's API does not list its tables to this key.",
                hint="The tools work on a table whose name is known; or have the operator set database_url.",
            )
        if answer.is_error:
            raise UpstreamError(f"The project's API answered {answer.status_code}.")
        document = answer.json()
        pages: dict[str, TablePage] = {}
        for name, definition in document.get("definitions", {}).items():
            methods = document.get("paths", {}).get(f"/{name}", {})
            pages[shown(self._ctx, schema, name)] = _page(shown(self._ctx, schema, name), definition, methods)
        return pages

    def _batches(self, rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        size = self._project.batch_rows
        return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


_RIGHTS = {"get": "select", "post": "insert", "patch": "update", "delete": "delete"}


def _page(name: str, definition: Mapping[str, Any], methods: Mapping[str, Any]) -> TablePage:
    properties = definition.get("properties", {})
    required = definition.get("required", [])
    columns: list[Column] = [
        {
            "name": column,
            "type": str(about.get("format") or about.get("type") or ""),
            "required": column in required and "default" not in about,
            "description": str(about.get("description") or "").partition("Note:\nThis is a")[0].strip()[:500],
        }
        for column, about in properties.items()
    ]
    return {
        "table": name,
        "description": str(definition.get("description") or "")[:500],
        "columns": columns,
        # PostgREST marks them in the description
        "primary_key": [c for c, about in properties.items() if "<pk/>" in str(about.get("description") or "")],
        "may": [right for method, right in _RIGHTS.items() if method in methods],
    }


def _filtered(query: Any, filters: Sequence[Filter]) -> Any:
    for each in filters:
        column, op, value = _plain(each["column"]), each["op"], each["value"]
        if op == "is_null":
            query = query.is_(column, None) if checked_flag(value, column) else query.not_.is_(column, None)
        elif op == "in":
            query = query.in_(column, [text_of(item, f"in on {column}") for item in checked_list(value, column)])
        elif op == "contains":
            query = query.filter(column, "cs", _contained(value))
        else:
            query = query.filter(column, op, text_of(value, f"{op} on {column}"))
    return query


def _contained(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return array_text([text_of(item, "contains") for item in value])
    return json.dumps(value)


def _plain(name: str) -> str:
    """A name that cannot be anything else in the API's query.

    Raises:
        ToolInputError
    """
    if not _PLAIN.fullmatch(name) or name in _RESERVED:
        raise ToolInputError(f"Through the project's API the name {name[:63]!r} cannot be used: letters, digits, _.")
    return name


def _same(rows: Sequence[dict[str, Any]]) -> list[str]:
    first = rows[0]
    for position, row in enumerate(rows):
        if row.keys() != first.keys() or not row:
            raise ToolInputError(f"rows[{position}] has other columns than rows[0], or none. Give all rows the same.")
    return [_plain(name) for name in first]


def _argument(value: Any) -> Any:
    """Vectors go as text, which PostgREST casts."""
    if isinstance(value, list) and value and all(isinstance(item, float) for item in value):
        return vector_text(value)
    return value


def _rows(data: Any) -> list[dict[str, Any]]:
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise UpstreamError("The project's API answered with something else than rows.")
    return data


def _api_problem(error: APIError) -> ToolError:
    """Its `details` quote rows that the session may not see, so they are left out."""
    code = str(error.code or "")
    if code in ("401", "403"):
        return ToolDenied("The project's API refuses the key.", data={"code": code})
    if code == "429":
        failure: ToolError = UpstreamError("The project's API asks to wait.", data={"code": code})
        failure.retryable = True
        return failure
    return problem(code, str(error.message or "The project's API failed."), str(error.hint or ""))
