"""Files of conversations and orders (Parquet or CSV) as what `load` writes, a batch at a time. Blocking.

The columns are found by their usual names. What a file says in a way of its own is put in order by these rules:
several intents joined by `<div>` become several; conversations without times are spread evenly over the days that the
caller names, and say so (`dated`); an invoice number that begins with C is a cancellation, with A a correction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

from .load import MOST, Line, Message, PlacedOrder

_MESSAGE_COLUMNS = {
    "conversation": ("conversation", "conversation_id", "session", "dialogue_id"),
    "seq": ("seq", "turn", "turn_number"),
    "text": ("text", "utterance", "message"),
    "intents": ("intents", "intent"),
    "role": ("role", "speaker", "author"),
    "at": ("at", "time", "timestamp", "created_at"),
}
_ORDER_COLUMNS = {
    "number": ("InvoiceNo", "Invoice", "number", "order_id"),
    "sku": ("StockCode", "sku"),
    "name": ("Description", "name"),
    "quantity": ("Quantity", "quantity"),
    "price": ("UnitPrice", "Price", "price"),
    "created": ("InvoiceDate", "created_at", "date"),
    "customer": ("CustomerID", "Customer ID", "customer_id"),
    "country": ("Country", "country"),
}
#: Between two turns where the file has no times.
_TURN = timedelta(seconds=20)


class FileProblem(Exception):
    """The file cannot be read as what it is said to be. The message says what is missing."""


def messages_of(
    path: Path, where: Mapping[str, str] | None = None, begins: datetime | None = None, days: float = 30
) -> Iterator[list[Message]]:
    """A file's messages; a conversation whose rows follow each other is in one batch, if it is no longer than that.

    `where`: only rows with these values, by column. `begins`, `days`: over which time conversations are spread where
    the file has none.

    Raises:
        FileProblem
    """
    rows = _Rows(path, _MESSAGE_COLUMNS, ("conversation", "seq", "text"), where or {})
    clock = None
    if "at" not in rows.columns:
        begins = begins or datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)
        order = {name: n for n, name in enumerate(rows.distinct("conversation"))}
        step = timedelta(days=days) / max(len(order), 1)
        clock = {name: begins + n * step for name, n in order.items()}
    yield from _in_batches(
        [_message(row, clock) for row in conversation] for _, conversation in groupby(rows, lambda r: r["conversation"])
    )


def orders_of(path: Path, where: Mapping[str, str] | None = None, currency: str = "GBP") -> Iterator[list[PlacedOrder]]:
    """A file of order lines as orders. Sorted by order first, which holds the file's columns in memory.

    Raises:
        FileProblem
    """
    rows = _Rows(path, _ORDER_COLUMNS, ("number", "sku", "quantity", "price", "created"), where or {}, sort="number")
    batch: list[PlacedOrder] = []
    size = 0
    for number, lines in groupby(rows, lambda row: str(row["number"])):
        order = _order(number, list(lines), currency)
        if batch and size + len(order.lines) > MOST:
            yield batch
            batch, size = [], 0
        batch.append(order)
        size += len(order.lines)
    if batch:
        yield batch


def _message(row: dict[str, Any], clock: Mapping[Any, datetime] | None) -> Message:
    intents = row.get("intents")
    words = re.split(r"<div>|[,|]", intents) if isinstance(intents, str) else list(intents or ())
    seq = int(row["seq"])
    return Message(
        conversation=str(row["conversation"]),
        seq=seq,
        at=_moment(row["at"]) if clock is None else clock[row["conversation"]] + seq * _TURN,
        dated=clock is None,
        role="agent" if str(row.get("role", "")).lower() in ("agent", "assistant", "system", "bot") else "customer",
        text=row["text"] or "",
        intents=tuple(dict.fromkeys("_".join(w.lower().split()) for w in words if w.strip())),
    )


def _order(number: str, lines: Sequence[dict[str, Any]], currency: str) -> PlacedOrder:
    digits = re.sub(r"\D", "", number)
    if not digits or len(digits) > 18:
        raise FileProblem(f"The order number {number!r} has no digits to know it by.")
    first = lines[0]
    return PlacedOrder(
        id=int(digits),
        number=number,
        customer=next((int(line["customer"]) for line in lines if line.get("customer") is not None), 0),
        status={"C": "refunded", "A": "adjusted"}.get(number[:1].upper(), "completed"),
        currency=currency,
        created=_moment(first["created"]),
        country=str(first.get("country") or ""),
        lines=tuple(_line(line) for line in lines),
    )


def _line(row: dict[str, Any]) -> Line:
    quantity = Decimal(str(row["quantity"]))
    # a price is a float in most files: its shortest digits are what was meant
    total = quantity * Decimal(str(row["price"] if row["price"] is not None else 0))
    return Line(sku=str(row["sku"] or ""), name=str(row.get("name") or ""), quantity=str(quantity), total=str(total))


def _moment(value: Any) -> datetime:
    if not isinstance(value, datetime):
        try:
            value = datetime.fromisoformat(str(value))
        except ValueError:
            raise FileProblem(f"{str(value)[:40]!r} is no ISO 8601 time.") from None
    moment: datetime = value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _in_batches(groups: Iterable[list[Message]]) -> Iterator[list[Message]]:
    batch: list[Message] = []
    for group in groups:
        if batch and len(batch) + len(group) > MOST:
            yield batch
            batch = []
        batch += group
        while len(batch) > MOST:
            yield batch[:MOST]
            batch = batch[MOST:]
    if batch:
        yield batch


class _Rows:
    """Rows of a file by our names of its columns, read as they are asked for."""

    def __init__(
        self,
        path: Path,
        known: Mapping[str, Sequence[str]],
        needed: Sequence[str],
        where: Mapping[str, str],
        sort: str = "",
    ) -> None:
        import pyarrow
        from pyarrow import dataset

        kind = "csv" if path.suffix.lower() == ".csv" else "parquet"
        try:
            self._data = dataset.dataset(str(path), format=kind)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise FileProblem(f"{path} cannot be read as {kind}: {str(error).splitlines()[0]}") from None
        names = self._data.schema.names
        self.columns = {ours: found for ours, theirs in known.items() if (found := _first(theirs, names))}
        if missing := [ours for ours in needed if ours not in self.columns]:
            wanted = "; ".join(f"{ours}: {', '.join(known[ours])}" for ours in missing)
            raise FileProblem(f"{path} has no column for {wanted}. It has: {', '.join(names)}.")
        self._filter = None
        self._sort = sort
        for name, value in where.items():
            if name not in names:
                raise FileProblem(f"{path} has no column {name!r}. It has: {', '.join(names)}.")
            test = dataset.field(name).cast(pyarrow.string()) == value
            self._filter = test if self._filter is None else self._filter & test

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._batches(list(self.columns.values())):
            for row in batch.to_pylist():
                yield {ours: row[found] for ours, found in self.columns.items()}

    def _batches(self, columns: list[str]) -> Any:
        import pyarrow

        if not self._sort:
            return self._data.to_batches(columns=columns, filter=self._filter, batch_size=MOST)
        table = self._data.to_table(columns=columns, filter=self._filter)
        places = pyarrow.array(range(table.num_rows), pyarrow.int64())
        order = [(self.columns[self._sort], "ascending"), ("", "ascending")]
        return table.append_column("", places).sort_by(order).to_batches(max_chunksize=MOST)

    def distinct(self, column: str) -> list[Any]:
        """In the order in which they come."""
        found = self._data.to_table(columns=[self.columns[column]], filter=self._filter).column(0)
        return list(found.unique().to_pylist())


def _first(theirs: Sequence[str], names: Sequence[str]) -> str:
    return next((name for name in theirs if name in names), "")
