"""An MCP server, made with the official SDK, that does what it is asked to: also what no server should.

    python awkward_server.py FOLDER [deaf | chatty | endless]

FOLDER/tools.json, where it is, has changes to its definitions by tool name (null takes one away); FOLDER/lines has what
its write tools wrote; FOLDER/starts has a line per start; FOLDER/waiting is there once `wait` was
called, FOLDER/cancelled once a call was cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp import MCPError
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def _object(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required or list(properties)}


TEXT, NUMBER = {"type": "string"}, {"type": "number"}
DEFINITIONS: dict[str, dict[str, Any]] = {
    "add": {
        "description": "Add two numbers.",
        "inputSchema": _object(a=NUMBER, b=NUMBER),
        "outputSchema": _object(sum=NUMBER),
        "annotations": {"readOnlyHint": True},
    },
    "write-line": {"description": "Write a line.", "inputSchema": _object(text=TEXT)},
    "set-line": {
        "description": "Write a line, once.",
        "inputSchema": _object(text=TEXT),
        "annotations": {"idempotentHint": True, "readOnlyHint": False, "destructiveHint": False},
    },
    "drop": {"description": "Lose it all.", "inputSchema": _object(), "annotations": {"destructiveHint": True}},
    "wait": {"description": "Take a while.", "inputSchema": _object(seconds=NUMBER, steps=NUMBER)},
    "lie": {"description": "Promise a number.", "inputSchema": _object(), "outputSchema": _object(sum=NUMBER)},
    "say": {"description": "Answer in some form.", "inputSchema": _object(form=TEXT)},
    "environment": {"description": "What it can see.", "inputSchema": _object()},
    "refuse": {"description": "Fail by the protocol.", "inputSchema": _object(code={"type": "integer"}, message=TEXT)},
    "large": {"description": "Say a lot.", "inputSchema": _object(characters={"type": "integer"})},
    "breed": {"description": "Start a child that leaves its group.", "inputSchema": _object()},
    "announce": {"description": "Say that the tools have changed.", "inputSchema": _object()},
}


def server(folder: Path, mode: str = "") -> Server[Any]:
    """The server, to be run over any transport."""
    lines, bus = folder / "lines", InMemorySubscriptionBus()

    async def list_tools(ctx: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        if mode == "deaf":
            await anyio.sleep(3600)
        changes = folder / "tools.json"
        known = DEFINITIONS | (json.loads(changes.read_text()) if changes.is_file() else {})
        tools = [Tool.model_validate({"name": name, **each}) for name, each in known.items() if each]
        first = int(params.cursor) if params and params.cursor else 0
        page = tools[first : first + 5]
        more = str(first + 5) if first + 5 < len(tools) else None
        return ListToolsResult(tools=page, next_cursor="0" if mode == "endless" else more)

    async def call_tool(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        args = params.arguments or {}
        match params.name:
            case "add":
                return _structured({"sum": args["a"] + args["b"]})
            case "lie":
                return _structured({"sum": "a secret number"})
            case "write-line" | "set-line":
                return await _write(lines, params.name, args["text"])
            case "wait":
                (folder / "waiting").touch()
                try:
                    return await _wait(ctx, args["seconds"], int(args["steps"]))
                except anyio.get_cancelled_exc_class():
                    (folder / "cancelled").touch()
                    raise
            case "say":
                return _said(args["form"])
            case "environment":
                return _text(json.dumps(dict(os.environ)))
            case "refuse":
                raise MCPError(args["code"], args["message"])
            case "large":
                return _text("x" * args["characters"])
            case "breed":
                child = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdin=subprocess.DEVNULL)
                return _text(str(child.pid))
            case "announce":
                await bus.publish(ToolsListChanged())  # to those who listen
                with contextlib.suppress(MCPError):
                    await ctx.session.send_tool_list_changed()  # as it was done before that
                return _text("{}")
        raise MCPError(-32602, f"Unknown tool: {params.name}")

    handlers: Any = {
        "on_list_tools": list_tools,
        "on_call_tool": call_tool,
        "on_subscriptions_listen": ListenHandler(bus),
    }
    return Server("awkward", version="1.0", **handlers)


async def _write(lines: Path, tool: str, text: str) -> CallToolResult:
    if text == "crash before":
        os._exit(3)
    known = lines.read_text().splitlines() if lines.is_file() else []
    if tool == "write-line" or text not in known:
        with lines.open("a") as file:
            file.write(f"{text}\n")
    if text == "crash after" and known.count(text) == 0:
        os._exit(3)
    return _text(json.dumps({"lines": len(known) + 1}))


async def _wait(ctx: Any, seconds: float, steps: int) -> CallToolResult:
    for step in range(steps):
        await anyio.sleep(seconds / steps)
        await ctx.session.report_progress(step + 1, steps)
    return _text("{}")


def _said(form: str) -> CallToolResult:
    image = ImageContent(type="image", data=PIXEL, mime_type="image/png")
    match form:
        case "image":
            return CallToolResult(content=[TextContent(type="text", text="Here:"), image])
        case "error":
            return CallToolResult(
                content=[TextContent(type="text", text="There is no such \u202ething.")], is_error=True
            )
    return _text(form)


def _text(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)])


def _structured(value: dict[str, Any]) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=json.dumps(value))], structured_content=value)


async def _main(folder: Path, mode: str) -> None:
    with (folder / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if mode == "chatty":
        print("Welcome to the awkward server!", flush=True)
        print("x" * 100_000, file=sys.stderr)
    made = server(folder, mode)
    async with stdio_server() as (read, write):
        await made.run(read, write, made.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
