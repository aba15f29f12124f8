"""Tools for pages in markdown: `omniops tools reference` has all about all of them; `python -m servers.reference
woocommerce` prints the table of one server's.

What a foreign server wrote is shown as it is, and is neither markup nor link.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .foreign.words import markdown
from .registry import Registry, load_registry
from .rendering import annotation_of, named_type, named_types
from .tool import EVERYBODY, OMITTED, Parameter, Tool

HEAD = "| tool | effect | for | what it does | undone by |\n|---|---|---|---|---|\n"
PARAMETERS = "| parameter | type | default | |\n|---|---|---|---|\n"


def table(registry: Registry, server: str) -> str:
    """The server's tools in markdown, those that read first. `for`: the roles that may call it."""
    return HEAD + "".join(_row(tool) for tool in registry.of_server(server))


def book(registry: Registry, servers: Sequence[str]) -> str:
    """All about the tools of these servers on one page, the servers listed first."""
    lines = [_entry(registry, server) for server in servers]
    pages = [page(registry, server, depth=2) for server in servers]
    return "\n".join(["# Tools", "", *lines, "", "\n".join(pages)])


def page(registry: Registry, server: str, depth: int = 1) -> str:
    """All about a server's tools: the table, each tool with its parameters, the types that they take and return.

    `depth`: of its first heading.
    """
    tools = registry.of_server(server)
    foreign = any(tool.foreign for tool in tools)
    doc = registry.documents.get(server, "")
    mark = "#" * depth
    parts = [f"{mark} servers.{server}", markdown(doc) if foreign else doc, table(registry, server).rstrip()]
    parts += [part for tool in tools for part in _tool(tool, mark)]
    types = "\n\n".join(named_type(each) for each in named_types(tools).values())
    if types:
        parts += [f"{mark}# Types", _source(types)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _entry(registry: Registry, server: str) -> str:
    tools = registry.of_server(server)
    first = registry.documents.get(server, "").strip().partition("\n")[0]
    return f"- `servers.{server}`, {len(tools)}: {markdown(first) if any(tool.foreign for tool in tools) else first}"


def _tool(tool: Tool, mark: str) -> list[str]:
    words = markdown(tool.doc) if tool.foreign else tool.doc
    undone = f" Undone by: {tool.revert}." if tool.revert else ""
    about = f"Effect: {tool.effect}. For: {_roles(tool)}.{undone}"
    if tool.foreign and tool.foreign.wire_name != tool.name:
        about += f" Its server calls it {markdown(repr(tool.foreign.wire_name[:100]))}."
    rows = "".join(_parameter_row(tool, parameter) for parameter in tool.parameters)
    return [
        f"{mark}# {tool.name}",
        _source(tool.signature),
        words.strip(),
        about,
        PARAMETERS + rows.rstrip() if rows else "",
    ]


def _parameter_row(tool: Tool, parameter: Parameter) -> str:
    default = "required" if parameter.required else "left to the server" if parameter.default is OMITTED else ""
    words = markdown(parameter.description) if tool.foreign else _cell(parameter.description)
    shown = default or _code(repr(parameter.default))
    return f"| {_code(parameter.name)} | {_code(annotation_of(parameter.annotation))} | {shown} | {words} |\n"


def _row(tool: Tool) -> str:
    summary = markdown(tool.summary) if tool.foreign else _cell(tool.summary)
    return f"| {_code(tool.name)} | {tool.effect} | {_roles(tool)} | {summary} | {_cell(tool.revert)} |\n"


def _roles(tool: Tool) -> str:
    return "everybody" if set(tool.roles) == set(EVERYBODY) else ", ".join(tool.roles)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    """Inline code in a table's cell, whatever is in it."""
    mark = "`"
    while mark in text:
        mark += "`"
    space = " " if "`" in text else ""
    return f"{mark}{space}{_cell(text)}{space}{mark}"


def _source(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}python\n{text}\n{fence}"


def main() -> None:
    registry = load_registry()
    known = ", ".join(registry.documents)
    if len(sys.argv) != 2 or sys.argv[1] not in registry.documents:
        sys.exit(f"usage: python -m servers.reference SERVER, one of {known}")
    print(table(registry, sys.argv[1]), end="")


if __name__ == "__main__":
    main()
