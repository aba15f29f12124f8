"""Shapes learned from results, where no output schema is declared: types and the names of keys, never a value.

What was seen is a tree that merges with another, so any number of gateways may learn of one tool. A key whose name
looks like data (an address, an id, a name among many of one kind) is not kept: its object counts as a map.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from servers.tool import Tool

from .names import type_name
from .settling import unify
from .shapes import ANY, BOOL, FLOAT, INT, NONE, STR, Key, ListOf, MapOf, Named, Plain, Record, Shape, one_of, renamed

_PLAIN: Mapping[str, Plain] = {"str": STR, "int": INT, "float": FLOAT, "bool": BOOL, "none": NONE}
_NAME = re.compile(r"[@$_]?[A-Za-z][A-Za-z0-9_.$:-]{0,39}|_")
#: More digits than names of fields have.
_NUMBERED = re.compile(r"\d{4}|\d\D+\d+\D+\d")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")


@dataclass(frozen=True)
class ObservingLimits:
    """What is kept of a tool's results, and how much of one is looked at."""

    depth: int = 8
    keys: int = 60
    items: int = 50
    values: int = 5_000


LIMITS = ObservingLimits()


class Seen(msgspec.Struct, omit_defaults=True):
    """What stood at one place of all results. `of` counts them; an object's keys may be absent from some."""

    kinds: set[str] = set()
    keys: dict[str, Seen] = {}
    #: Objects that had keys which are data: what their values are.
    mapped: Seen | None = None
    items: Seen | None = None
    #: Results (at the root).
    n: int = 0


def observe(value: object, limits: ObservingLimits = LIMITS) -> Seen:
    """One result."""
    seen = Seen(n=1)
    _Eye(limits, limits.values).look(value, seen, 0)
    return seen


def merged(one: Seen, other: Seen, limits: ObservingLimits = LIMITS) -> Seen:
    """What was seen in both together; neither is changed."""
    keys = dict(one.keys)
    for key, seen in other.keys.items():
        keys[key] = merged(keys[key], seen, limits) if key in keys else seen
    mapped, items = _both(one.mapped, other.mapped, limits), _both(one.items, other.items, limits)
    made = Seen(kinds=one.kinds | other.kinds, keys=keys, mapped=mapped, items=items, n=one.n + other.n)
    return _as_map(made, limits) if _is_map(made, limits) else made


def with_observed(tool: Tool, seen: Seen) -> Tool:
    """The tool with the return type that its results have had; as it is where its server declares one."""
    foreign = tool.foreign
    if foreign is None or foreign.result is not None or not seen.n:
        return tool
    note = f"observed, n={seen.n}"
    made: dict[str, Record] = {}
    shape = _shape(seen, f"{foreign.wire_name[:200]} result", made, note)
    types = {record.name: record for record in foreign.types}
    renames = unify(types, made, foreign.wire_name[:200])
    returns = renamed(shape, lambda name: renames.get(name, name))
    return replace(tool, returns=returns, foreign=replace(foreign, types=tuple(types.values()), observed=seen.n))


def is_data(key: str) -> bool:
    """Whether a key's name looks like data rather than like the name of a field."""
    if not _NAME.fullmatch(key) or _NUMBERED.search(key):
        return True
    words = _WORDS.findall(key)
    # Ids are letters and digits at random: the words in them are short.
    return len(words) >= 5 and sum(map(len, words)) / len(words) < 2.5


@dataclass
class _Eye:
    limits: ObservingLimits
    left: int

    def look(self, value: object, seen: Seen, depth: int) -> None:
        self.left -= 1
        if self.left < 0 or depth > self.limits.depth:
            return
        match value:
            case None:
                seen.kinds.add("none")
            case bool():
                seen.kinds.add("bool")
            case str():
                seen.kinds.add("str")
            case int():
                seen.kinds.add("int")
            case float():
                seen.kinds.add("float")
            case dict():
                seen.kinds.add("dict")
                self._object(value, seen, depth)
            case list() | tuple():
                seen.kinds.add("list")
                seen.items = seen.items or Seen()
                for item in value[: self.limits.items]:
                    self.look(item, seen.items, depth + 1)

    def _object(self, value: Mapping[Any, object], seen: Seen, depth: int) -> None:
        if len(value) > self.limits.keys or any(not isinstance(key, str) or is_data(key) for key in value):
            seen.mapped = seen.mapped or Seen()
            for inner in list(value.values())[: self.limits.items]:
                self.look(inner, seen.mapped, depth + 1)
            return
        found = Seen(kinds={"dict"})
        for key, inner in value.items():
            self.look(inner, found.keys.setdefault(key, Seen()), depth + 1)
        if _is_map(found, self.limits):
            found = _as_map(found, self.limits)
        both = merged(seen, found, self.limits)
        seen.keys, seen.mapped = both.keys, both.mapped


def _is_map(seen: Seen, limits: ObservingLimits) -> bool:
    """Whether an object's keys are data: it was seen as a map, has too many, or several objects all of one kind."""
    if not seen.keys:
        return False
    if seen.mapped is not None or len(seen.keys) > limits.keys:
        return True
    values = list(seen.keys.values())
    if len(values) >= 3 and all(value.kinds == {"dict"} and value.keys for value in values):
        return len({frozenset(value.keys) for value in values}) == 1
    # Many plain values of one kind; records of that many fields hold several kinds.
    return len(values) >= 20 and len({frozenset(value.kinds) for value in values}) == 1


def _as_map(seen: Seen, limits: ObservingLimits) -> Seen:
    mapped = seen.mapped or Seen()
    for inner in seen.keys.values():
        mapped = merged(mapped, inner, limits)
    return Seen(kinds=seen.kinds, mapped=mapped, items=seen.items, n=seen.n)


def _both(one: Seen | None, other: Seen | None, limits: ObservingLimits) -> Seen | None:
    return merged(one, other, limits) if one and other else one or other


def _shape(seen: Seen, hint: str, made: dict[str, Record], note: str) -> Shape:
    return one_of(_shapes(seen, hint, made, note))


def _shapes(seen: Seen, hint: str, made: dict[str, Record], note: str) -> Iterable[Shape]:
    for kind in sorted(seen.kinds):
        if kind in _PLAIN:
            yield _PLAIN[kind]
        elif kind == "list":
            yield ListOf(_shape(seen.items or Seen(), f"{hint} item", made, note))
        elif seen.mapped is not None:
            yield MapOf(_shape(seen.mapped, f"{hint} value", made, note))
        elif seen.keys:
            name = type_name(hint, made)
            made[name] = Record(name, ())
            keys = (Key(k, _shape(v, f"{hint} {k}", made, note), required=False) for k, v in seen.keys.items())
            made[name] = Record(name, tuple(keys), note)
            yield Named(name)
        else:
            yield MapOf(ANY)
