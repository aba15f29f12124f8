"""Connections to real servers, over stdio and HTTP: those that behave, and those that do not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from mcp import MCPError
from mcp_over_http import over_http, over_sse
from mcp_world import no_credential

from gateway.mcp_client.config import Http, ServerConfig, Stdio, Transport
from gateway.mcp_client.connection import Connection
from gateway.mcp_client.listing import Listing
from gateway.mcp_client.problems import NeedsLogin, Unusable
from gateway.mcp_client.references import Lookup
from gateway.mcp_client.results import value_of
from gateway.settings import McpSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

AWKWARD = str(Path(__file__).with_name("awkward_server.py"))
LISTINGS: list[Listing] = []
_LEFT_OUT = "a tool is left out whose name is empty, too long"[:40]


def stdio(folder: Path, mode: str = "", **env: str) -> Stdio:
    return Stdio(sys.executable, (AWKWARD, str(folder), mode), env, str(folder))


@asynccontextmanager
async def connection(
    transport: Transport, secrets: frozenset[str] = frozenset(), credential: Lookup = no_credential, **limits: Any
) -> AsyncIterator[Connection]:
    LISTINGS.clear()

    async def listed(listing: Listing) -> None:
        LISTINGS.append(listing)

    settings = McpSettings(**{"backoff_s": 30, "stop_grace_s": 1, **limits})
    config = ServerConfig("", "awkward", "awkward", transport, secrets=secrets)
    made = Connection(config, settings, listed, lambda text: text, credential)
    yield made
    await made.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("awkward")


@pytest_asyncio.fixture(params=["stdio", "http", "json", "sse"], scope="module", loop_scope="module")
async def shared(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Connection]:
    """One connection each way; the way is found out, not told."""
    if request.param == "stdio":
        async with connection(stdio(folder), message_mb=1) as made:
            yield made
        return
    over = over_sse(folder) if request.param == "sse" else over_http(folder, json=request.param == "json")
    async with over as front, connection(Http(front.url), message_mb=1) as made:
        yield made


async def test_all_pages_of_tools_are_listed_and_tools_answer(shared: Connection) -> None:
    assert value_of(await shared.call("add", {"a": 1, "b": 2})) == {"sum": 3}
    assert shared.state == "ready"
    assert len(LISTINGS[-1].definitions) == 12
    assert LISTINGS[-1].definitions[0].annotations == {"readOnlyHint": True}
    assert LISTINGS[-1].program == "awkward 1.0"


@pytest.mark.parametrize("kept", ["environment", "credential"])
async def test_what_a_server_was_given_is_taken_out_of_what_it_says_of_its_tools(kept: str, tmp_path: Path) -> None:
    secret = "tok_0123456789"
    schema = {"type": "object", "properties": {"key": {"type": "string", "default": secret}}}
    told = {"description": f"Calls with {secret}.", "inputSchema": schema, "annotations": {"title": secret}}
    (tmp_path / "tools.json").write_text(json.dumps({"add": told}))

    async def credential(tenant: str, name: str) -> str:
        return secret

    given = "secret://api_token" if kept == "credential" else secret
    secrets = frozenset({secret} if kept == "environment" else ())
    async with connection(stdio(tmp_path, API_TOKEN=given), secrets, credential) as made:
        await made.connected()
    [add] = [each for each in LISTINGS[-1].definitions if each.name == "add"]
    assert add.description == "Calls with [secret]."
    assert secret not in repr(LISTINGS)


async def test_calls_run_beside_one_another(shared: Connection) -> None:
    slow = asyncio.create_task(shared.call("wait", {"seconds": 3600, "steps": 1}))
    assert value_of(await shared.call("add", {"a": 2, "b": 2})) == {"sum": 4}
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert value_of(await shared.call("add", {"a": 2, "b": 3})) == {"sum": 5}


@pytest.mark.parametrize("shared", ["stdio", "http"], indirect=True)  # the SDK's server does not listen in the others
async def test_a_server_hears_of_a_call_that_is_given_up(shared: Connection, folder: Path) -> None:
    for name in ("cancelled", "waiting"):
        (folder / name).unlink(missing_ok=True)
    slow = asyncio.create_task(shared.call("wait", {"seconds": 3600, "steps": 1}))
    await until((folder / "waiting").exists)  # over HTTP each call is a request of its own, in any order
    slow.cancel()
    async with asyncio.timeout(60):
        await until((folder / "cancelled").exists)


async def test_an_error_of_the_protocol_is_the_calls_alone(shared: Connection) -> None:
    with pytest.raises(MCPError, match="not like this"):
        await shared.call("refuse", {"code": -32602, "message": "not like this"})
    assert value_of(await shared.call("add", {"a": 2, "b": 2})) == {"sum": 4}


async def test_a_list_that_changes_is_read_again(shared: Connection) -> None:
    await shared.connected()
    LISTINGS.clear()
    await shared.call("announce", {})
    async with asyncio.timeout(20):
        await until(lambda: bool(LISTINGS))


async def test_a_message_over_the_limit_is_not_taken(shared: Connection) -> None:
    with pytest.raises((MCPError, Unusable)):
        await shared.call("large", {"characters": 3_000_000})
    async with asyncio.timeout(20):
        while True:
            try:
                assert value_of(await shared.call("add", {"a": 2, "b": 2})) == {"sum": 4}
                return
            except Unusable:  # it is on its way back
                shared._not_before = 0


async def test_a_server_that_crashes_in_a_call_is_started_again_for_the_next(folder: Path) -> None:
    async with connection(stdio(folder)) as made:
        with pytest.raises(MCPError):
            await made.call("write-line", {"text": "crash before"})
        assert value_of(await made.call("add", {"a": 2, "b": 2})) == {"sum": 4}
        assert made.state == "ready"


async def test_a_server_that_does_not_start_says_so_and_is_left_alone_for_a_while(folder: Path) -> None:
    program = "import sys; sys.exit(4)"
    async with connection(Stdio(sys.executable, ("-c", program))) as made:
        for _ in range(2):
            with pytest.raises(Unusable, match="ended with status 4"):
                await made.call("add", {})
        assert (made.state, made.detail) == ("down", "it ended with status 4")
        with pytest.raises(Unusable, match="tried again in"):
            await made.connected()
        with pytest.raises(Unusable, match=r"status 4$"):
            await made.connected(now=True)


async def crashed(made: Connection) -> None:
    """Twice in a row, that is: after the first time there is no pause."""
    made._failures = 1
    with pytest.raises(MCPError):
        await made.call("write-line", {"text": "crash before"})


async def test_a_call_waits_for_a_server_that_is_about_to_be_started_again(tmp_path: Path) -> None:
    async with connection(stdio(tmp_path), backoff_s=0.3, wait_s=60) as made:
        await crashed(made)
        starts = (tmp_path / "starts").read_text().count("\n")
        values = await asyncio.gather(*(made.call("add", {"a": each, "b": 1}) for each in range(20)))
        assert [value_of(value)["sum"] for value in values] == list(range(1, 21))
        assert (tmp_path / "starts").read_text().count("\n") == starts + 1
        assert made.state == "ready"


async def test_a_call_waits_for_no_longer_than_it_is_told_and_not_beyond_the_end(tmp_path: Path) -> None:
    async with connection(stdio(tmp_path), backoff_s=300, wait_s=100) as made:
        await crashed(made)
        with pytest.raises(Unusable, match="tried again in"):
            await made.call("add", {"a": 1, "b": 1})
        made._settings = made._settings.model_copy(update={"wait_s": 1000})
        waiting = asyncio.create_task(made.call("add", {"a": 1, "b": 1}))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await made.close()
        with pytest.raises(Unusable, match="being closed"):
            await waiting


async def test_a_call_that_comes_while_an_idle_connection_ends_gets_the_next_one(tmp_path: Path) -> None:
    async with connection(stdio(tmp_path), idle_s=0.2) as made:
        await made.connected()
        async with asyncio.timeout(20):
            await until(lambda: made._leaving)
        assert value_of(await made.call("add", {"a": 1, "b": 1})) == {"sum": 2}
        assert (tmp_path / "starts").read_text().count("\n") == 2


async def test_a_program_that_is_missing_is_named() -> None:
    async with connection(Stdio("no-such-mcp-server")) as made:
        with pytest.raises(Unusable, match="'no-such-mcp-server' is not installed"):
            await made.connected()


async def test_a_server_that_greets_with_text_is_understood(folder: Path) -> None:
    async with connection(stdio(folder, "chatty")) as made:
        assert value_of(await made.call("add", {"a": 1, "b": 2})) == {"sum": 3}


async def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    async with over_http(tmp_path, "deaf") as front, connection(Http(front.url), connect_s=0.5) as made:
        with pytest.raises(Unusable, match="did not answer within"):
            await made.connected()
        assert made.state == "down"


async def test_a_program_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    script = "echo $$ > pid; sleep 1000 & wait"
    async with connection(Stdio("sh", ("-c", script), {}, str(tmp_path)), connect_s=1) as made:
        with pytest.raises(Unusable, match="did not answer within 1 s"):
            await made.connected()
        assert made.state == "down"
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_list_without_end_is_refused(tmp_path: Path) -> None:
    async with over_http(tmp_path, "endless") as front, connection(Http(front.url)) as made:
        with pytest.raises(Unusable, match="no end"):
            await made.connected()


async def test_tools_over_the_limits_are_left_out_and_noted(tmp_path: Path) -> None:
    more = {name: {"inputSchema": {"type": "object"}} for name in ("more", "\u202eevil", "y" * 300)}
    more["big"] = {"description": "x" * 3000, "inputSchema": {"type": "object"}}
    (tmp_path / "tools.json").write_text(json.dumps(more))
    async with over_http(tmp_path) as front, connection(Http(front.url), tools=13, definition_kb=2) as made:
        await made.connected()
        assert [each.name for each in LISTINGS[-1].definitions[12:]] == ["more"]
        assert [note.rpartition(": ")[0][:40] for note in LISTINGS[-1].notes[:2]] == [_LEFT_OUT, _LEFT_OUT]
        assert LISTINGS[-1].notes[2] == "only its first 13 tools are taken (mcp.tools)"
    async with over_http(tmp_path) as front, connection(Http(front.url), definition_kb=2) as made:
        await made.connected()
        assert LISTINGS[-1].notes[2] == "'big' is left out: its definition is over 2 KiB (mcp.definition_kb)"


async def test_silence_ends_a_call_and_progress_does_not(tmp_path: Path) -> None:
    async with over_http(tmp_path) as front, connection(Http(front.url), silence_s=2) as made:
        with pytest.raises(TimeoutError):
            await made.call("wait", {"seconds": 60, "steps": 1})
        await made.call("wait", {"seconds": 3, "steps": 30})


async def test_a_login_that_is_wanted_is_a_state_of_its_own(tmp_path: Path) -> None:
    async with over_http(tmp_path) as front, connection(Http(front.url), wait_s=3600) as made:
        front.status, front.headers = 401, {"www-authenticate": 'Bearer resource_metadata="https://x.example/m"'}
        with pytest.raises(NeedsLogin, match="wants a login"):
            await made.connected()
        assert made.state == "needs login"
        with pytest.raises(NeedsLogin):
            await made.connected(now=True)
        front.status = 0
        with pytest.raises(Unusable, match=r"wants a login .* tried again in"):  # waiting brings no login
            await made.connected()
        await made.connected(now=True)
        assert made.state == "ready"
        front.status = 403
        with pytest.raises(NeedsLogin):
            await made.call("write-line", {"text": "never"})
        async with asyncio.timeout(20):
            await until(lambda: made.state == "needs login")
    assert not (tmp_path / "lines").exists()


async def test_an_endpoint_that_asks_to_wait_is_left_alone_for_so_long(tmp_path: Path) -> None:
    async with over_http(tmp_path) as front, connection(Http(front.url), backoff_s=0.01) as made:
        await made.connected()
        front.status, front.headers = 429, {"retry-after": "120"}
        with pytest.raises(Unusable, match="asks to wait") as refused:
            await made.call("add", {"a": 1, "b": 1})
        assert refused.value.retry_s == 120
        assert made.state == "ready"
        front.headers = {"retry-after": "3600"}
        second = Connection(
            made._config, McpSettings(backoff_s=0.01, backoff_maximum_s=100), made._listed, str, no_credential
        )
        with pytest.raises(Unusable, match="asks to wait"):
            await second.connected()
        assert 90 < second.retry_s <= 100
        front.headers = {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}
        with pytest.raises(Unusable, match="asks to wait"):
            await second.connected(now=True)
        assert second.retry_s < 90
        await second.close()


async def test_an_endpoint_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    async with over_http(tmp_path) as front, connection(Http(front.url)) as made:
        await made.connected()
        front.status = 500
        with pytest.raises(MCPError):
            await made.call("add", {"a": 1, "b": 1})
        front.status = 0
        assert value_of(await made.call("add", {"a": 1, "b": 1})) == {"sum": 2}
    async with connection(Http("http://127.0.0.1:9/mcp")) as made:
        with pytest.raises(Unusable, match="nothing answers"):
            await made.connected()


async def test_headers_are_sent_with_every_request(tmp_path: Path) -> None:
    async with over_http(tmp_path) as front, connection(Http(front.url, {"Authorization": "Bearer hunter22"})) as made:
        await made.call("add", {"a": 1, "b": 1})
        assert {headers.get("authorization") for _, headers in front.seen} == {"Bearer hunter22"}


async def test_a_credential_is_put_in_when_the_connection_is_made(tmp_path: Path) -> None:
    known: dict[tuple[str, str], str] = {}

    async def credential(tenant: str, name: str) -> str:
        return known[tenant, name] if (tenant, name) in known else await no_credential(tenant, name)

    async with over_http(tmp_path) as front, connection(Http(front.url)) as made:
        headers = {"Authorization": "Bearer ${secret://crm_key}"}
        made._config = ServerConfig("acme", "crm", "crm", Http(front.url, headers))
        made._credential = credential
        known["other", "crm_key"] = "another tenant's"
        with pytest.raises(Unusable, match="needs a credential: Tenant 'acme' has no credential 'crm_key'"):
            await made.connected()
        known["acme", "crm_key"] = "two\r\nX-Lines: 1"
        with pytest.raises(Unusable, match="more than one line") as refused:
            await made.connected(now=True)
        assert "X-Lines" not in str(refused.value)
        assert front.seen == []
        known["acme", "crm_key"] = "hunter22"
        await made.connected(now=True)
        assert {headers.get("authorization") for _, headers in front.seen} == {"Bearer hunter22"}


async def test_an_idle_connection_is_closed_and_made_again_for_the_next_call(tmp_path: Path) -> None:
    async with over_http(tmp_path) as front, connection(Http(front.url), idle_s=0.1) as made:
        await made.connected()
        async with asyncio.timeout(20):
            await until(lambda: made.state == "idle")
        assert value_of(await made.call("add", {"a": 1, "b": 1})) == {"sum": 2}


async def test_a_server_sees_its_own_environment_and_not_the_gateways(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-gateways-own")
    monkeypatch.setenv("OMNIOPS_SERVER__TOKEN", "the-gateways-token")
    async with connection(stdio(folder, TOKEN="its-own")) as made:
        seen = value_of(await made.call("environment", {}))
        assert seen["TOKEN"] == "its-own"
        assert seen["PATH"] == os.environ["PATH"]
        assert seen.keys() <= {"HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR"} | {
            "TOKEN",
            "TZ",
            "USER",
        }
        child = int(value_of(await made.call("breed", {})))
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
