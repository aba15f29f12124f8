"""Types as text: signatures and `.pyi` modules, made for people and language models to read."""

from __future__ import annotations

import types
import typing
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NotRequired, Required, TypeAlias, is_typeddict

import msgspec

from .foreign.names import plain_key
from .foreign.shapes import SHAPES, Record, names_in, text_of
from .foreign.words import comment, docstring
from .table import Table

if TYPE_CHECKING:
    from .tool import Parameter, Tool

#: A type as it stands in an annotation: a class, a union, a generic alias, a foreign tool's shape.
Annotation: TypeAlias = Any

#: A dict with known keys: a TypedDict of ours, or a foreign tool's record.
NamedType: TypeAlias = "type | Record"


class Field(NamedTuple):
    """A key of a named type, as text."""

    name: str
    annotation: str
    required: bool
    comment: str


def annotation_of(annotation: Annotation) -> str:
    """The annotation as source text, without module names and metadata."""
    if isinstance(annotation, SHAPES):
        return text_of(annotation)
    origin: Annotation = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is Annotated:
        return annotation_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(annotation_of(a) for a in arguments)
    if origin is Literal:
        return f"Literal[{', '.join(repr(a) for a in arguments)}]"
    if origin in (NotRequired, Required):
        return f"{origin._name}[{annotation_of(arguments[0])}]"
    if origin is Table:
        return "DataFrame"
    if origin is AsyncIterator:
        return f"Iterator[{annotation_of(arguments[0])}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(annotation_of(a) for a in arguments)}]"
    if annotation is type(None):
        return "None"
    return str(getattr(annotation, "__name__", annotation))


def signature_text(name: str, parameters: Sequence[Parameter], returns: Annotation) -> str:
    listed = ", ".join(_parameter_text(p) for p in parameters)
    return f"{name}({'*, ' + listed if listed else ''}) -> {annotation_of(returns)}"


def pyi(doc: str, tools: Iterable[Tool]) -> str:
    """A readable stub of one server: the types that its tools return, then the tools."""
    tools = list(tools)
    types = [named_type(each) for each in named_types(tools).values()]
    stubs = [stub(tool) for tool in tools]
    names = ["Any"] if any("Any" in text for text in (*types, *(tool.signature for tool in tools))) else []
    header = f"from typing import {', '.join([*names, 'Literal', 'NotRequired', 'TypedDict'])}"
    if any(tool.streams for tool in tools):
        header = f"from collections.abc import Iterator\n{header}"
    if any(tool.row is not None for tool in tools):
        header += "\n\nfrom pandas import DataFrame"
    return "\n\n".join([docstring(doc.strip(), ""), header, *types, *stubs]) + "\n"


def named_types(tools: Iterable[Tool]) -> dict[str, NamedType]:
    """The types that the tools take and return, by name; of ours, those that others need first.

    Raises:
        TypeError: two types have one name.
    """
    named: dict[str, NamedType] = {}
    for tool in tools:
        for record in tool.foreign.types if tool.foreign else ():
            if named.setdefault(record.name, record) != record:
                raise TypeError(f"{tool.qualified_name} and another tool both define a type {record.name}")
        if tool.row is None:  # a table is no dict; its columns stand in its docstring
            _collect(tool.returns, named)
        for parameter in tool.parameters:
            _collect(parameter.annotation, named)
    return named


def stub(tool: Tool) -> str:
    """One tool in a `.pyi`: signature, effect, what it does, its parameters."""
    lines = [f"[{tool.effect}] {tool.shown_doc.strip()}"]
    described = [f"{p.name}: {p.description}" for p in tool.parameters if p.description]
    if described:
        lines += ["", *described]
    if tool.foreign and tool.foreign.observed:
        lines += ["", f"Return type: observed, n={tool.foreign.observed}; other results may have another."]
    return f"def {tool.signature}:\n    {docstring(chr(10).join(lines))}"


def fields_of(named: NamedType) -> list[Field]:
    """The keys of a named type, in order."""
    if isinstance(named, Record):
        return [Field(key.name, text_of(key.shape), key.required, key.words) for key in named.keys]
    return list(_fields(named))


def doc_of(named: NamedType) -> str:
    """What a named type is for; "" where nobody said."""
    if isinstance(named, Record):
        return named.words
    doc = (named.__doc__ or "").strip()
    return "" if doc.startswith("dict(") else doc


def hints_of(cls: type) -> Mapping[str, Annotation]:
    return typing.get_type_hints(cls, include_extras=True)


def _fields(cls: type) -> Iterator[Field]:
    for name, hint in hints_of(cls).items():
        origin: Annotation = typing.get_origin(hint)
        inner = typing.get_args(hint)[0] if origin in (NotRequired, Required) else hint
        # a class with total=False has no word at its keys; one of deferred annotations takes NotRequired for required
        required = origin is Required or (origin is not NotRequired and name in getattr(cls, "__required_keys__", ()))
        yield Field(name, annotation_of(inner), required, _comment_of(hint))


def _parameter_text(parameter: Parameter) -> str:
    text = f"{parameter.name}: {annotation_of(parameter.annotation)}"
    return text if parameter.required else f"{text} = {parameter.default!r}"


def _collect(annotation: Annotation, into: dict[str, NamedType]) -> None:
    """Named types below an annotation, those that others need first."""
    if is_typeddict(annotation):
        known = into.get(annotation.__name__)
        if known is not None and known is not annotation:
            raise TypeError(f"{annotation.__module__} and {known!r} both define a type {annotation.__name__}")
        if known is not None:
            return
        for hint in hints_of(annotation).values():
            _collect(hint, into)
        into[annotation.__name__] = annotation
    for argument in typing.get_args(annotation):
        _collect(argument, into)


def named_type(named: NamedType) -> str:
    """Its source: a class, or, where keys are no names, the call that makes one."""
    name, doc = (named.name if isinstance(named, Record) else named.__name__), doc_of(named)
    fields = fields_of(named)
    if isinstance(named, Record) and not _fits_class(named):
        keys = [f"        {key.name!r}: {_wrapped(key)},{_remark(key)}" for key in fields]
        above = f"# {comment(doc)}\n" if doc else ""
        return "\n".join([f'{above}{name} = TypedDict(\n    "{name}",\n    {{', *keys, "    },\n)"])
    lines = [f"class {name}(TypedDict):", *([f"    {docstring(doc)}"] if doc else [])]
    lines += [f"    {key.name}: {_wrapped(key)}{_remark(key)}" for key in fields]
    return "\n".join(lines if fields or doc else [*lines, "    pass"])


def _fits_class(record: Record) -> bool:
    # A key takes the place of what has its name in the annotations after it.
    used = {name for key in record.keys for name in names_in(key.shape)} | {"NotRequired"}
    return all(plain_key(key.name, used) for key in record.keys)


def _wrapped(key: Field) -> str:
    return key.annotation if key.required else f"NotRequired[{key.annotation}]"


def _remark(key: Field) -> str:
    text = comment(key.comment)
    return f"  # {text}" if text else ""


def _comment_of(annotation: Annotation) -> str:
    origin: Annotation = typing.get_origin(annotation)
    if origin in (NotRequired, Required):
        return _comment_of(typing.get_args(annotation)[0])
    metas = getattr(annotation, "__metadata__", ())
    return next((m.description for m in metas if isinstance(m, msgspec.Meta) and m.description), "")
