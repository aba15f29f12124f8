"""The two ways to a tenant's tables behind one set of tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from ..context import ToolContext
from .access import project_of
from .postgres import Postgres
from .rest import Rest
from .shapes import Filter, Match, Order, TableInfo, TablePage


class Tables(Protocol):
    """One call's view of them. Every method raises ToolError. `tool` is the name of the tool, for the records."""

    async def list_tables(self) -> list[TableInfo]: ...

    async def describe(self, table: str) -> TablePage: ...

    async def select(
        self,
        table: str,
        columns: Sequence[str],
        filters: Sequence[Filter],
        order: Sequence[Order],
        limit: int,
        offset: int,
    ) -> list[dict[str, Any]]: ...

    def stream(
        self, table: str, columns: Sequence[str], filters: Sequence[Filter], order: Sequence[Order]
    ) -> AsyncIterator[list[dict[str, Any]]]: ...

    async def count(self, table: str, filters: Sequence[Filter]) -> int: ...

    async def nearest(
        self,
        table: str,
        column: str,
        vector: Sequence[float],
        columns: Sequence[str],
        filters: Sequence[Filter],
        limit: int,
    ) -> list[Match]: ...

    async def insert(self, tool: str, table: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]: ...

    async def upsert(
        self, tool: str, table: str, rows: Sequence[dict[str, Any]], on_conflict: Sequence[str], keep: bool
    ) -> dict[str, Any]: ...

    async def update(
        self, tool: str, table: str, values: Mapping[str, Any], filters: Sequence[Filter], at_most: int
    ) -> dict[str, Any]: ...

    async def delete(self, tool: str, table: str, filters: Sequence[Filter], at_most: int) -> dict[str, Any]: ...

    async def call(self, tool: str, function: str, arguments: Mapping[str, Any], *, read_only: bool) -> Any: ...


def tables_of(ctx: ToolContext) -> Tables:
    """Postgres itself where its URL is known, else the project's API.

    Raises:
        ToolDenied: the tenant has no project.
    """
    return Postgres(ctx) if project_of(ctx).database_url else Rest(ctx)
