"""The gateway as an MCP server: the protocol's own client over HTTP and stdio, MCP Inspector, and hostile requests."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import counting
import httpx
import httpx2
import pytest
import pytest_asyncio
from gateway_world import environment, own_database, settings_for
from loopback import listening
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from npm_servers import inspector, npm_folder

from gateway.app import create_app
from gateway.runtime import Gateway, open_gateway

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

SHOP, OTHER = "the-shops-own-token", "the-others-own-token"
MODERN = "2026-07-28"
SLOW = "import time\nprint('begun', flush=True)\ntime.sleep(60)"


@dataclass
class Place:
    url: str
    gateway: Gateway
    folder: Path

    @asynccontextmanager
    async def client(self, token: str = SHOP, mode: Any = "legacy", **more: Any) -> AsyncIterator[Client]:
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode=mode, cache=None, **more) as made,
        ):
            yield made

    @asynccontextmanager
    async def over_stdio(self, token: str = SHOP) -> AsyncIterator[Client]:
        env = environment(OMNIOPS_CLIENT__URL=self.url, OMNIOPS_CLIENT__TOKEN=token)
        env["OMNIOPS_MCP_SERVER__PROGRESS_CHARS"] = "10"
        command = StdioServerParameters(
            command=sys.executable, args=["-m", "gateway.cli", "mcp", "serve"], env=env, cwd=self.folder
        )
        async with Client(command, mode="legacy", cache=None) as made:
            yield made

    async def cells(self) -> list[dict[str, Any]]:
        return await self.gateway.database.fetch("SELECT session, code, status FROM cell ORDER BY started DESC")

    async def inspect(self, *arguments: str) -> Any:
        command = inspector(npm_folder(), *arguments)
        env = os.environ | {"OMNIOPS_CLIENT__URL": self.url, "OMNIOPS_CLIENT__TOKEN": SHOP}
        done = await asyncio.to_thread(
            subprocess.run, command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def text_of(result: Any) -> str:
    return "\n".join(part.text for part in result.content if part.type == "text")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("mcp-server")
    with own_database(postgres) as url:
        settings = settings_for(
            folder / "data",
            url,
            tenants={"shop": {"token": SHOP}, "other": {"token": OTHER}},
            agent={"everyday_tools": ()},
            server={"shutdown_grace_s": 2, "max_request_mb": 1, "heartbeat_s": 0.1},
            mcp_server={"page": 2, "progress_chars": 10, "resource_kb": 64, "max_sessions": 20},
        )
        async with open_gateway(settings, registry=counting.registry()) as gateway:
            await gateway.database.execute(counting.UPSTREAM)
            async with listening(create_app(gateway)) as here:
                yield Place(here, gateway, folder)


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def no_kernels_left(place: Place) -> AsyncIterator[None]:
    yield
    for each in await place.gateway.sessions.list(limit=1000):
        await place.gateway.sessions.end(each.id)


@pytest.mark.parametrize("over", ["http", "stdio"])
async def test_cells_run_in_the_connections_session_and_tell_how_they_go(place: Place, over: str) -> None:
    told: list[tuple[float, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, message))

    async with place.client() if over == "http" else place.over_stdio() as client:
        assert client.server_info.name == "omniops-kernels"
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert sorted(tools) == ["describe_tool", "end_session", "list_sessions", "run_cell", "search_tools"]
        code = "import time\nfor n in range(3):\n    print('x' * 20, n, flush=True)\n    time.sleep(0.3)\nkept = 7"
        first = await client.call_tool("run_cell", {"code": code}, progress_callback=progress)
        ran = first.structured_content
        assert (ran["status"], ran["index"], first.is_error) == ("ok", 1, False)
        assert ran["envelope"] in text_of(first)
        assert ran["session"] in text_of(first)
        assert [done for done, _ in told] == sorted({done for done, _ in told})
        assert len(told) > 1
        assert all(message and len(message) <= 10 for _, message in told)  # mcp_server.progress_chars
        second = await client.call_tool("run_cell", {"code": "kept"})
        assert (second.structured_content["session"], second.structured_content["index"]) == (ran["session"], 2)
        assert "7" in second.structured_content["envelope"]
        failed = await client.call_tool("run_cell", {"code": "1/0", "session": ran["session"]})
        assert (failed.structured_content["status"], failed.is_error) == ("error", True)
        info = await place.gateway.sessions.get(ran["session"])
        assert (info.tenant, info.role) == ("shop", "analyst")
        over_now = await client.call_tool("end_session", {})
        assert over_now.structured_content == {"session": ran["session"], "ended": True}
        anew = await client.call_tool("run_cell", {"code": "'kept' in globals()"})
        assert "False" in anew.structured_content["envelope"]


async def test_without_connections_a_session_goes_by_its_id(place: Place) -> None:
    async with place.client(mode=MODERN) as client:
        first = (await client.call_tool("run_cell", {"code": "kept = 7"})).structured_content
        other = (await client.call_tool("run_cell", {"code": "'kept' in globals()"})).structured_content
        assert other["session"] != first["session"]
        again = await client.call_tool("run_cell", {"code": "kept", "session": first["session"]})
        assert "7" in again.structured_content["envelope"]


async def test_a_lost_kernel_is_replaced_and_its_cells_run_again(place: Place) -> None:
    async with place.client() as client:
        session = (await client.call_tool("run_cell", {"code": "kept = 7"})).structured_content["session"]
        kernel = place.gateway.sessions.kernel(session)
        assert kernel is not None
        await place.gateway.pool.release(kernel)
        again = (await client.call_tool("run_cell", {"code": "kept"})).structured_content
        assert (again["session"], again["status"]) == (session, "ok"), again
        assert (again["restored"], "7" in again["envelope"]) == (True, True)


@pytest.mark.parametrize("how", ["legacy", MODERN, "stdio"])
async def test_a_call_that_is_given_up_interrupts_its_cell(place: Place, how: str) -> None:
    begun = asyncio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        begun.set()

    async with place.over_stdio() if how == "stdio" else place.client(mode=how) as client:
        asking = asyncio.create_task(client.call_tool("run_cell", {"code": SLOW}, progress_callback=progress))
        await asyncio.wait({asking, asyncio.create_task(begun.wait())}, return_when=asyncio.FIRST_COMPLETED)
        assert begun.is_set(), asking.result()
        asking.cancel()
        async with asyncio.timeout(60):
            while (await place.cells())[0]["status"] == "running":
                await asyncio.sleep(0.05)
    assert (await place.cells())[0]["status"] == "interrupted"


async def test_tools_are_found_and_described(place: Place) -> None:
    async with place.client() as client:
        found = await client.call_tool("search_tools", {"query": "add to an account", "limit": 3})
        names = [each["name"] for each in found.structured_content["tools"]]
        assert "counting.add" in names
        assert "add(" in text_of(found)
        record = await client.call_tool("describe_tool", {"name": "counting.add"})
        assert record.structured_content["input_schema"]["type"] == "object"
        assert "def add(" in text_of(record)
        missing = await client.call_tool("describe_tool", {"name": "counting.ad"})
        assert (missing.is_error, "Did you mean" in text_of(missing)) == (True, True)


async def test_a_call_that_waits_for_a_person_is_told(place: Place) -> None:
    async with place.client(place.gateway.token) as client:
        code = "from servers.counting import pay\npay(name='a', amount=7)"
        asked = {"code": code, "tenant": "shop", "role": "agent", "deadline_s": 10.0}
        result = await client.call_tool("run_cell", asked)
        if result.structured_content["status"] == "paused":
            assert not result.is_error
        assert [call["tool"] for call in result.structured_content["calls"]] == ["counting.pay"]
        several = await client.call_tool("run_cell", {"code": "1", "session": None})
        assert several.structured_content["session"] == result.structured_content["session"]
    async with place.client(place.gateway.token) as client:
        which = await client.call_tool("run_cell", {"code": "1"})
        assert (which.is_error, "several tenants" in text_of(which)) == (True, True)


async def test_transcripts_are_resources_in_pages(place: Place) -> None:
    async with place.client() as client:
        made = []
        for _ in range(3):
            asked = {"code": "print('anna@example.com')"}
            made.append((await client.call_tool("run_cell", asked)).structured_content["session"])
            await client.call_tool("end_session", {})
        seen, cursor = [], None
        while True:
            page = await client.list_resources(cursor=cursor)
            seen += [each.uri for each in page.resources]
            assert len(page.resources) <= 2  # mcp_server.page
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen[:3] == [f"transcript://{session}" for session in reversed(made)]
        assert len(seen) == len(set(seen))
        (template,) = (await client.list_resource_templates()).resource_templates
        assert template.uri_template == "transcript://{session}"
        (notebook,) = (await client.read_resource(seen[0])).contents
        assert json.loads(notebook.text)["nbformat"] == 4
        assert "anna@" not in notebook.text
        for uri in ("transcript://nobody", "transcript://../other", "file:///etc/passwd", f"{seen[0]}/x", "x" * 9000):
            with pytest.raises(MCPError, match=r"no (resource|transcript)"):
                await client.read_resource(uri)
        with pytest.raises(MCPError, match="cursor"):
            await client.list_resources(cursor="-1")
        large = {"code": "print('\\n'.join('line %d' % n for n in range(20_000)))"}
        session = (await client.call_tool("run_cell", large)).structured_content["session"]
        with pytest.raises(MCPError, match="larger than"):
            await client.read_resource(f"transcript://{session}")


async def test_another_tenants_things_are_not_found(place: Place) -> None:
    async with place.client() as victim, place.client(OTHER) as attacker:
        session = (await victim.call_tool("run_cell", {"code": "secret = 7"})).structured_content["session"]
        for name, arguments in (
            ("run_cell", {"code": "secret", "session": session}),
            ("end_session", {"session": session}),
            ("run_cell", {"code": "1", "tenant": "shop"}),
            ("list_sessions", {"tenant": "shop"}),
            ("search_tools", {"query": "", "tenant": "shop"}),
        ):
            refused = await attacker.call_tool(name, arguments)
            assert refused.is_error, name
            assert "There is no session" in text_of(refused) or "does not reach" in text_of(refused)
        assert session not in text_of(await attacker.call_tool("list_sessions", {}))
        with pytest.raises(MCPError, match="no transcript"):
            await attacker.read_resource(f"transcript://{session}")
        assert session not in json.dumps([each.uri for each in (await attacker.list_resources()).resources])
        assert "7" in text_of(await victim.call_tool("run_cell", {"code": "secret"}))


def initialize(**more: Any) -> dict[str, Any]:
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params} | more


async def test_a_connection_is_its_keys_own_and_pages_of_strangers_are_kept_out(place: Place) -> None:
    accept = {"accept": "application/json, text/event-stream"}
    key = {"authorization": f"Bearer {SHOP}"}
    async with httpx.AsyncClient(base_url=place.url, headers=accept, timeout=60) as http:
        opened = await http.post("/mcp", json=initialize(), headers=key)
        assert opened.status_code == 200
        mine = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}
        lists = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        assert (await http.post("/mcp", json=lists, headers=key | mine)).status_code == 200
        theirs = await http.post("/mcp", json=lists, headers={"authorization": f"Bearer {OTHER}"} | mine)
        assert (theirs.status_code, "not found" in theirs.text) == (404, True)
        for headers in ({}, {"authorization": "Bearer wrong"}):
            assert (await http.post("/mcp", json=initialize(), headers=headers)).status_code == 401
        assert (await http.post(f"/mcp?token={SHOP}", json=initialize())).status_code == 401
        for headers, status in (
            ({"host": "attacker.example"}, 421),
            ({"host": "127.0.0.1.attacker.example:80"}, 421),
            ({"origin": "https://attacker.example"}, 403),
            ({"origin": "http://localhost.attacker.example"}, 403),
            ({"origin": "null"}, 403),
            ({"origin": "http://localhost:6274"}, 200),
        ):
            assert (await http.post("/mcp", json=initialize(), headers=key | headers)).status_code == status, headers
            modern = {"mcp-protocol-version": MODERN}
            answer = await http.post("/mcp", json=initialize(), headers=key | headers | modern)
            assert (answer.status_code == status) == (status != 200), headers


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("run_cell", {}, "code: Field required"),
        ("run_cell", {"code": 5}, "code"),
        ("run_cell", {"code": "1", "sesion": "x"}, "sesion"),
        ("run_cell", {"code": "1", "session": "../../x"}, "session"),
        ("run_cell", {"code": "1", "session": "x" * 65}, "session"),
        ("run_cell", {"code": "\x00"}, "NUL"),
        ("run_cell", {"code": "1", "deadline_s": -1}, "deadline_s"),
        ("run_cell", {"code": "1", "deadline_s": 1e9}, "deadline_s"),
        ("run_cell", {"code": "1", "role": "operator"}, "operator"),
        ("run_cell", {"code": "#" + "x" * 900_000}, "larger than"),
        ("search_tools", {"query": "x" * 5000}, "query"),
        ("describe_tool", {"name": "../../v1/status"}, "name"),
        ("describe_tool", {"name": "counting.ad"}, "Did you mean counting.add?"),
        ("end_session", {"session": "?tenant=other"}, "session"),
        ("end_session", {"session": "nobodys"}, "no session"),
    ],
)
async def test_arguments_that_cannot_be_are_told_to_the_model(
    place: Place, name: str, arguments: dict[str, Any], said: str
) -> None:
    async with place.client() as client:
        result = await client.call_tool(name, arguments)
        assert result.is_error
        assert said in text_of(result)
        with pytest.raises(MCPError, match="There is no tool"):
            await client.call_tool("no_such_tool", arguments)


async def test_bodies_that_are_no_messages_harm_nobody(place: Place) -> None:
    headers = {"authorization": f"Bearer {SHOP}", "content-type": "application/json"}
    headers["accept"] = "application/json, text/event-stream"
    async with httpx.AsyncClient(base_url=place.url, headers=headers, timeout=60) as http:
        for body in (b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"jsonrpc":"2.0","id":1,"method":5}', b"\xff\xfe"):
            for version in ("2025-06-18", MODERN):
                answer = await http.post("/mcp", content=body, headers={"mcp-protocol-version": version})
                assert 400 <= answer.status_code < 500, (body[:20], version, answer.text)
        assert (await http.post("/mcp", content=b"x" * (2**20 + 1))).status_code == 413
        assert (await http.put("/mcp")).status_code == 405
        assert (await http.get("/.well-known/oauth-protected-resource/mcp")).status_code == 404
    async with place.client() as client:
        assert (await client.call_tool("run_cell", {"code": "1"})).structured_content["status"] == "ok"


async def test_mcp_inspector_lists_calls_and_reads(place: Place) -> None:
    http = (f"{place.url}/mcp", "--transport", "http", "--header", f"Authorization: Bearer {SHOP}")
    stdio = (sys.executable, "-m", "gateway.cli", "mcp", "serve")
    run = ("--method", "tools/call", "--tool-name", "run_cell", "--tool-arg", "code=print(6 * 7)")
    tools = await place.inspect(*http, "--method", "tools/list")
    assert tools["tools"][0]["name"] == "run_cell"
    ran = await place.inspect(*http, *run)
    assert "42" in ran["content"][0]["text"]
    listed = await place.inspect(*http, "--method", "resources/list")
    uri = listed["resources"][0]["uri"]
    assert uri == f"transcript://{ran['structuredContent']['session']}"
    read = await place.inspect(*http, "--method", "resources/read", "--uri", uri)
    assert "42" in read["contents"][0]["text"]
    assert "42" in (await place.inspect(*stdio, *run))["content"][0]["text"]
