"""What a server offers, read in bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from mcp import Client
from mcp_types import Tool

from gateway.settings import McpSettings
from servers.foreign.record import Definition
from servers.foreign.words import one_line

from .problems import Unusable

_MOST_PAGES = 1000
#: Characters of a tool's name; longer ones are left out.
_MOST_NAME = 200


@dataclass(frozen=True)
class Listing:
    definitions: tuple[Definition, ...]
    #: What was left out and why, for people.
    notes: tuple[str, ...]
    #: Name and version as the server gives them; "" where it does not.
    program: str


async def list_tools(client: Client, settings: McpSettings, clean: Callable[[Any], Any]) -> Listing:
    """Every page of the server's list; `clean` takes secrets out of descriptions and schemas.

    Raises:
        Unusable: the list has no end.
        MCPError, ValidationError: it cannot be had.
    """
    found: dict[str, Definition] = {}
    notes: list[str] = []
    cursor: str | None = None
    cursors: set[str] = set()
    while client.server_capabilities.tools is not None:
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            _take(tool, found, notes, settings, clean)
        cursor = page.next_cursor
        if not cursor:
            break
        if cursor in cursors or len(cursors) >= _MOST_PAGES:
            raise Unusable("its list of tools has no end")
        cursors.add(cursor)
    info = client.server_info
    program = one_line(f"{info.name} {info.version}", 80) if info else ""
    return Listing(tuple(found.values()), tuple(notes[:20]), program)


def _take(
    tool: Tool, found: dict[str, Definition], notes: list[str], settings: McpSettings, clean: Callable[[Any], Any]
) -> None:
    shown = one_line(tool.name, 60)
    annotations = tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else {}
    if tool.title:
        annotations.setdefault("title", tool.title)
    definition = Definition(tool.name, tool.description or "", tool.input_schema, tool.output_schema, annotations)
    if not 0 < len(tool.name) <= _MOST_NAME or not tool.name.isprintable():
        notes.append(f"a tool is left out whose name is empty, too long or not to be printed: {shown!r}")
    elif tool.name in found:
        notes.append(f"{shown!r} is listed twice; the first counts")
    elif len(found) >= settings.tools:
        notes.append(f"only its first {settings.tools} tools are taken (mcp.tools)")
    elif _size(definition) > settings.definition_kb * 1024:
        notes.append(f"{shown!r} is left out: its definition is over {settings.definition_kb} KiB (mcp.definition_kb)")
    else:
        told = [definition.description, definition.input_schema, definition.output_schema, dict(annotations)]
        found[tool.name] = Definition(tool.name, *clean(told))


def _size(definition: Definition) -> int:
    whole = [definition.description, definition.input_schema, definition.output_schema, dict(definition.annotations)]
    return len(msgspec.json.encode(whole))
