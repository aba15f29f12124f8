"""SQL from typed arguments. Names are quoted, values are parameters; no text of a caller becomes SQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Identifier

from ..errors import ToolInputError
from .access import unknown
from .shapes import Filter, Order

_COMPARISONS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


@dataclass(frozen=True)
class Col:
    """A column as the catalogue has it."""

    name: str
    #: From format_type(): quoted by the server where it must be.
    type: str
    required: bool
    description: str

    @property
    def is_vector(self) -> bool:
        return self.type.rpartition(".")[2].startswith(("vector", "halfvec", "sparsevec"))

    @property
    def is_json(self) -> bool:
        return self.type in ("json", "jsonb")


@dataclass(frozen=True)
class Tab:
    """A table that the role may use."""

    schema: str
    name: str
    kind: str
    description: str
    columns: tuple[Col, ...]
    primary_key: tuple[str, ...]
    may: tuple[str, ...]

    @property
    def sql(self) -> Composable:
        return ident(self.schema, self.name)

    def column(self, name: str) -> Col:
        """Raises ToolInputError, with the likely name."""
        found = next((c for c in self.columns if c.name == name), None)
        if found is None:
            raise unknown(f"column in {self.name}", name, [c.name for c in self.columns])
        return found

    def chosen(self, names: Sequence[str]) -> list[str]:
        """The columns by name; of none all but vectors, which nobody reads."""
        if names:
            return [self.column(name).name for name in dict.fromkeys(names)]
        return [c.name for c in self.columns if not c.is_vector]


def ident(*names: str) -> Composable:
    """A quoted name. Its % are doubled: psycopg reads them as places of parameters."""
    return verbatim(Identifier(*names).as_string())


def verbatim(text: str) -> Composable:
    """Text of the server's own, such as a type's name."""
    return SQL(text.replace("%", "%%"))


def listed(names: Sequence[str]) -> Composed:
    return SQL(", ").join(map(ident, names))


def where(tab: Tab, filters: Sequence[Filter]) -> tuple[Composable, list[Any]]:
    """` WHERE ...` and its parameters; nothing for no filter."""
    parts: list[Composable] = []
    values: list[Any] = []
    for each in filters:
        part, parameters = _condition(tab, each)
        parts.append(part)
        values += parameters
    return (SQL(" WHERE ") + SQL(" AND ").join(parts) if parts else SQL("")), values


def order_by(tab: Tab, orders: Sequence[Order]) -> Composable:
    """` ORDER BY ...`, with the primary key last, so that pages neither overlap nor leave anything out."""
    named = [tab.column(order["column"]).name for order in orders]
    parts: list[Composable] = [
        ident(name) + SQL(" DESC NULLS LAST" if order.get("descending") else " ASC NULLS LAST")
        for name, order in zip(named, orders, strict=True)
    ]
    parts += [ident(name) for name in tab.primary_key if name not in named]
    return SQL(" ORDER BY ") + SQL(", ").join(parts) if parts else SQL("")


def same_columns(tab: Tab, rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns that all rows have.

    Raises:
        ToolInputError: rows that differ in that, or unknown columns.
    """
    first = rows[0]
    if not first:
        raise ToolInputError("The first row has no columns.")
    for position, row in enumerate(rows):
        if row.keys() != first.keys():
            differ = ", ".join(sorted(row.keys() ^ first.keys()))[:200]
            raise ToolInputError(f"rows[{position}] has other columns than rows[0]: {differ}. Give all rows the same.")
    return [tab.column(name).name for name in first]


def text_of(value: Any, what: str) -> str:
    """A scalar as Postgres reads it.

    Raises:
        ToolInputError
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float() | str():
            return _no_nul(str(value), what)
    raise ToolInputError(f"{what} takes one number or text, not {json.dumps(value)[:60]}. For null: op='is_null'.")


def _condition(tab: Tab, each: Filter) -> tuple[Composable, list[Any]]:
    column, op, value = tab.column(each["column"]), each["op"], each["value"]
    name = ident(column.name)
    if op in _COMPARISONS:
        return name + SQL(f" {_COMPARISONS[op]} %s"), [text_of(value, f"{op} on {column.name}")]
    if op in ("like", "ilike"):
        return name + SQL(f"::text {op.upper()} %s"), [text_of(value, f"{op} on {column.name}")]
    if op == "is_null":
        return name + SQL(" IS NULL" if checked_flag(value, column.name) else " IS NOT NULL"), []
    if op == "in":
        values = [text_of(item, f"in on {column.name}") for item in checked_list(value, column.name)]
        return name + SQL(" = ANY(%s::text[]::") + verbatim(f"{column.type}[])"), [values]
    return name + SQL(" @> %s"), [contained(column, value)]


def checked_flag(value: Any, column: str) -> bool:
    if not isinstance(value, bool):
        raise ToolInputError(f"is_null on {column} takes true or false.")
    return value


def checked_list(value: Any, column: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > 1000:
        raise ToolInputError(f"in on {column} takes a list of at most 1,000 values.")
    return value


def contained(column: Col, value: Any) -> Any:
    """What a json column or an array holds."""
    if column.is_json:
        return _no_nul(json.dumps(value), column.name)
    if column.type.endswith("[]") and isinstance(value, list):
        return array_text([text_of(item, f"contains on {column.name}") for item in value])
    raise ToolInputError(f"contains works on json and array columns; {column.name} is {column.type}.")


def array_text(items: Sequence[str]) -> str:
    """An array as Postgres writes it."""
    quoted = ('"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items)
    return "{" + ",".join(quoted) + "}"


def _no_nul(text: str, what: str) -> str:
    if "\0" in text:
        raise ToolInputError(f"{what}: Postgres keeps no NUL characters.")
    return text
