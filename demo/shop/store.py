"""The shop's state: a seed that never changes and, over it, what has been written since the last reset."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from demo.shop import templates
from demo.shop.seed import Resource, Seed, money

_FIRST_NEW_ID = 1_000_000


class Table:
    """Resources by id. Reading gives the stored object itself: only `edit` gives one that may be changed."""

    def __init__(self, seed: Mapping[int, Resource]) -> None:
        self._seed = seed
        self._written: dict[int, Resource] = {}
        self._removed: set[int] = set()

    def get(self, key: int) -> Resource | None:
        return None if key in self._removed else self._written.get(key) or self._seed.get(key)

    def __iter__(self) -> Iterator[Resource]:
        for key, resource in self._seed.items():
            if key not in self._removed:
                yield self._written.get(key, resource)
        for key, resource in self._written.items():
            if key not in self._seed and key not in self._removed:
                yield resource

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def edit(self, key: int) -> Resource:
        """A copy to be changed and handed to `put`. Raises KeyError."""
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return copy.deepcopy(found)

    def put(self, resource: Resource) -> None:
        moment = now()
        resource["date_modified"] = resource["date_modified_gmt"] = moment
        self._written[resource["id"]] = resource

    def remove(self, key: int) -> None:
        self._removed.add(key)

    def changes(self) -> dict[str, Any]:
        kept = {str(key): resource for key, resource in self._written.items() if key not in self._removed}
        return {"written": kept, "removed": sorted(self._removed)}

    def snapshot(self) -> tuple[dict[int, Resource], set[int]]:
        """What differs from the seed. What is stored is never changed in place, so a flat copy is one."""
        return dict(self._written), set(self._removed)

    def restore(self, written: Mapping[int, Resource], removed: Set[int]) -> None:
        self._written, self._removed = dict(written), set(removed)


@dataclass(frozen=True)
class Snapshot:
    """All that differs from a shop's seed, to be gone back to."""

    tables: Mapping[str, tuple[Mapping[int, Resource], Set[int]]]
    below: Mapping[str, Mapping[int, Sequence[Resource]]]
    next_id: int


class Store:
    """One shop. A request is handled without waiting in between, so that each write is whole."""

    def __init__(self, seed: Seed) -> None:
        self.categories = Table(seed.categories)
        self.products = Table(seed.products)
        self.variations = Table(seed.variations)
        self.customers = Table(seed.customers)
        self.orders = Table(seed.orders)
        self.coupons = Table({})
        self.webhooks = Table({})
        self.notes: dict[int, list[Resource]] = {}
        self.refunds: dict[int, list[Resource]] = {}
        self._next_id = _FIRST_NEW_ID
        self._untouched = self.snapshot()

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def reset(self) -> None:
        """Back to the seed, as if nothing had ever been written."""
        self.restore(self._untouched)

    def snapshot(self) -> Snapshot:
        below = {"notes": self.notes, "refunds": self.refunds}
        return Snapshot(
            {name: table.snapshot() for name, table in self._tables.items()},
            {name: {key: tuple(rows) for key, rows in kept.items()} for name, kept in below.items()},
            self._next_id,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """The shop as it was then, the ids that it gives next too."""
        for name, table in self._tables.items():
            table.restore(*snapshot.tables[name])
        self.notes = {key: list(rows) for key, rows in snapshot.below["notes"].items()}
        self.refunds = {key: list(rows) for key, rows in snapshot.below["refunds"].items()}
        self._next_id = snapshot.next_id

    def state(self) -> dict[str, list[Resource]]:
        """Everything that the retail data knows of, for comparing."""
        return {
            "products": list(self.products),
            "variations": list(self.variations),
            "customers": list(self.customers),
            "orders": list(self.orders),
        }

    def written(self) -> dict[str, Any]:
        """All that differs from the seed: for each kind what was written, by id, and the ids that were removed."""
        changed = {name: table.changes() for name, table in self._tables.items()}
        below = {"notes": self.notes, "refunds": self.refunds}
        return changed | {name: {str(key): rows for key, rows in kept.items()} for name, kept in below.items()}

    @property
    def _tables(self) -> dict[str, Table]:
        return {
            "categories": self.categories,
            "products": self.products,
            "variations": self.variations,
            "customers": self.customers,
            "orders": self.orders,
            "coupons": self.coupons,
            "webhooks": self.webhooks,
        }

    def merge_meta(
        self, kept: list[Resource], posted: Sequence[Mapping[str, Any]], *, item: bool = False
    ) -> list[Resource]:
        """meta_data as WooCommerce merges it: by id, else by key; a null value deletes; the rest stays.

        `item`: the entries of a line item also carry `display_key` and `display_value`.
        """
        merged = [dict(entry) for entry in kept]
        for entry in posted:
            found = self._find_meta(merged, entry)
            if found is None:
                found = {"id": self.new_id(), "key": entry.get("key", ""), "value": None}
                merged.append(found)
            found["key"] = entry.get("key", found["key"])
            found["value"] = entry.get("value")
            if item:
                found["display_key"], found["display_value"] = found["key"], found["value"]
        return [entry for entry in merged if entry["value"] is not None]

    @staticmethod
    def _find_meta(entries: list[Resource], wanted: Mapping[str, Any]) -> Resource | None:
        if wanted.get("id"):
            return next((entry for entry in entries if entry["id"] == wanted["id"]), None)
        same = [entry for entry in entries if entry["key"] == wanted.get("key")]
        for duplicate in same[1:]:
            duplicate["value"] = None
        return same[0] if same else None

    def merge_lines(self, kept: list[Resource], posted: Sequence[Mapping[str, Any]]) -> list[Resource]:
        """line_items as WooCommerce merges them: by id; without one a line is added; quantity 0 takes it away.

        Raises LookupError naming what does not exist.
        """
        merged = list(kept)
        for entry in posted:
            position = self._line_position(merged, entry)
            if entry.get("quantity") == 0 or ("product_id" in entry and entry["product_id"] is None):
                del merged[position]
                continue
            line = dict(merged[position])
            if entry.get("product_id") or entry.get("variation_id"):
                line |= self._product_of_line(entry, line)
            line |= {key: entry[key] for key in ("name", "quantity", "subtotal", "total") if key in entry}
            line["meta_data"] = self.merge_meta(line["meta_data"], entry.get("meta_data") or [], item=True)
            line["price"] = round(float(line["total"]) / max(line["quantity"], 1), 2)
            merged[position] = line
        return merged

    def _line_position(self, lines: list[Resource], entry: Mapping[str, Any]) -> int:
        if not entry.get("id"):
            lines.append(templates.LINE_ITEM | {"id": self.new_id()})
            return len(lines) - 1
        position = next((n for n, line in enumerate(lines) if line["id"] == entry["id"]), None)
        if position is None:
            raise LookupError("woocommerce_rest_invalid_item_id")
        return position

    def _product_of_line(self, entry: Mapping[str, Any], line: Resource) -> Resource:
        """Name, sku and options of a line's new product. Prices stay, as in WooCommerce, unless the line is new."""
        variation = self.variations.get(entry.get("variation_id") or 0)
        product = self.products.get(variation["parent_id"] if variation else entry.get("product_id") or 0)
        if product is None:
            raise LookupError("woocommerce_rest_required_product_reference")
        fields = {"name": product["name"], "product_id": product["id"], "parent_name": product["name"]}
        if variation is not None:
            options = [{"key": a["name"], "value": a["option"]} for a in variation["attributes"]]
            meta = self.merge_meta(line["meta_data"], options, item=True)
            fields |= {"variation_id": variation["id"], "sku": variation["sku"], "meta_data": meta}
            if not line["product_id"]:
                total = money(float(variation["price"]) * entry.get("quantity", 1))
                fields |= {"subtotal": total, "total": total}
        return fields


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
