"""What JSON looks like, as data: the types of foreign tools, from which signatures and stubs are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias, Union


@dataclass(frozen=True)
class Plain:
    """`str`, `int`, `float`, `bool`, `None` or `Any`."""

    name: str


@dataclass(frozen=True)
class Choice:
    values: tuple[str | int | bool | None, ...]


@dataclass(frozen=True)
class ListOf:
    item: Shape


@dataclass(frozen=True)
class MapOf:
    value: Shape


@dataclass(frozen=True)
class OneOf:
    """Made by `one_of` alone, which leaves no union in a union."""

    members: tuple[Shape, ...]


@dataclass(frozen=True)
class Named:
    """The record of this name, beside it."""

    name: str


Shape: TypeAlias = Union[Plain, Choice, ListOf, MapOf, OneOf, Named]  # noqa: UP007 - strings would not join by |
SHAPES = (Plain, Choice, ListOf, MapOf, OneOf, Named)

ANY, STR, INT, FLOAT, BOOL, NONE = (Plain(name) for name in ("Any", "str", "int", "float", "bool", "None"))
FREE = MapOf(ANY)


@dataclass(frozen=True)
class Key:
    name: str
    shape: Shape
    required: bool
    words: str = ""


@dataclass(frozen=True)
class Record:
    """A dict with known keys."""

    name: str
    keys: tuple[Key, ...]
    words: str = ""

    @cached_property
    def uses(self) -> tuple[str, ...]:
        """The records that its keys name."""
        return tuple(dict.fromkeys(name for key in self.keys for name in named_in(key.shape)))


def text_of(shape: Shape) -> str:
    """As it stands in an annotation."""
    match shape:
        case Plain(name) | Named(name):
            return name
        case Choice(values):
            return f"Literal[{', '.join(repr(value) for value in values)}]"
        case ListOf(item):
            return f"list[{text_of(item)}]"
        case MapOf(value):
            return f"dict[str, {text_of(value)}]"
        case OneOf(members):
            return " | ".join(text_of(member) for member in members)


def one_of(shapes: Iterable[Shape], most: int = 16) -> Shape:
    """The union: members once each, choices joined, None last. More than `most` members say nothing: Any."""
    members: dict[str, Shape] = {}
    for shape in shapes:
        for member in shape.members if isinstance(shape, OneOf) else (shape,):
            members.setdefault(text_of(member), member)
    if "Any" in members:
        return ANY
    choices = [member for member in members.values() if isinstance(member, Choice)]
    kept: list[Shape] = [member for member in members.values() if not isinstance(member, Choice) and member != NONE]
    if choices:
        values = {repr(value): value for choice in choices for value in choice.values}
        kept.insert(0, Choice(tuple(values.values())))
    if FLOAT in kept and INT in kept:
        kept.remove(INT)  # a float may be written as an int
    if NONE in members.values():
        kept.append(NONE)
    if not kept or len(kept) > most:
        return ANY
    return kept[0] if len(kept) == 1 else OneOf(tuple(kept))


def parts(shape: Shape) -> Iterator[Shape]:
    """The shape and all in it; records that are named are not entered."""
    yield shape
    match shape:
        case ListOf(inner) | MapOf(inner):
            yield from parts(inner)
        case OneOf(members):
            for member in members:
                yield from parts(member)


def names_in(shape: Shape) -> Iterator[str]:
    """Every name that its text uses, of types and of builtins."""
    for part in parts(shape):
        match part:
            case Plain(name) | Named(name):
                yield name
            case Choice():
                yield "Literal"
            case ListOf():
                yield "list"
            case MapOf():
                yield from ("dict", "str")


def named_in(shape: Shape) -> Iterator[str]:
    """The names of the records in it."""
    return (part.name for part in parts(shape) if isinstance(part, Named))


def renamed(shape: Shape, rename: Callable[[str], str]) -> Shape:
    """The shape with other names for records."""
    match shape:
        case Named(name):
            return Named(rename(name))
        case ListOf(item):
            return ListOf(renamed(item, rename))
        case MapOf(value):
            return MapOf(renamed(value, rename))
        case OneOf(members):
            return OneOf(tuple(renamed(member, rename) for member in members))
    return shape


def renamed_record(record: Record, rename: Callable[[str], str]) -> Record:
    keys = tuple(replace(key, shape=renamed(key.shape, rename)) for key in record.keys)
    return replace(record, name=rename(record.name), keys=keys)
