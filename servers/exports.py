"""A tool's record as other protocols have it: the name of a function, an entry of an MCP server's list."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from .tool import Tool

#: OpenAI's API takes 64 of these characters.
_FUNCTION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = 8


def function_name(tool: Tool) -> str:
    """`server__tool`, as function names have no dot; where that is no such name, what is left of it with a hash."""
    name = f"{tool.server}__{tool.name}"
    if _FUNCTION.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{re.sub('[^A-Za-z0-9_-]', '_', name)[: 63 - _DIGEST]}_{digest}"


def mcp_tool(tool: Tool) -> dict[str, Any]:
    """The entry of `tools/list` (MCP 2025-11-25), its hints from the effect.

    The journal repeats no call, so no hint says that a write may be repeated.
    """
    entry: dict[str, Any] = {
        "name": function_name(tool),
        "title": tool.qualified_name,
        "description": tool.doc,
        "inputSchema": tool.input_schema,
        "annotations": {
            "readOnlyHint": tool.effect == "read",
            "destructiveHint": tool.effect == "critical",
            "idempotentHint": tool.effect == "read",
            "openWorldHint": True,
        },
    }
    schema = tool.output_schema
    if schema is not None:
        entry["outputSchema"] = schema if _is_object(schema) else _wrapped(schema)
    return entry


def structured(tool: Tool, value: object) -> dict[str, Any] | None:
    """A result as `structuredContent`, which has to be an object: what is none is under `result`."""
    schema = tool.output_schema
    if schema is not None and not _is_object(schema):
        return {"result": value}
    return value if isinstance(value, dict) else None


def _is_object(schema: dict[str, Any] | bool) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "object"


def _wrapped(schema: dict[str, Any] | bool) -> dict[str, Any]:
    inner = dict(schema) if isinstance(schema, dict) else {}
    definitions = inner.pop("$defs", None)
    made: dict[str, Any] = {"type": "object", "properties": {"result": inner}, "required": ["result"]}
    return made | ({"$defs": definitions} if definitions else {})
