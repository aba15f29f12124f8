"""Tools as a language model's prompt holds them, in as few tokens as a reader allows; `help(tool)` tells the rest.

    Order{id: int, number, status (pending, completed, ...), line_items: list[LineItem], cancel_reason?}
    lookup_order(order_id: int | str) -> Order  [read] One order with its items, payments and shipments.

A tool has the first line of its description. A key or parameter without a type is a str; `?` marks a key that may be
absent. A type or a parameter's description that several tools share is said once.
"""

from __future__ import annotations

from collections.abc import Iterable

from .foreign.shapes import Record
from .rendering import Field, NamedType, annotation_of, fields_of, named_types
from .tool import Parameter, Tool


def brief(tools: Iterable[Tool]) -> str:
    """The tools, grouped by server, each group after the types that it needs."""
    tools = list(tools)
    said: set[str] = set()
    groups = []
    for server in dict.fromkeys(tool.server for tool in tools):
        members = [tool for tool in tools if tool.server == server]
        lines = [f"# servers.{server}"]
        types = [_type(cls) for cls in named_types(members).values()]
        lines += [text for text in types if text not in said]
        said.update(types)
        lines += [_tool(tool, said) for tool in members]
        groups.append("\n".join(lines))
    return "\n\n".join(groups) + "\n"


def _type(named: NamedType) -> str:
    name = named.name if isinstance(named, Record) else named.__name__
    return f"{name}{{{', '.join(_field(field) for field in fields_of(named))}}}"


def _field(field: Field) -> str:
    name = field.name if field.name.isidentifier() else repr(field.name)
    text = f"{name}{'' if field.required else '?'}" + ("" if field.annotation == "str" else f": {field.annotation}")
    return f"{text} ({field.comment})" if field.comment else text


def _tool(tool: Tool, said: set[str]) -> str:
    """One tool on one line. Parameter descriptions that were said for another tool are left out."""
    words = [tool.summary]
    for parameter in tool.parameters:
        described = f"{parameter.name}: {parameter.description}"
        if parameter.description and described not in said:
            said.add(described)
            words.append(f"{described}.")
    parameters = ", ".join(_parameter(parameter) for parameter in tool.parameters)
    return f"{tool.name}({parameters}) -> {annotation_of(tool.returns)}  [{tool.effect}] {' '.join(words)}"


def _parameter(parameter: Parameter) -> str:
    kind = annotation_of(parameter.annotation)
    text = parameter.name if kind == "str" else f"{parameter.name}: {kind}"
    return text if parameter.required else f"{text}={parameter.default!r}"
