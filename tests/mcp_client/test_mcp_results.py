"""Answers of MCP servers as values, and their failures as our errors."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import MCPError, UrlElicitationRequiredError
from mcp_types import (
    CallToolResult,
    ElicitRequestURLParams,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from gateway.broker.errors import DEFINITE
from gateway.mcp_client.results import error_of, value_of
from servers.errors import NothingDone, OutputSchemaError, ToolError, ToolInputError, ToolNotFound, UpstreamError


def text(words: str) -> TextContent:
    return TextContent(type="text", text=words)


IMAGE = ImageContent(type="image", data="aGk=", mime_type="image/png")


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (CallToolResult(content=[text("3")], structured_content={"sum": 3}), {"sum": 3}),
        (CallToolResult(content=[], structured_content={}), {}),
        (CallToolResult(content=[text('[1, {"a": null}]')]), [1, {"a": None}]),
        (CallToolResult(content=[text("42")]), 42),
        (CallToolResult(content=[text("sunny")]), [{"type": "text", "text": "sunny"}]),
        (CallToolResult(content=[text("NaN")]), [{"type": "text", "text": "NaN"}]),
        (CallToolResult(content=[text("[" * 100_000)]), [{"type": "text", "text": "[" * 100_000}]),
        (CallToolResult(content=[text("{}"), text("{}")]), [{"type": "text", "text": "{}"}] * 2),
        (CallToolResult(content=[]), []),
        (CallToolResult(content=[IMAGE]), [{"type": "image", "data": "aGk=", "mimeType": "image/png"}]),
        (
            CallToolResult(content=[ResourceLink(type="resource_link", name="a", uri="file:///a")]),
            [{"type": "resource_link", "name": "a", "uri": "file:///a"}],
        ),
        (
            CallToolResult(
                content=[EmbeddedResource(type="resource", resource=TextResourceContents(uri="file:///a", text="b"))]
            ),
            [{"type": "resource", "resource": {"uri": "file:///a", "text": "b"}}],
        ),
    ],
)
def test_a_result_is_its_value(result: CallToolResult, value: Any) -> None:
    assert value_of(result) == value


def test_a_tool_that_says_it_failed_raises_its_words_made_safe() -> None:
    result = CallToolResult(content=[text("No such \u202ething."), IMAGE, text("Try another.")], is_error=True)
    with pytest.raises(NothingDone) as raised:
        value_of(result)
    assert raised.value.message == "No such thing.\nTry another."
    with pytest.raises(NothingDone, match="does not say why"):
        value_of(CallToolResult(content=[], structured_content={"sum": 3}, is_error=True))


@pytest.mark.parametrize(
    ("error", "expected", "words", "settled"),
    [
        (MCPError(-32602, "no \x1b[31mred"), ToolInputError, "refuses the arguments: no [31mred", True),
        (MCPError(-32601, "?"), ToolNotFound, "does not have this tool any more", True),
        (MCPError(-32603, "boom"), UpstreamError, "failed: boom", False),
        (MCPError(-32000, "Connection closed"), UpstreamError, "went away before it answered", False),
        (MCPError(4711, "x" * 10_000), UpstreamError, "…", False),
        (TimeoutError(), UpstreamError, "no sign of life", False),
        (OSError("secret path"), UpstreamError, "failed (OSError)", False),
    ],
)
def test_a_failure_is_an_error_of_ours(error: Exception, expected: type[ToolError], words: str, settled: bool) -> None:
    """`settled`: a write that failed so has not happened. Of the others nobody knows."""
    found = error_of(error, "hub")
    assert type(found) is expected
    assert words in found.message
    assert "secret path" not in found.message
    assert len(found.message) < 600
    assert isinstance(found, DEFINITE) is settled


def test_a_login_that_a_tool_wants_names_its_address() -> None:
    asked = ElicitRequestURLParams(message="Log in", url="https://x.example/login", elicitation_id="1")
    found = error_of(UrlElicitationRequiredError([asked]), "hub")
    assert isinstance(found, NothingDone)
    assert "https://x.example/login" in found.hint
    assert "names in its log" in error_of(MCPError(-32042, "?", {"elicitations": [3]}), "hub").hint


def test_an_answer_against_the_protocol_is_one_against_the_schema() -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        CallToolResult.model_validate({"content": 3})
    assert isinstance(error_of(raised.value, "hub"), OutputSchemaError)
