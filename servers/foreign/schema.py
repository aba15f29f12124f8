"""Other people's JSON schemas in one form: draft 2020-12, self-contained, bounded, and accepted by the validator.

Drafts 4 to 2020-12 and OpenAPI's dialects come in; what means nothing in any of them is left out, and a note says so.
References lead to `$defs` of the schema itself. Nothing is ever fetched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeGuard
from urllib.parse import unquote

from .names import type_name
from .words import one_line, prose

Schema: TypeAlias = "dict[str, Any] | bool"

TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
#: What people write for them.
_MISNAMED = {
    "str": "string",
    "text": "string",
    "file": "string",
    "date": "string",
    "datetime": "string",
    "int": "integer",
    "int32": "integer",
    "int64": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "decimal": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
    "map": "object",
    "none": "null",
}
_COUNTS = (
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minContains",
    "maxContains",
)
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_BOUNDS = frozenset({*_COUNTS, *_NUMBERS, "uniqueItems", "pattern"})
_OBJECT = frozenset(
    {
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
    }
)
_ONE = ("not", "if", "then", "else", "contains", "propertyNames", "unevaluatedProperties", "unevaluatedItems")
_SEVERAL = ("allOf", "anyOf", "oneOf")
_MAPS = ("properties", "patternProperties", "dependentSchemas")
_LISTS = (*_SEVERAL, "prefixItems")


class SchemaError(ValueError):
    """The schema cannot be used at all; the message says why, and quotes nothing of it at length."""


@dataclass(frozen=True)
class SchemaLimits:
    """What a definition may take. Past the first three it is refused, past the others it is cut."""

    #: Values of all kinds in a schema, how deeply they are nested, and characters of all its texts.
    values: int = 50_000
    depth: int = 100
    characters: int = 2_000_000
    #: Characters of a tool's description, of a parameter's or key's, and of a `pattern`.
    description: int = 4_000
    note: int = 400
    pattern: int = 2_000
    #: Most values of a `Literal`, and characters of each; most named types of one tool.
    choices: int = 60
    choice: int = 80
    types: int = 2_000


LIMITS = SchemaLimits()


@dataclass
class Normaliser:
    """One schema document and what becomes of it. `works` tells whether the validator takes a pattern."""

    document: Any
    limits: SchemaLimits
    works: Callable[[str], bool]
    notes: list[str] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)
    #: What references lead to so far, by name.
    definitions: dict[str, Schema] = field(default_factory=dict)
    _waiting: list[tuple[str, Any]] = field(default_factory=list)
    _uses: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def schema(self, part: Any) -> Schema:
        """`part` of the document, with the `$defs` that it needs.

        Raises:
            SchemaError
        """
        body = self._one(part, 0)
        while self._waiting:  # one after the other: a chain of references may be longer than Python's stack
            name, target = self._waiting.pop()
            self.definitions[name] = self._one(target, 0)
        needed = self._needed(body)
        return body | {"$defs": needed} if isinstance(body, dict) and needed else body

    def _needed(self, body: Schema) -> dict[str, Schema]:
        """What a schema refers to, and what that refers to."""
        waiting, found = list(references(body)), dict[str, Schema]()
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self.definitions[name]
                if name not in self._uses:
                    self._uses[name] = tuple(dict.fromkeys(references(self.definitions[name])))
                waiting.extend(self._uses[name])
        return found

    def _one(self, part: Any, depth: int) -> Schema:
        if isinstance(part, bool):
            return part
        if not isinstance(part, dict):
            self._note("a schema that is no object")
            return True
        if depth > self.limits.depth:
            raise SchemaError(f"its schemas are nested more than {self.limits.depth} deep")
        made: dict[str, Any] = {}
        if isinstance(part.get("$ref"), str):
            target = self._reference(part["$ref"])
            if target is not None:
                made["$ref"] = f"#/$defs/{target}"
        self._words(part, made)
        self._types(part, made)
        if not _BOUNDS.isdisjoint(part):
            self._bounds(part, made)
        if not _OBJECT.isdisjoint(part):
            self._properties(part, made, depth)
        self._items(part, made, depth)
        for keyword in _ONE:
            if isinstance(part.get(keyword), dict | bool):
                made[keyword] = self._one(part[keyword], depth + 1)
        for keyword in _SEVERAL:
            branches = part.get(keyword)
            if isinstance(branches, list) and branches:
                made[keyword] = [self._one(branch, depth + 1) for branch in branches]
        return _nullable(made) if part.get("nullable") is True or part.get("x-nullable") is True else made

    def _reference(self, reference: str) -> str | None:
        """The name among `$defs` of what is referred to."""
        if reference in self._names:
            return self._names[reference]
        target = pointed(self.document, reference)
        if target is NOTHING:
            self._note(f"the reference {one_line(reference, 80)!r}, which leads to nothing in the definition")
            return None
        last = reference.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        name = type_name(unquote(last) if last.strip("#") else "Root", self.definitions)
        self._names[reference] = name
        self.definitions[name] = True  # until it is made
        self._waiting.append((name, target))
        return name

    def _words(self, part: Mapping[str, Any], made: dict[str, Any]) -> None:
        if isinstance(part.get("title"), str):
            made["title"] = one_line(part["title"], 100)
        if isinstance(part.get("description"), str) and (text := prose(part["description"], self.limits.note)):
            made["description"] = text
        if isinstance(part.get("format"), str):
            made["format"] = one_line(part["format"], 60)
        if "default" in part:
            made["default"] = part["default"]

    def _types(self, part: Mapping[str, Any], made: dict[str, Any]) -> None:
        given = part.get("type")
        listed = given if isinstance(given, list) else [given] if given is not None else []
        known = [_MISNAMED.get(t, t) if isinstance(t, str) else t for t in listed]
        kinds = list(dict.fromkeys(t for t in known if isinstance(t, str) and t in TYPES))
        if len(kinds) < len(dict.fromkeys(map(repr, known))):
            self._note(f"the type {one_line(repr(given), 60)}")
            kinds = []  # half of a list would refuse what the whole allows
        if kinds:
            made["type"] = kinds[0] if len(kinds) == 1 else kinds
        if isinstance(part.get("enum"), list) and part["enum"]:
            made["enum"] = part["enum"]
        if "const" in part:
            made["const"] = part["const"]

    def _bounds(self, part: Mapping[str, Any], made: dict[str, Any]) -> None:
        for keyword in _COUNTS:
            value = part.get(keyword)
            if _is_number(value) and value >= 0 and value == int(value):
                made[keyword] = int(value)
        for keyword in _NUMBERS:
            value = part.get(keyword)
            if _is_number(value) and (keyword != "multipleOf" or value > 0):
                made[keyword] = value
        for bound in ("Minimum", "Maximum"):  # draft 4: a flag beside the bound
            if part.get(f"exclusive{bound}") is True and bound.lower() in made:
                made[f"exclusive{bound}"] = made.pop(bound.lower())
        if isinstance(part.get("uniqueItems"), bool):
            made["uniqueItems"] = part["uniqueItems"]
        if isinstance(part.get("pattern"), str) and self._pattern(part["pattern"]):
            made["pattern"] = part["pattern"]

    def _pattern(self, pattern: str) -> bool:
        if len(pattern) <= self.limits.pattern and self.works(pattern):
            return True
        self._note(f"the pattern {one_line(pattern, 60)!r}")
        return False

    def _properties(self, part: Mapping[str, Any], made: dict[str, Any], depth: int) -> None:
        properties = part.get("properties")
        required = part.get("required")
        names = [n for n in required if isinstance(n, str)] if isinstance(required, list) else []
        if isinstance(properties, dict):
            made["properties"] = {key: self._one(value, depth + 1) for key, value in properties.items()}
            # draft 3, and a common slip since: `required: true` on the property itself
            names += [k for k, v in properties.items() if isinstance(v, dict) and v.get("required") is True]
        if names:
            made["required"] = list(dict.fromkeys(names))
        if isinstance(part.get("additionalProperties"), dict | bool):
            made["additionalProperties"] = self._one(part["additionalProperties"], depth + 1)
        if isinstance(part.get("patternProperties"), dict):
            kept = {p: self._one(v, depth + 1) for p, v in part["patternProperties"].items() if self._pattern(p)}
            if len(kept) < len(part["patternProperties"]) and made.get("additionalProperties") is False:
                del made["additionalProperties"]  # it would refuse what the lost pattern allows
            made["patternProperties"] = kept
        for key, value in _mapping(part.get("dependentRequired"), part.get("dependencies")):
            if isinstance(value, list):
                needed = [name for name in value if isinstance(name, str)]
                made.setdefault("dependentRequired", {})[key] = list(dict.fromkeys(needed))
        for key, value in _mapping(part.get("dependentSchemas"), part.get("dependencies")):
            if isinstance(value, dict | bool):
                made.setdefault("dependentSchemas", {})[key] = self._one(value, depth + 1)

    def _items(self, part: Mapping[str, Any], made: dict[str, Any], depth: int) -> None:
        first, rest = part.get("prefixItems"), part.get("items")
        if isinstance(rest, list):  # before 2020-12
            first, rest = rest, part.get("additionalItems")
        if isinstance(first, list) and first:
            made["prefixItems"] = [self._one(item, depth + 1) for item in first]
        if isinstance(rest, dict | bool):
            made["items"] = self._one(rest, depth + 1)

    def _note(self, what: str) -> None:
        text = f"{what} was left out"
        if text not in self.notes and len(self.notes) < 20:
            self.notes.append(text)


def checked_json(value: Any, limits: SchemaLimits = LIMITS) -> Any:
    """A copy of plain JSON data; lone surrogates become U+FFFD, numbers that JSON does not have null.

    Raises:
        SchemaError: too large, too deep, or no JSON.
    """
    left = [limits.values, limits.characters]

    def copy(part: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise SchemaError(f"it holds more than {limits.values:,} values")
        if depth > 2 * limits.depth:
            raise SchemaError(f"it is nested more than {2 * limits.depth} deep")
        match part:
            case dict():
                return {text(str(key)): copy(inner, depth + 1) for key, inner in part.items()}
            case list() | tuple():
                return [copy(inner, depth + 1) for inner in part]
            case str():
                return text(part)
            case float():
                return part if math.isfinite(part) else None
            case None | bool() | int():
                return part
        raise SchemaError(f"it holds a {type(part).__name__}, which JSON does not have")

    def text(part: str) -> str:
        left[1] -= len(part)
        if left[1] < 0:
            raise SchemaError(f"its texts are longer than {limits.characters:,} characters")
        return part.encode("utf-8", "surrogatepass").decode("utf-8", "replace") if _has_surrogate(part) else part

    return copy(value, 0)


#: What a reference leads to that leads nowhere.
NOTHING = object()


def pointed(document: Any, reference: str) -> Any:
    """The object or boolean that `#/a/b` points to in a document; NOTHING where there is none."""
    base, _, pointer = reference.partition("#")
    if base or (pointer and not pointer.startswith("/")):
        return NOTHING
    found = document
    for step in unquote(pointer).split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(found):
            found = found[int(step[:9])]
        else:
            return NOTHING
    return found if isinstance(found, dict | bool) else NOTHING


def references(schema: Schema) -> Iterator[str]:
    """Names of the `$defs` that a normalised schema uses itself."""
    if isinstance(schema, bool):
        return
    for keyword, value in schema.items():
        if keyword == "$ref":
            yield value.removeprefix("#/$defs/")
        elif keyword in _MAPS:
            for inner in value.values():
                yield from references(inner) if isinstance(inner, dict) else ()
        elif keyword in _LISTS:
            for inner in value:
                yield from references(inner)
        elif keyword in _ONE or keyword in ("items", "additionalProperties"):
            yield from references(value)


def _nullable(made: dict[str, Any]) -> Schema:
    words = {key: made.pop(key) for key in ("title", "description", "default") if key in made}
    if isinstance(made.get("type"), str) and not any(k in made for k in ("enum", "const", "$ref", *_SEVERAL)):
        return words | made | {"type": list(dict.fromkeys([made["type"], "null"]))}
    return words | {"anyOf": [made, {"type": "null"}]}


def _mapping(*candidates: Any) -> list[tuple[str, Any]]:
    return [pair for candidate in candidates if isinstance(candidate, dict) for pair in candidate.items()]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)
