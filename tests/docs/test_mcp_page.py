"""The page on MCP servers: its files are read, its commands run, its cell runs, with a real server from npm."""

from __future__ import annotations

import json
import re
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from npm_servers import npm_folder
from own_database import own_database
from served_gateway import environment, served
from typer.testing import CliRunner

from gateway.cli import app
from gateway.mcp_client.problems import State
from gateway.settings import McpSettings

PAGE = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()

pytestmark = pytest.mark.timeout(400)  # the first may have to wait for npm


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@dataclass
class Crm:
    """A server over HTTP that lets in who has the token of the page."""

    url: str = ""
    tokens: list[str] = field(default_factory=list)

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        schema = {"type": "object", "properties": {}}
        results: dict[str, dict[str, Any]] = {
            "initialize": {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "crm", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "list_people", "inputSchema": schema}]},
        }
        found = results.get(message["method"])
        told = {"result": found} if found else {"error": {"code": -32601, "message": "no such method"}}
        return {"jsonrpc": "2.0", "id": message.get("id"), **told}


@pytest.fixture(scope="module")
def crm() -> Iterator[Crm]:
    made = Crm()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            made.tokens.append(self.headers.get("authorization", ""))
            known = made.tokens[-1] == "Bearer tok_0123456789"
            body = json.dumps(made.answer(message)).encode() if known and "id" in message else b""
            self.send_response(401 if not known else 200 if body else 202)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.send_error(405)

        do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.url = f"http://127.0.0.1:{server.server_address[1]}/mcp"
        yield made
        server.shutdown()


@dataclass(frozen=True)
class Operator:
    """Who follows the page, in a folder with its files and a gateway that runs on them."""

    folder: Path
    http: httpx.Client

    def does(self, line: str, status: int = 0) -> str:
        """A line of the page."""
        words, given = shlex.split(line), None
        if words[0] == "printf":
            given, words = words[2], words[4:]
        done = CliRunner().invoke(app, [*words[1:], "--data-dir", str(self.folder / ".omniops")], input=given)
        shown = f"{done.output}{done.exception or ''}"
        assert (words[0], done.exit_code) == ("omniops", status), shown
        return shown

    def state(self, server: str) -> str:
        found = self.http.get("/v1/servers").json()["servers"]
        state: str = next(each["state"] for each in found if each["module"] == server)
        return state


@pytest.fixture(scope="module")
def operator(postgres: str, crm: Crm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    modules, folder = npm_folder(), tmp_path_factory.mktemp("mcp-page")
    (folder / "shared").mkdir()
    (folder / "shared" / "note.txt").write_text("Call Anna.")
    for_all, own = map(json.loads, blocks("json"))
    script = modules / "@modelcontextprotocol" / "server-filesystem" / "dist" / "index.js"
    files = for_all["mcpServers"]["files"]
    assert files["args"][:2] == ["-y", "@modelcontextprotocol/server-filesystem"]
    files |= {"command": "node", "args": [str(script), *files["args"][2:]]}  # as npx would have it, without fetching it
    own["mcpServers"]["crm"]["url"] = crm.url
    (folder / "omniops.toml").write_text(blocks("toml")[0])
    (folder / ".mcp.json").write_text(json.dumps(for_all))
    (folder / "acme.mcp.json").write_text(json.dumps(own))
    data = folder / ".omniops"
    data.mkdir(mode=0o700)
    with own_database(postgres) as url, served(data, environment(url)) as gateway, gateway.client() as http:
        made = Operator(folder, http)
        deadline = time.monotonic() + 90
        while made.state("files") != "ready":
            assert time.monotonic() < deadline, http.get("/v1/servers").json()
            time.sleep(0.1)
        yield made


def test_the_commands_show_classify_and_accept(operator: Operator) -> None:
    look, say, change, _ = (block.splitlines() for block in blocks("sh"))
    shown, reconnected = map(operator.does, look)
    assert "ISSUES_TOKEN is not set in the gateway's environment" in shown
    assert reconnected == "files: ready\n"
    review, classify, write = map(operator.does, say)
    assert "files.read_text_file  unclassified, critical" in review
    assert classify == "files.read_text_file: read, for agent, operator\n"
    assert write == "files.create_directory: write, for operator\n"
    assert operator.does(change[0]) == operator.does(say[0])
    assert "has changed since you looked" in operator.does(change[1], status=1)


def test_the_cell_reads_through_the_server(operator: Operator) -> None:
    operator.does(blocks("sh")[1].splitlines()[1])
    session = operator.http.post("/v1/sessions", json={"tenant": "acme", "role": "agent"}).json()["id"]
    ran = operator.http.post(f"/v1/sessions/{session}/cells", json={"code": blocks("python")[0]}).json()
    assert ran["status"] == "ok", ran["envelope"]
    assert ran["outputs"][0]["text"] == "Call Anna.\n"


def test_the_credential_reaches_the_server_and_nobody_else(operator: Operator, crm: Crm) -> None:
    told = operator.does("omniops mcp status")
    assert "needs a credential: Tenant 'acme' has no credential 'crm_token'" in " ".join(told.split())
    for line in blocks("sh")[3].splitlines():
        told += operator.does(line)
    assert told.endswith("crm: ready\n")
    assert set(crm.tokens) == {"Bearer tok_0123456789"}
    for path in operator.folder.rglob("*"):
        if path.is_file() and path.stat().st_size < 1_000_000:
            assert b"tok_0123456789" not in path.read_bytes(), path
    assert "tok_0123456789" not in told + (operator.folder / ".omniops.log").read_text()


def test_the_states_and_settings_are_those_that_there_are() -> None:
    states = re.findall(r"^\| `([a-z ]+)` \|", PAGE, re.M)
    assert sorted(states) == sorted(get_args(State))
    named = set(re.findall(r"`mcp\.(\w+)`", PAGE))
    assert named <= set(McpSettings.model_fields)
    assert set(McpSettings.model_fields) - named - {"file", "watch_s"} == set()
