"""Types as text: signatures and `.pyi` modules, made for people and language models to read."""

from __future__ import annotations

import textwrap
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Required, TypeAlias, is_typeddict

import msgspec

if TYPE_CHECKING:
    from .tool import Parameter, Tool

#: A type as it stands in an annotation: a class, a union, a generic alias.
Annotation: TypeAlias = Any


def annotation_of(annotation: Annotation) -> str:
    """The annotation as source text, without module names and metadata."""
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
    parts = [f'"""{doc.strip()}"""', "from typing import Literal, NotRequired, TypedDict"]
    parts += [_typed_dict(cls) for cls in named_types(tools).values()]
    parts += [stub(tool) for tool in tools]
    return "\n\n".join(parts) + "\n"


def named_types(tools: Iterable[Tool]) -> dict[str, type]:
    """The TypedDicts that the tools take and return, by name, those that others need first."""
    named: dict[str, type] = {}
    for tool in tools:
        _collect(tool.returns, named)
        for parameter in tool.parameters:
            _collect(parameter.annotation, named)
    return named


def stub(tool: Tool) -> str:
    """One tool in a `.pyi`: signature, effect, what it does, its parameters."""
    lines = [f"[{tool.effect}] {tool.doc.strip()}"]
    described = [f"{p.name}: {p.description}" for p in tool.parameters if p.description]
    if described:
        lines += ["", *described]
    doc = textwrap.indent("\n".join(lines), "    ").strip()
    closing = '\n    """' if "\n" in doc else '"""'
    return f'def {tool.signature}:\n    """{doc}{closing}'


def _parameter_text(parameter: Parameter) -> str:
    text = f"{parameter.name}: {annotation_of(parameter.annotation)}"
    return text if parameter.required else f"{text} = {parameter.default!r}"


def _collect(annotation: Annotation, into: dict[str, type]) -> None:
    """Named types below an annotation, those that others need first."""
    if is_typeddict(annotation):
        if annotation.__name__ in into:
            return
        for hint in fields_of(annotation).values():
            _collect(hint, into)
        into[annotation.__name__] = annotation
    for argument in typing.get_args(annotation):
        _collect(argument, into)


def fields_of(cls: type) -> Mapping[str, Annotation]:
    return typing.get_type_hints(cls, include_extras=True)


def _typed_dict(cls: type) -> str:
    lines = [f"class {cls.__name__}(TypedDict):"]
    doc = (cls.__doc__ or "").strip()
    if doc and not doc.startswith("dict("):
        lines.append(f'    """{doc}"""')
    for name, hint in fields_of(cls).items():
        comment = comment_of(hint)
        lines.append(f"    {name}: {annotation_of(hint)}{'  # ' + comment if comment else ''}")
    return "\n".join(lines)


def comment_of(annotation: Annotation) -> str:
    origin: Annotation = typing.get_origin(annotation)
    if origin in (NotRequired, Required):
        return comment_of(typing.get_args(annotation)[0])
    metas = getattr(annotation, "__metadata__", ())
    return next((m.description for m in metas if isinstance(m, msgspec.Meta) and m.description), "")
