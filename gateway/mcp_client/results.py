"""An answer as a value, and a failure as our error."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from mcp import MCPError, UrlElicitationRequiredError
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    URL_ELICITATION_REQUIRED,
    CallToolResult,
    TextContent,
)
from pydantic import ValidationError

from servers.errors import (
    NothingDone,
    OutputSchemaError,
    ToolError,
    ToolInputError,
    ToolNotFound,
    UpstreamError,
)
from servers.foreign.words import one_line, prose

_MOST_WORDS = 2000


def value_of(result: CallToolResult) -> Any:
    """Structured content; else the value of a single text that is JSON; else the list of what was sent.

    Raises:
        NothingDone: the tool says that it failed.
    """
    texts = [part.text for part in result.content if isinstance(part, TextContent)]
    if result.is_error:
        words = prose("\n".join(texts), _MOST_WORDS) or "The tool failed and does not say why."
        raise NothingDone(words)
    if result.structured_content is not None:
        return result.structured_content
    if len(result.content) == len(texts) == 1:
        try:
            return msgspec.json.decode(texts[0])
        except (msgspec.DecodeError, RecursionError):
            pass
    return [part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in result.content]


def error_of(error: Exception, server: str) -> ToolError:
    """What a call raises where the connection, or the protocol, failed it. Whether anything was done may be open."""
    match error:
        case MCPError():
            return _refused(error, server)
        case ValidationError():
            return OutputSchemaError(f"The answer of the MCP server {server} breaks the protocol.")
        case TimeoutError() | asyncio.TimeoutError():
            return UpstreamError(f"The MCP server {server} gave no sign of life for too long.")
    return UpstreamError(f"The connection to the MCP server {server} failed ({type(error).__name__}).")


def _refused(error: MCPError, server: str) -> ToolError:
    words = one_line(error.message, 500)
    if error.code == INVALID_PARAMS:
        return ToolInputError(f"The MCP server {server} refuses the arguments: {words}")
    if error.code == METHOD_NOT_FOUND:
        return ToolNotFound(f"The MCP server {server} does not have this tool any more: {words}")
    if error.code == URL_ELICITATION_REQUIRED:
        return NothingDone(
            f"The MCP server {server} wants a person to log in or to agree first.",
            hint=f"Ask whoever runs the gateway to open {_addresses(error)}; then call again.",
        )
    if error.code == CONNECTION_CLOSED:
        return UpstreamError(f"The MCP server {server} went away before it answered.")
    return UpstreamError(f"The MCP server {server} failed: {words}")


def _addresses(error: MCPError) -> str:
    try:
        asked = UrlElicitationRequiredError.from_error(error.error).elicitations
    except (ValidationError, TypeError, AttributeError, ValueError):
        return "the address that it names in its log"
    return " and ".join(one_line(each.url, 300) for each in asked[:3])
