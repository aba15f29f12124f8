"""Tools as a language model's prompt holds them, in as few tokens as a reader allows; `help(tool)` tells the rest.

    Order{id: int, number, status (pending, completed, ...), line_items: list[LineItem], cancel_reason?}
    lookup_order(order_id: int | str) -> Order  One order with its items, payments and shipments.
    change_order_address(order_id: int | str, **Address) -> Order  [write] Change where a pending order is shipped to.

A tool has the first line of its description; one that only reads is not marked. A key or parameter without a type is a
str; `?` marks a key that may be absent, and of those only such as are described stand here, `...` for the others.
Parameters that are the keys of a type are `**` with its name. What several tools share is said once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .foreign.shapes import Record
from .rendering import Field, NamedType, annotation_of, fields_of, named_types
from .tool import Parameter, Tool

#: Fewer keys than this are parameters like any others.
_KEYS = 4


def brief(tools: Iterable[Tool]) -> str:
    """The tools, grouped by server, each group after the types that it needs."""
    tools = list(tools)
    said: set[str] = set()
    groups = []
    for server in dict.fromkeys(tool.server for tool in tools):
        members = [tool for tool in tools if tool.server == server]
        lines = [f"# servers.{server}"]
        named = named_types(members)
        types = [_type(cls) for cls in named.values()]
        lines += [text for text in types if text not in said]
        said.update(types)
        lines += [_tool(tool, said, named) for tool in members]
        groups.append("\n".join(lines))
    return "\n\n".join(groups) + "\n"


def _type(named: NamedType) -> str:
    name = named.name if isinstance(named, Record) else named.__name__
    fields = fields_of(named)
    told = [_field(field) for field in fields if field.required or field.comment]
    return f"{name}{{{', '.join([*told, *(['...'] if len(told) < len(fields) else [])])}}}"


def _field(field: Field) -> str:
    name = field.name if field.name.isidentifier() else repr(field.name)
    text = f"{name}{'' if field.required else '?'}" + ("" if field.annotation == "str" else f": {field.annotation}")
    return f"{text} ({field.comment})" if field.comment else text


def _tool(tool: Tool, said: set[str], named: Mapping[str, NamedType]) -> str:
    """One tool on one line. Parameter descriptions that were said for another tool are left out."""
    words = [tool.summary] if tool.effect == "read" else [f"[{tool.effect}] {tool.summary}"]
    for parameter in tool.parameters:
        described = f"{parameter.name}: {parameter.description}"
        if parameter.description and described not in said:
            said.add(described)
            words.append(f"{described}.")
    return f"{tool.name}({', '.join(_parameters(tool, named))}) -> {annotation_of(tool.returns)}  {' '.join(words)}"


def _parameters(tool: Tool, named: Mapping[str, NamedType]) -> list[str]:
    """The parameters, those that are all the keys of a type as that type."""
    names = [parameter.name for parameter in tool.parameters]
    for type_name, cls in named.items():
        keys = [field.name for field in fields_of(cls)]
        if len(keys) >= _KEYS and set(keys) <= set(names):
            others = [_parameter(parameter) for parameter in tool.parameters if parameter.name not in keys]
            return [*others, f"**{type_name}"]
    return [_parameter(parameter) for parameter in tool.parameters]


def _parameter(parameter: Parameter) -> str:
    kind = annotation_of(parameter.annotation)
    text = parameter.name if kind == "str" else f"{parameter.name}: {kind}"
    return text if parameter.required else f"{text}={parameter.default!r}"
