"""The page on the gateway as an MCP server: its configurations connect, its commands run, its tools are there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from npm_servers import inspector, npm_folder
from own_database import own_database
from served_gateway import ServedGateway, environment, served

from gateway.settings import McpServerSettings

PAGE = (Path(__file__).parents[2] / "docs" / "mcp-server.md").read_text()
KEY = "the-tenants-key"

pytestmark = pytest.mark.timeout(400)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def env(postgres: str) -> Iterator[dict[str, str]]:
    with own_database(postgres) as url:
        yield environment(url, OMNIOPS_TENANTS__ACME__TOKEN=KEY)


@pytest.fixture(scope="module")
def gateway(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    data = tmp_path_factory.mktemp("mcp-server-page") / "data"
    data.mkdir(mode=0o700)
    with served(data, env) as running:
        yield running


async def tools_of(client: Client) -> dict[str, Any]:
    async with client:
        return {tool.name: tool for tool in (await client.list_tools()).tools}


def over_stdio(gateway: ServedGateway) -> Client:
    """As the page's first configuration has it."""
    config = json.loads(blocks("json")[0])["mcpServers"]["omniops"]
    assert config["command"] == "omniops"
    env = environment(**(config["env"] | {"OMNIOPS_CLIENT__URL": gateway.url}))
    args = ["-m", "gateway.cli", *config["args"]]
    return Client(StdioServerParameters(command=sys.executable, args=args, env=env, cwd=gateway.data_dir.parent))


async def test_the_configurations_connect_and_the_tools_are_those_of_the_page(gateway: ServedGateway) -> None:
    by_http = json.loads(blocks("json")[1])["mcpServers"]["omniops"]
    named = re.findall(r"^\| `(\w+)` \|", PAGE, re.M)
    assert list(await tools_of(over_stdio(gateway))) == named
    async with httpx2.AsyncClient(headers=by_http["headers"], timeout=60) as http:
        url = by_http["url"].replace("http://127.0.0.1:8765", gateway.url)
        assert list(await tools_of(Client(streamable_http_client(url, http_client=http)))) == named


def test_the_commands_run(gateway: ServedGateway) -> None:
    short = shlex.join(inspector(npm_folder()))
    script = blocks("sh")[0].replace("npx @modelcontextprotocol/inspector@1 --cli", short)
    env = environment(GATEWAY=gateway.url, KEY=KEY)
    done = subprocess.run(["sh", "-ec", script], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "describe_tool" in done.stdout
    assert "42" in done.stdout


def test_a_wrong_key_is_said_at_once(gateway: ServedGateway) -> None:
    env = environment(OMNIOPS_CLIENT__URL=gateway.url, OMNIOPS_CLIENT__TOKEN="wrong")
    command = [sys.executable, "-m", "gateway.cli", "mcp", "serve"]
    done = subprocess.run(command, env=env, input="", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "The access token is wrong." in done.stderr


def test_the_settings_are_those_that_there_are() -> None:
    assert set(re.findall(r"`mcp_server\.(\w+)`", PAGE)) == set(McpServerSettings.model_fields)


async def test_a_gateway_that_is_started_again_goes_on_with_the_session(
    gateway: ServedGateway, env: dict[str, str]
) -> None:
    """The last one of the module: it ends the gateway."""
    port = gateway.url.rpartition(":")[2]
    async with over_stdio(gateway) as client:
        first = (await client.call_tool("run_cell", {"code": "kept = 6 * 7"})).structured_content
        assert gateway.stop() == 0
        away = await client.call_tool("run_cell", {"code": "kept"})
        assert away.is_error
        assert "gateway" in str(away.content)
        with served(gateway.data_dir, env, "--port", port):
            again = await client.call_tool("run_cell", {"code": "kept"})
    assert not again.is_error, again.content
    assert again.structured_content["session"] == first["session"]
    assert "42" in again.structured_content["envelope"]
