"""Results that are tables: declared by their columns, sent as Arrow, a pandas DataFrame in the cell.

    class OrderLine(TypedDict):
        order_id: int
        placed: datetime
        total: float | None

    @tool(effect="read", roles=STAFF)
    async def export_lines(ctx: ToolContext, *, since: date) -> Table[OrderLine]:
        \"\"\"Every order line since a day.\"\"\"
        return Table(await rows(since))

pyarrow is imported when the first table is made, not before.
"""

from __future__ import annotations

import datetime
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NotRequired, Required, TypeVar, is_typeddict

from .errors import OutputSchemaError

if TYPE_CHECKING:
    import pyarrow

Row = TypeVar("Row")


class Table(Generic[Row]):
    """A table with the columns of `Row`, a TypedDict. A column may be missing where it is NotRequired, null where it
    may be None.

    `data`: a pyarrow Table or RecordBatch, a pandas DataFrame, rows, or columns by name.
    """

    __slots__ = ("data",)

    def __init__(self, data: Sequence[Row] | Mapping[str, Sequence[Any]] | Any) -> None:
        self.data = data


def row_type(annotation: Any) -> type | None:
    """`Row` of `Table[Row]`; None where the annotation is no table."""
    if typing.get_origin(annotation) is not Table:
        return None
    (row,) = typing.get_args(annotation)
    return typing.cast(type, row)


@lru_cache(maxsize=1024)
def schema_of(row: type) -> pyarrow.Schema:
    """The columns of a TypedDict as an Arrow schema.

    Raises:
        TypeError: a column has a type that no table has.
    """
    import pyarrow

    if not is_typeddict(row):
        raise TypeError(f"Table[{getattr(row, '__name__', row)}]: columns are declared by a TypedDict")
    hints = typing.get_type_hints(row, include_extras=True)
    return pyarrow.schema([_field(name, hint) for name, hint in hints.items()])


def columns_text(row: type) -> str:
    """For people: `order_id: int, placed: datetime, total: float | None`."""
    from .rendering import annotation_of

    hints = typing.get_type_hints(row, include_extras=True)
    return ", ".join(f"{name}: {annotation_of(_unwrapped(hint)[0])}" for name, hint in hints.items())


def to_arrow(tool: str, value: object, row: type) -> pyarrow.Table:
    """`value` with the declared columns, in their order and types; others are dropped.

    Raises:
        OutputSchemaError: a column is missing, null where it may not be, or cannot be of its type.
    """
    import pyarrow

    schema = schema_of(row)
    data = value.data if isinstance(value, Table) else value
    try:
        table = _table(data, schema)
    except (pyarrow.ArrowException, KeyError, TypeError, ValueError, OverflowError) as error:
        raise OutputSchemaError(f"{tool}: the result does not fit the declared columns: {_short(error)}") from None
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise OutputSchemaError(f"{tool}: column {field.name!r} has empty values, and none were declared (| None).")
    for name, allowed in _choices(row).items():
        _check_choices(tool, table, name, allowed)
    return table


def to_ipc(table: pyarrow.Table) -> bytearray:
    """The table as one Arrow IPC stream. Measured first, as copies of many megabytes are what a table costs."""
    import pyarrow

    measure = pyarrow.MockOutputStream()
    _write(measure, table)
    data = bytearray(measure.size())
    _write(pyarrow.FixedSizeBufferWriter(pyarrow.py_buffer(data)), table)
    return data


def _write(sink: Any, table: pyarrow.Table) -> None:
    import pyarrow

    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def to_rows(data: bytes | bytearray) -> list[dict[str, Any]]:
    """The rows of an Arrow IPC stream as plain JSON values: dates as ISO text, decimals as text."""
    import pyarrow

    return [_plain(row) for row in pyarrow.ipc.open_stream(data).read_all().to_pylist()]


def shape_of(data: bytes | bytearray) -> dict[str, Any]:
    """How many rows an Arrow IPC stream has, and its columns' types by name."""
    import pyarrow

    with pyarrow.ipc.open_stream(data) as reader:
        schema, rows = reader.schema, sum(batch.num_rows for batch in reader)
    return {"rows": rows, "columns": {field.name: str(field.type) for field in schema}}


def _table(data: Any, schema: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow

    if isinstance(data, pyarrow.RecordBatch):
        data = pyarrow.Table.from_batches([data])
    if not isinstance(data, pyarrow.Table):
        if type(data).__module__.partition(".")[0] == "pandas":
            data = pyarrow.Table.from_pandas(data, preserve_index=False)
        elif isinstance(data, Mapping):
            data = pyarrow.table({name: data[name] for name in schema.names if name in data})
        else:
            return pyarrow.Table.from_pylist(list(data), schema=schema)
    if data.schema.equals(schema):
        return data.replace_schema_metadata(None)
    columns = []
    for field in schema:
        if field.name in data.column_names:
            columns.append(data.column(field.name).cast(field.type))
        elif field.nullable:
            columns.append(pyarrow.nulls(data.num_rows, field.type))
        else:
            raise KeyError(f"there is no column {field.name!r}")
    return pyarrow.table(columns, schema=schema)


def _field(name: str, hint: Any) -> pyarrow.Field:
    import pyarrow

    inner, nullable = _unwrapped(hint)
    alternatives = typing.get_args(inner) if typing.get_origin(inner) in (typing.Union, types.UnionType) else (inner,)
    plain = [each for each in alternatives if each is not types.NoneType]
    if len(plain) != 1:
        raise TypeError(f"column {name!r}: a column has one type, which may be `| None`")
    return pyarrow.field(name, _type(name, plain[0]), nullable=nullable or len(plain) < len(alternatives))


def _type(name: str, hint: Any) -> pyarrow.DataType:
    import pyarrow

    hint, _ = _unwrapped(hint)
    known = {
        bool: pyarrow.bool_(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        str: pyarrow.large_string(),
        bytes: pyarrow.large_binary(),
        datetime.datetime: pyarrow.timestamp("us", tz="UTC"),
        datetime.date: pyarrow.date32(),
        datetime.time: pyarrow.time64("us"),
        datetime.timedelta: pyarrow.duration("us"),
        Decimal: pyarrow.decimal128(38, 9),
    }
    if hint in known:
        return known[hint]
    origin = typing.get_origin(hint)
    if origin is Literal and all(isinstance(each, str) for each in typing.get_args(hint)):
        return pyarrow.large_string()
    if origin is list:
        return pyarrow.large_list(_field("item", typing.get_args(hint)[0]))
    if is_typeddict(hint):
        return pyarrow.struct(list(schema_of(hint)))
    raise TypeError(
        f"column {name!r}: {hint} is no type of a column; str, int, float, bool, datetime, date, Decimal are"
    )


def _unwrapped(hint: Any) -> tuple[Any, bool]:
    """Without Annotated, Required and NotRequired; and whether it is NotRequired."""
    missing = False
    while typing.get_origin(hint) in (Annotated, NotRequired, Required):
        missing |= typing.get_origin(hint) is NotRequired
        hint = typing.get_args(hint)[0]
    return hint, missing


@lru_cache(maxsize=1024)
def _choices(row: type) -> dict[str, tuple[str, ...]]:
    hints = typing.get_type_hints(row, include_extras=True)
    found = {name: _unwrapped(hint)[0] for name, hint in hints.items()}
    return {name: typing.get_args(hint) for name, hint in found.items() if typing.get_origin(hint) is Literal}


def _check_choices(tool: str, table: pyarrow.Table, name: str, allowed: tuple[str, ...]) -> None:
    import pyarrow.compute

    for value in pyarrow.compute.unique(table.column(name)).to_pylist():
        if value is not None and value not in allowed:
            raise OutputSchemaError(f"{tool}: column {name!r} has {value[:60]!r}, which is none of {allowed}.")


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case Decimal():
            return format(value.normalize(), "f")
        case datetime.timedelta():
            return value.total_seconds()
        case bytes():
            return value.hex()
    return value


def _short(error: Exception) -> str:
    return str(error.args[0] if isinstance(error, KeyError) else error).partition("\n")[0][:300]


def texts_of(table: pyarrow.Table) -> Iterator[tuple[str, bytes]]:
    """By column, the texts that it holds, nested ones included, one after the other as they lie in memory."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        if _holds_text(column.type):
            for chunk in column.chunks:
                yield from ((name, text) for text in _texts_of(chunk))


def _texts_of(chunk: pyarrow.Array) -> Iterator[bytes]:
    """A part of a larger column shares that one's memory: of flat texts only its own are taken."""
    import pyarrow

    buffers = chunk.buffers()
    if pyarrow.types.is_nested(chunk.type):
        yield from (buffer.to_pybytes() for buffer in buffers if buffer is not None)
    elif len(chunk) and buffers[2] is not None:
        ends = memoryview(buffers[1]).cast("q")
        start, end = ends[chunk.offset], ends[chunk.offset + len(chunk)]
        yield buffers[2].slice(start, end - start).to_pybytes()


def map_texts(table: pyarrow.Table, name: str, change: Callable[[str], str]) -> pyarrow.Table:
    """`table` with every text of one column changed."""
    import pyarrow

    def changed(value: Any) -> Any:
        match value:
            case str():
                return change(value)
            case bytes():
                return change(value.decode("latin-1")).encode("latin-1")
            case dict():
                return {key: changed(item) for key, item in value.items()}
            case list():
                return [changed(item) for item in value]
        return value

    index = table.schema.get_field_index(name)
    field = table.schema.field(index)
    values = [changed(value) for value in table.column(index).to_pylist()]
    return table.set_column(index, field, pyarrow.array(values, type=field.type))


def _holds_text(type_: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_nested(type_):
        return any(_holds_text(type_.field(i).type) for i in range(type_.num_fields))
    return bool(pyarrow.types.is_large_string(type_) or pyarrow.types.is_large_binary(type_))
