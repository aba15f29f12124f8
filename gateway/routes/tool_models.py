"""Tools in answers, as OpenAPI shows them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from gateway.broker.scrub import Scrubber
from gateway.types import Role
from servers.finding.lines import call_line
from servers.rendering import annotation_of, pyi
from servers.tool import OMITTED, Effect, Parameter, Tool


class ToolLine(BaseModel):
    """A tool as lists show it."""

    name: str = Field(description="`server.tool`; cells write `from servers.server import tool`.")
    call: str = Field(description="How it is called, without types.")
    effect: Effect = Field(description="`critical` asks a person first, `write` may.")
    roles: list[Role] = Field(description="Sessions that may call it.")
    summary: str = Field(description="What it does, in a line.")

    @classmethod
    def of(cls, tool: Tool, scrubber: Scrubber) -> ToolLine:
        """Without secrets: a foreign server may say what it was given."""
        return cls(**scrubber.known_tree(_line(tool)))


class Tools(BaseModel):
    tools: list[ToolLine]
    total: int = Field(description="So many tools were looked at: all that the question reaches.")
    next: str | None = Field(description="Of a list that goes on: what `after` has to be. Null at its end.")


class ToolParameter(BaseModel):
    name: str
    required: bool
    type: str = Field(description="As Python writes it.")
    default: Any = Field(None, description="Null, too, where it is required or only the tool's server knows it.")
    description: str


class ToolRecord(ToolLine):
    """All about one tool."""

    server: str
    server_description: str
    signature: str
    doc: str
    parameters: list[ToolParameter]
    returns: str = Field(description="The type of its result, as Python writes it.")
    streams: bool = Field(description="The result comes in parts.")
    undone_by: str = Field(description="The tool, or the words, that undo it; empty where nothing does.")
    foreign: bool = Field(description="It is another's: from an MCP server or an OpenAPI description.")
    stub: str = Field(description="The types and the signature as a `.pyi` module.")
    input_schema: dict[str, Any] = Field(description="JSON schema of the arguments.")
    output_schema: dict[str, Any] | bool | None = Field(
        description="JSON schema of the result; null where its server declares none."
    )

    @classmethod
    def whole(cls, tool: Tool, server_description: str, scrubber: Scrubber) -> ToolRecord:
        """Everything, without secrets; takes milliseconds where there are many types."""
        return cls(
            **scrubber.known_tree(
                _line(tool)
                | {
                    "server": tool.server,
                    "server_description": server_description,
                    "signature": tool.signature,
                    "doc": tool.shown_doc,
                    "parameters": [_parameter(parameter) for parameter in tool.parameters],
                    "returns": annotation_of(tool.returns),
                    "streams": tool.streams,
                    "undone_by": tool.revert,
                    "foreign": tool.foreign is not None,
                    "stub": pyi(f"from servers.{tool.server} import {tool.name}", [tool]),
                    "input_schema": tool.input_schema,
                    "output_schema": tool.output_schema,
                }
            )
        )


def _line(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.qualified_name,
        "call": call_line(tool),
        "effect": tool.effect,
        "roles": list(tool.roles),
        "summary": tool.summary,
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    default = None if parameter.required or parameter.default is OMITTED else parameter.default
    return {
        "name": parameter.name,
        "required": parameter.required,
        "type": annotation_of(parameter.annotation),
        "default": default,
        "description": parameter.description,
    }
