"""The copy's tables: what is written to them and how. All SQL of the sync is here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import orjson

from ...context import Rows
from ...errors import ToolDenied
from .report import Counted, Counts, Kind, Tally
from .rows import Row


class Pass(msgspec.Struct, kw_only=True):
    """One reading of a list, from its beginning to its end, in one run or several."""

    #: All of the list; else what was modified since `since`.
    full: bool
    since: str = ""
    #: By our clock, ISO 8601.
    started: str
    #: The store's clock at its first answer.
    began: str = ""
    offset: int = 0
    frontier: int = 0
    hole: bool = False
    total: int | None = None
    #: Why the store's paging cannot be relied on; "" while it can.
    doubt: str = ""
    #: Products of the window under way whose variations are done.
    parents: list[int] = msgspec.field(default_factory=list)
    tally: Tally = msgspec.field(default_factory=Tally)


class State(msgspec.Struct, kw_only=True):
    """How far the sync of one kind is."""

    version: int = 0
    #: Beginning of the last full pass that was finished, by our clock.
    full_at: str = ""
    #: What the store modified before has been read, by its clock.
    read_until: str = ""
    current: Pass | None = None


@dataclass(frozen=True)
class Table:
    name: str
    #: Columns beside tenant, id, content_hash and data, with their types.
    columns: Mapping[str, str]

    @property
    def upsert(self) -> str:
        names = ("id", "content_hash", "data", *self.columns)
        types = {"id": "bigint", "content_hash": "text", "data": "jsonb", **self.columns}
        return (
            f"INSERT INTO {self.name} (tenant, {', '.join(names)})"  # noqa: S608 - constants
            f" SELECT current_setting('omniops.tenant'), {', '.join(names)} FROM json_to_recordset(%s::json)"
            f" AS given({', '.join(f'{name} {types[name]}' for name in names)})"
            f" ON CONFLICT (tenant, id) DO UPDATE SET"
            f" {', '.join(f'{name} = EXCLUDED.{name}' for name in names[1:])}, synced_at = now()"
        )


_STOCK = {"sku": "text", "price": "numeric", "stock_status": "text", "stock_quantity": "bigint"}
_MODIFIED = {"modified_at": "timestamptz"}
TABLES: dict[Counted, Table] = {
    "products": Table("store_product", {"name": "text", "type": "text", "status": "text", **_STOCK, **_MODIFIED}),
    "variations": Table("store_variation", {"parent_id": "bigint", **_STOCK, **_MODIFIED}),
    "customers": Table(
        "store_customer", {"email": "text", "first_name": "text", "last_name": "text", "created_at": "timestamptz"}
    ),
    "orders": Table(
        "store_order",
        {
            **{"number": "text", "customer_id": "bigint", "email": "text", "status": "text", "currency": "text"},
            **{"total": "numeric", "created_at": "timestamptz", **_MODIFIED},
        },
    ),
}
_ITEM = {
    **{"order_id": "bigint", "line": "bigint", "product_id": "bigint", "variation_id": "bigint", "sku": "text"},
    **{"name": "text", "quantity": "numeric", "total": "numeric"},
}
_INSERT_ITEMS = (
    f"INSERT INTO store_order_item (tenant, {', '.join(_ITEM)})"  # noqa: S608 - constants
    f" SELECT current_setting('omniops.tenant'), {', '.join(_ITEM)} FROM json_to_recordset(%s::json)"
    f" AS given({', '.join(f'{name} {type}' for name, type in _ITEM.items())})"
)


async def write(rows: Rows, kind: Counted, given: Iterable[Row]) -> Counts:
    """Write what differs from what is stored; nothing else is touched."""
    batch = {row.id: row for row in given}
    if not batch:
        return Counts()
    table = TABLES[kind]
    known = {
        found["id"]: found["content_hash"]
        for found in await rows.fetch(f"SELECT id, content_hash FROM {table.name} WHERE id = ANY(%s)", (list(batch),))  # noqa: S608 - constants
    }
    changed = [row for row in batch.values() if known.get(row.id) != row.content_hash]
    if changed:
        await rows.execute(table.upsert, (_json(_values(row) for row in changed),))
    if changed and kind == "orders":
        await rows.execute("DELETE FROM store_order_item WHERE order_id = ANY(%s)", ([row.id for row in changed],))
        items = ({"order_id": row.id, **item} for row in changed for item in row.items)
        await rows.execute(_INSERT_ITEMS, (_json(items),))
    created = sum(row.id not in known for row in changed)
    return Counts(created=created, updated=len(changed) - created, unchanged=len(batch) - len(changed))


async def mark_gone(rows: Rows, kind: Counted, seen: Sequence[int], low: int, high: int | None) -> None:
    """Note what is stored with an id in (low, high] and was not seen there. `high` None: no bound."""
    await rows.execute(
        f"INSERT INTO store_gone (tenant, kind, id) SELECT tenant, %(kind)s, id FROM {TABLES[kind].name}"  # noqa: S608 - constants
        " WHERE id > %(low)s AND (%(high)s::bigint IS NULL OR id <= %(high)s) AND id <> ALL(%(seen)s)"
        " ON CONFLICT DO NOTHING",
        {"kind": kind, "low": low, "high": high, "seen": list(seen)},
    )


async def mark_gone_of(rows: Rows, parents: Sequence[int], seen: Sequence[int]) -> None:
    """Note the variations of these products that were not seen."""
    await rows.execute(
        "INSERT INTO store_gone (tenant, kind, id) SELECT tenant, 'variations', id FROM store_variation"
        " WHERE parent_id = ANY(%s) AND id <> ALL(%s) ON CONFLICT DO NOTHING",
        (list(parents), list(seen)),
    )


async def forget_gone(rows: Rows, kind: Kind) -> None:
    kinds = ["products", "variations"] if kind == "products" else [kind]
    await rows.execute("DELETE FROM store_gone WHERE kind = ANY(%s)", (kinds,))


async def gone_and_stored(rows: Rows, kind: Counted) -> tuple[int, int]:
    """How many are noted as gone, and how many are stored."""
    table = TABLES[kind].name
    [found] = await rows.fetch(
        f"SELECT (SELECT count(*) FROM store_gone g JOIN {table} t ON t.tenant = g.tenant AND t.id = g.id"  # noqa: S608 - constants
        f" WHERE g.kind = %s) AS gone, (SELECT count(*) FROM {table}) AS stored",
        (kind,),
    )
    return found["gone"], found["stored"]


async def delete_gone(rows: Rows, kind: Counted) -> dict[Counted, int]:
    """Delete what is noted as gone, with what belongs to it; how many of each."""
    below: dict[Counted, int] = {}
    if kind == "products":
        below["variations"] = await rows.execute(
            "DELETE FROM store_variation v USING store_gone g"
            " WHERE g.kind = 'products' AND g.tenant = v.tenant AND g.id = v.parent_id"
        )
    if kind == "orders":
        await rows.execute(
            "DELETE FROM store_order_item i USING store_gone g"
            " WHERE g.kind = 'orders' AND g.tenant = i.tenant AND g.id = i.order_id"
        )
    deleted = await rows.execute(
        f"DELETE FROM {TABLES[kind].name} t USING store_gone g"  # noqa: S608 - constants
        " WHERE g.kind = %s AND g.tenant = t.tenant AND g.id = t.id",
        (kind,),
    )
    return {kind: deleted, **below}


async def load(rows: Rows, kind: Kind) -> State:
    found = await rows.fetch("SELECT version, state FROM store_sync WHERE kind = %s", (kind,))
    if not found:
        return State()
    state = msgspec.convert(found[0]["state"], State)
    state.version = found[0]["version"]
    return state


async def save(rows: Rows, kind: Kind, state: State) -> None:
    """Keep `state`, in the transaction that wrote what it tells of; its version is raised.

    Raises:
        ToolDenied: another sync has gone on from the same state; what this transaction wrote is to be given up.
    """
    kept = await rows.execute(
        "INSERT INTO store_sync (tenant, kind, version, state)"
        " VALUES (current_setting('omniops.tenant'), %(kind)s, %(next)s, %(state)s::jsonb)"
        " ON CONFLICT (tenant, kind) DO UPDATE SET version = EXCLUDED.version, state = EXCLUDED.state"
        " WHERE store_sync.version = EXCLUDED.version - 1",
        {"kind": kind, "next": state.version + 1, "state": msgspec.json.encode(state).decode()},
    )
    if not kept:
        raise ToolDenied(f"Another sync of the store's {kind} has gone on from here.", hint="Let it finish.")


def _values(row: Row) -> dict[str, object]:
    return {"id": row.id, "content_hash": row.content_hash, "data": orjson.Fragment(row.data), **row.columns}


def _json(values: Iterable[Mapping[str, object]]) -> str:
    return orjson.dumps(list(values)).decode()
