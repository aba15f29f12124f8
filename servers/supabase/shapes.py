"""What the tools take and return."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

#: A value as JSON has it: dates are ISO 8601 text, vectors text such as "[0.1,0.2]".
Value = Annotated[Any, Meta(description="any JSON value")]
Row = dict[str, Value]

Name = Annotated[str, Meta(min_length=1, max_length=63)]
Table = Annotated[str, Meta(description="such as 'orders' or 'sales.orders'", min_length=1, max_length=130)]
Columns = Annotated[list[Name], Meta(description="none: all but vectors", max_length=100)]

Operator = Literal["eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "in", "is_null", "contains"]


class Filter(TypedDict):
    column: Name
    op: Annotated[Operator, Meta(description="contains: of json and arrays; like: % and _ stand for anything")]
    value: Annotated[Any, Meta(description="JSON; for in a list, for is_null true or false")]


Filters = Annotated[list[Filter], Meta(description="rows that fit all of them", max_length=50)]
#: At least one: nobody changes a whole table by leaving out an argument.
SomeFilters = Annotated[list[Filter], Meta(description="rows that fit all of them", min_length=1, max_length=50)]


class Order(TypedDict):
    column: Name
    descending: NotRequired[bool]


class TableInfo(TypedDict):
    table: Annotated[str, Meta(description="as the other tools take it")]
    kind: Literal["table", "view"]
    description: str
    may: Annotated[list[str], Meta(description="of select, insert, update, delete")]


class Column(TypedDict):
    name: str
    type: Annotated[str, Meta(description="as Postgres writes it")]
    required: Annotated[bool, Meta(description="an insert must give it")]
    description: str


class TablePage(TypedDict):
    table: str
    description: str
    columns: list[Column]
    primary_key: list[str]
    may: list[str]


class Count(TypedDict):
    rows: int


class Inserted(TypedDict):
    inserted: int
    keys: Annotated[list[Row], Meta(description="primary keys of the new rows, the first 1,000")]


class Upserted(TypedDict):
    rows: int
    inserted: NotRequired[Annotated[int, Meta(description="of them new; absent where the API does not tell")]]


class Updated(TypedDict):
    updated: int
    before: Annotated[list[Row], Meta(description="primary key and former values of what was changed")]


class Deleted(TypedDict):
    deleted: int
    before: Annotated[list[Row], Meta(description="the rows as they were")]


class Called(TypedDict):
    result: Value


class Match(TypedDict):
    similarity: Annotated[float, Meta(description="cosine: 1 is the same, 0 unrelated")]
    row: Row
