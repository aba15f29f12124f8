"""Tools as a language model's prompt holds them, in as few tokens as a reader allows; `help(tool)` tells the rest.

    Order{id: int, number, status (pending, completed, ...), line_items: list[LineItem], cancel_reason?}
    lookup_order(order_id: int | str) -> Order  [read] One order with its items, payments and shipments.

A tool has the first line of its description. A key or parameter without a type is a str; `?` marks a key that may be
absent. A type or a parameter's description that several tools share is said once.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import NotRequired

from .rendering import Annotation, annotation_of, comment_of, fields_of, named_types
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


def _type(cls: type) -> str:
    return f"{cls.__name__}{{{', '.join(_field(name, hint) for name, hint in fields_of(cls).items())}}}"


def _field(name: str, hint: Annotation) -> str:
    origin: Annotation = typing.get_origin(hint)
    absent = origin is NotRequired
    kind = annotation_of(typing.get_args(hint)[0] if absent else hint)
    comment = comment_of(hint)
    text = f"{name}{'?' if absent else ''}" + ("" if kind == "str" else f": {kind}")
    return f"{text} ({comment})" if comment else text


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
