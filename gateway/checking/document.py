"""The text that the type checker gets: what the session ran before, as far as the cell needs it, and then the cell.

What an earlier cell bound has the type that the checker finds for it there. A name whose value may be something else by
now (its cell came to an error, a function rebound it, something changed it in place) is bound to nothing known: it is
anything, and no complaint comes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.checking.messages import Earlier
from gateway.checking.names import Names, names_of
from gateway.checking.source import NoPython, Source, read

#: A module that is never there: what comes from it may be anything.
_UNKNOWN = "__unknown__"


@dataclass(frozen=True)
class Document:
    text: str
    #: Lines before the cell's first.
    offset: int
    #: Names that the cell uses and an earlier one gave a type.
    typed: tuple[str, ...]


@dataclass(frozen=True)
class Ran:
    """An earlier cell, read."""

    source: Source
    names: Names
    ok: bool
    changed: frozenset[str]


def read_earlier(earlier: Iterable[Earlier]) -> list[Ran]:
    """Those that are Python: others did not run."""
    ran = []
    for cell in earlier:
        try:
            source = read(cell.code)
        except (NoPython, RecursionError, MemoryError):
            continue
        ran.append(Ran(source, names_of(source), cell.ok, frozenset(cell.changed)))
    return ran


def compose(cell: Source, ran: Sequence[Ran]) -> Document:
    names = names_of(cell)
    needed = set(names.used)
    chosen: list[Ran] = []
    for earlier in reversed(ran):
        if earlier.ok and (earlier.names.bound & needed or earlier.names.stars):
            needed |= earlier.names.used
            chosen.append(earlier)
    picked = set(map(id, chosen))
    rebound = {name for earlier in ran for name in earlier.names.global_} | set(names.global_)
    parts: list[str] = []
    typed: set[str] = set()
    for earlier in ran:
        lost = set(earlier.changed - earlier.names.bound) | (rebound & earlier.names.bound)
        if id(earlier) in picked:
            parts.append(earlier.source.text.rstrip("\n") + "\n")
            typed |= earlier.names.bound
        if not earlier.ok:
            lost |= earlier.names.bound
        lost &= needed
        if lost:
            parts.append(f"from {_UNKNOWN} import {', '.join(sorted(lost))}\n")
            typed -= lost
    before = "".join(parts)
    return Document(before + cell.text, before.count("\n"), tuple(sorted(typed & names.used)))
