"""What a sync says of itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, TypedDict, get_args

import msgspec
from msgspec import Meta

from ...work import Report

Kind = Literal["products", "customers", "orders"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: What is counted: variations are read with their products.
Counted = Literal["products", "variations", "customers", "orders"]

#: Failures that are told one by one; the others are counted.
FAILURES_TOLD = 50


class Counts(msgspec.Struct, kw_only=True):
    """Of one kind. What is `unchanged` was read and not written."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in Counts.__struct_fields__})

    @property
    def read(self) -> int:
        return self.created + self.updated + self.unchanged + self.failed


class Failure(TypedDict):
    kind: str
    id: Annotated[int, Meta(description="0: not known")]
    reason: str


class SyncReport(Report):
    """What a sync did."""

    counts: Annotated[
        dict[str, dict[str, int]],
        Meta(description="of products, variations, customers, orders: created, updated, unchanged, deleted, failed"),
    ]
    failures: Annotated[list[Failure], Meta(description=f"the first {FAILURES_TOLD}; counts have all")]
    notes: Annotated[list[str], Meta(description="what is out of the ordinary, such as deletions that were not made")]
    resumed: Annotated[bool, Meta(description="true: it went on where an interrupted run had stopped")]


class Tally(msgspec.Struct, kw_only=True):
    """Counts, failures and notes so far; part of the checkpoint, so that what was interrupted counts once."""

    counts: dict[str, Counts] = msgspec.field(default_factory=dict)
    failures: list[Failure] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    def count(self, kind: Counted, counts: Counts) -> None:
        self.counts[kind] = self.counts.get(kind, Counts()) + counts

    def fail(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            kind = failure["kind"]
            self.counts[kind] = self.counts.get(kind, Counts()) + Counts(failed=1)
            if len(self.failures) < FAILURES_TOLD:
                self.failures.append(failure)

    def note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < FAILURES_TOLD:
            self.notes.append(text)

    def merge(self, other: Tally) -> None:
        for kind, counts in other.counts.items():
            self.counts[kind] = self.counts.get(kind, Counts()) + counts
        self.failures = (self.failures + other.failures)[:FAILURES_TOLD]
        self.notes = [*self.notes, *(note for note in other.notes if note not in self.notes)]
