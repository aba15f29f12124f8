"""Normalised schemas as shapes: what a signature and a stub say of them.

Shapes are for readers; the validator has the last word. Where a schema says more than a type can (`not`, `if`, bounds),
the shape is the wider one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .names import LONGEST, type_name
from .schema import Schema, SchemaLimits
from .shapes import (
    ANY,
    BOOL,
    FLOAT,
    FREE,
    INT,
    NONE,
    STR,
    Choice,
    Key,
    ListOf,
    MapOf,
    Named,
    Plain,
    Record,
    Shape,
    named_in,
    one_of,
)
from .words import one_line

_PLAIN: Mapping[str, Plain] = {"string": STR, "integer": INT, "number": FLOAT, "boolean": BOOL, "null": NONE}
#: What describes and does not type.
_WORDS = frozenset({"title", "description", "default", "format"})
#: Schemas within schemas at one place, through references and `allOf`, beyond which nothing is said any more.
_DEEPEST = 40
#: Longer titles are sentences.
_LONGEST_TITLE = 40


@dataclass
class Shaper:
    """Makes the shapes of one tool, or of all operations of a document, and with them their named types."""

    definitions: Mapping[str, Schema]
    limits: SchemaLimits
    #: Names that no type may have.
    taken: set[str] = field(default_factory=set)
    records: dict[str, Record] = field(default_factory=dict)
    _made: dict[str, Shape] = field(default_factory=dict)
    _depth: int = 0
    _work: int = 0

    def begin(self) -> None:
        """Another tool of the same document: it may take as much work as the first."""
        self._work = 0

    def closure(self, shapes: Iterable[Shape]) -> dict[str, Record]:
        """The records that shapes lead to, those that are met first."""
        found: dict[str, Record] = {}
        waiting = [name for shape in shapes for name in named_in(shape)]
        for name in waiting:
            if name not in found:
                found[name] = self.records[name]
                waiting.extend(found[name].uses)
        return found

    def shape(self, schema: Schema, hint: str) -> Shape:
        """`hint` names an object that has no name of its own."""
        self._work += 1
        if isinstance(schema, bool) or self._depth >= _DEEPEST or self._work > self.limits.values:
            return ANY
        self._depth += 1
        try:
            return self._shape(schema, hint)
        finally:
            self._depth -= 1

    def _shape(self, schema: dict[str, Any], hint: str) -> Shape:
        typed = _typed(schema)
        if "const" in typed:
            return self._choice([typed["const"]])
        if "enum" in typed:
            return self._choice(typed["enum"])
        if set(typed) == {"$ref"}:
            return self._named(typed["$ref"])
        if "$ref" in typed or "allOf" in typed:
            branches = [branch for branch in typed.get("allOf", ()) if not isinstance(branch, bool) and _typed(branch)]
            if set(typed) == {"allOf"} and len(branches) == 1:
                return self.shape(branches[0], hint)  # the others only describe
            return self._shape(self.flat(schema), hint)
        for keyword in ("anyOf", "oneOf"):
            if keyword in typed:
                return self._union(schema, keyword, hint)
        kinds = typed.get("type")
        if isinstance(kinds, list):
            return one_of([self._kind(schema, kind, hint) for kind in kinds])
        return self._kind(schema, kinds or _implied(typed), hint)

    def flat(self, schema: Schema) -> dict[str, Any]:
        """The schema with `$ref` and `allOf` merged into it."""
        merged: dict[str, Any] = {}
        for part in self._spread(schema, set()):
            _merge(merged, part)
        return merged

    def _spread(self, schema: Schema, seen: set[str]) -> Iterable[dict[str, Any]]:
        if isinstance(schema, bool) or len(seen) > 200:
            return
        yield {key: value for key, value in schema.items() if key not in ("$ref", "allOf", "$defs")}
        reference = schema.get("$ref")
        if reference is not None and reference not in seen:
            seen.add(reference)
            yield from self._spread(self._target(reference), seen)
        for branch in schema.get("allOf", ()):
            yield from self._spread(branch, seen)

    def _target(self, reference: str) -> Schema:
        return self.definitions.get(reference.removeprefix("#/$defs/"), True)

    def _named(self, reference: str) -> Shape:
        if reference in self._made:
            return self._made[reference]
        name = reference.removeprefix("#/$defs/")
        depth, self._depth = self._depth, min(self._depth, _DEEPEST // 2)
        try:
            flat = self.flat({"$ref": reference})
            if _is_record(flat) and len(self.records) < self.limits.types:
                own = self._free_name(name)
                self._made[reference] = Named(own)  # it may hold itself
                made = self._object(flat, name, own)
            else:
                # A list or a union of itself has no name to say it with.
                self._made[reference] = ANY
                made = self.shape(self._target(reference), name)
        finally:
            self._depth = depth
        self._made[reference] = made
        return made

    def _union(self, schema: dict[str, Any], keyword: str, hint: str) -> Shape:
        """A base with branches: each branch is the base and more."""
        base = {key: value for key, value in schema.items() if key not in (keyword, *_WORDS)}
        branches = schema[keyword]
        if not base:
            return one_of(self.shape(branch, f"{hint}{_number(n)}") for n, branch in enumerate(branches))
        if base.get("properties") and all(_only_requires(branch) for branch in branches):
            return self._shape({key: value for key, value in schema.items() if key != keyword}, hint)
        shapes = []
        for number, branch in enumerate(branches):
            flat = self.flat({"allOf": [base, branch]})
            if "type" in base and "type" in flat and flat["type"] == []:
                continue
            shapes.append(self.shape(flat, f"{hint}{_number(number)}"))
        return one_of(shapes)

    def _choice(self, values: Sequence[Any]) -> Shape:
        limits = self.limits
        plain = all(value is None or isinstance(value, str | int) for value in values)
        if plain and len(values) <= limits.choices:
            short = all(not isinstance(value, str) or len(value) <= limits.choice for value in values)
            if short and all(not isinstance(value, int) or abs(value) < 2**63 for value in values):
                return one_of([Choice((value,)) if value is not None else NONE for value in values])
        return one_of(_kind_of(value) for value in values)

    def _kind(self, schema: dict[str, Any], kind: str | None, hint: str) -> Shape:
        if kind == "object":
            return self._object(schema, hint)
        if kind == "array":
            items = [*schema.get("prefixItems", ())]
            if "items" in schema or not items:
                items.append(schema.get("items", True))
            kept = [item for item in items if item is not False]
            return ListOf(one_of([self.shape(item, f"{hint}Item") for item in kept]) if kept else ANY)
        return _PLAIN.get(kind or "", ANY)

    def _object(self, schema: dict[str, Any], hint: str, own: str = "") -> Shape:
        """`own`: the name that its record has already."""
        properties = schema.get("properties")
        extra = schema.get("additionalProperties")
        if not properties:
            patterns = list(schema.get("patternProperties", {}).values())
            values = patterns if extra in (None, False) else [*patterns, extra]
            return MapOf(one_of([self.shape(value, f"{hint}Value") for value in values])) if values else FREE
        named = self._record(schema, hint, own)
        if extra in (None, False):
            return named
        # It may have other keys too; a TypedDict alone would refuse them.
        return one_of([named, MapOf(self.shape(extra, f"{hint}Value") if extra is not True else ANY)])

    def _record(self, schema: dict[str, Any], hint: str, own: str) -> Shape:
        if len(self.records) >= self.limits.types:
            return FREE
        title = schema.get("title", "")
        name = own or self._free_name(title if title and len(title) <= _LONGEST_TITLE and title.isascii() else hint)
        self.records[name] = Record(name, ())  # its place: types stand in the order in which they are met
        required = schema.get("required", ())
        keys = tuple(
            Key(key, self.shape(inner, f"{name}{type_name(key)}"), key in required, words_of(inner, self.limits))
            for key, inner in schema["properties"].items()
            if inner is not False and len(key) <= LONGEST
        )
        self.records[name] = Record(name, keys, one_line(schema.get("description", ""), self.limits.note))
        return Named(name)

    def _free_name(self, text: str) -> str:
        name = type_name(text, self.taken)
        self.taken.add(name)
        return name


def _typed(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in _WORDS}


def _is_record(flat: Mapping[str, Any]) -> bool:
    kind = flat.get("type", _implied(flat))
    return kind == "object" and bool(flat.get("properties")) and not flat.keys() & {"anyOf", "oneOf", "enum", "const"}


def words_of(schema: Schema, limits: SchemaLimits) -> str:
    """What a schema says of its value, on one line."""
    return one_line(schema.get("description", ""), limits.note) if isinstance(schema, dict) else ""


def _implied(schema: Mapping[str, Any]) -> str | None:
    """The type of a schema that does not say it."""
    if schema.keys() & {"properties", "additionalProperties", "patternProperties"}:
        return "object"
    if schema.keys() & {"items", "prefixItems"}:
        return "array"
    if schema.keys() & {"minLength", "maxLength", "pattern"}:
        return "string"
    return "number" if schema.keys() & {"minimum", "maximum", "multipleOf"} else None


def _merge(into: dict[str, Any], part: dict[str, Any]) -> None:
    """What both say."""
    for keyword, value in part.items():
        known = into.get(keyword)
        if known is None:
            into[keyword] = dict(value) if keyword == "properties" else value
        elif keyword == "properties":
            for key, inner in value.items():
                known[key] = inner if key not in known or known[key] == inner else {"allOf": [known[key], inner]}
        elif keyword == "required":
            into[keyword] = list(dict.fromkeys([*known, *value]))
        elif keyword == "type":
            into[keyword] = _both(_listed(known), _listed(value))
        elif keyword == "enum":
            into[keyword] = [one for one in known if one in value] or known
        elif keyword in ("items", "additionalProperties") and known != value:
            into[keyword] = value if known is True else known if value is True else {"allOf": [known, value]}


def _both(one: list[str], other: list[str]) -> str | list[str]:
    kept = [kind for kind in one if kind in other or (kind == "integer" and "number" in other)]
    kept += [kind for kind in other if kind == "integer" and "number" in one and kind not in kept]
    return kept[0] if len(kept) == 1 else kept


def _listed(kinds: str | list[str]) -> list[str]:
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _only_requires(branch: Schema) -> bool:
    return isinstance(branch, bool) or not branch.keys() - {"required", "not", "title", "description"}


def _kind_of(value: Any) -> Shape:
    match value:
        case bool():
            return BOOL
        case str():
            return STR
        case int():
            return INT
        case float():
            return FLOAT
        case None:
            return NONE
        case list():
            return ListOf(ANY)
    return FREE


def _number(position: int) -> str:
    return str(position + 1) if position else ""
