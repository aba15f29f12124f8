"""Two gateways with data folders of their own on one database: each serves the other's sessions; docs/gateways.md."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from httpx_sse import connect_sse
from jupyter_world import SHOP, wait_for
from loopback import listening
from socket_client import socket
from survival_world import Doomed, World, begin, survival_world, text_of

from demo.model.app import create_app as scripted
from demo.model.script import Script, Step

pytestmark = pytest.mark.timeout(300)

_SETTINGS = {
    "OMNIOPS_PEERS__LEASE_S": "4",
    "OMNIOPS_APPROVALS__HOLD_S": "0",
    "OMNIOPS_APPROVALS__OWN_SESSIONS": "true",
    "OMNIOPS_APPROVALS__LOOK_S": "0.1",
    "OMNIOPS_APPROVALS__CLAIM_S": "1",
    "OMNIOPS_APPROVALS__ELSEWHERE_S": "0.1",
    "OMNIOPS_POOL__ORPHAN_GRACE_S": "20",
}


@contextmanager
def two(postgres: str, folder: Path, **settings: str) -> Iterator[tuple[World, Doomed, Doomed]]:
    """Two gateways; their world is the first one's."""
    with survival_world(postgres, folder, **_SETTINGS, **settings) as world:
        beside = folder / "beside"
        (beside / "data").mkdir(mode=0o700, parents=True)
        uids = range(world.uids.stop, world.uids.stop + 1000)
        other = dataclasses.replace(world, folder=beside, runtime=world.runtime.with_name("other"), uids=uids)
        with world.gateway() as first, other.gateway() as second:
            yield world, first, second


def test_each_serves_the_others_sessions_and_goes_on_with_them_when_it_is_gone(postgres: str, tmp_path: Path) -> None:
    with two(postgres, tmp_path) as (world, first, second), second.http() as http:
        session = first.create()
        first.run(session, "x = 41")
        # a cell of the first one's, as a stream, at the second
        with connect_sse(http, "POST", f"/v1/sessions/{session}/cells", json={"code": "print(x + 1)"},
                         headers={"accept": "text/event-stream"}) as stream:  # fmt: skip
            events = [(each.event, json.loads(each.data)) for each in stream.iter_sse() if each.data]
        assert [(kind, data["text"]) for kind, data in events[:-1]] == [("output", "42\n")]
        assert (events[-1][0], events[-1][1]["status"]) == ("cell", "ok")
        assert [each["state"] for each in http.get("/v1/sessions").json()] == ["live"]
        assert [each["status"] for each in http.get(f"/v1/sessions/{session}/cells").json()] == ["ok", "ok"]
        assert first.session(session) == second.session(session)
        assert len(http.get(f"/v1/transcripts/{session}").json()["cells"]) == 2
        _nobody_else_is_believed(second, session)

        kernel = _jupyter(first, "post")["id"]
        assert [each["id"] for each in _jupyter(second, "get")] == [kernel]
        with socket(second, kernel, session="one", token=SHOP) as client:  # type: ignore[arg-type]
            assert client.run("y = 5\nprint(y)").texts() == "5\n"

        # what waits for a person at the first is decided at the second
        paused = first.run(session, "from servers.counting import pay\npaid = pay(name='p', amount=7)\npaid['total']")
        assert paused["status"] == "paused"
        (request,) = http.get("/v1/approvals", params={"state": "pending"}).json()
        http.post(f"/v1/approvals/{request['id']}/approve").raise_for_status()
        wait_for(lambda: second.ended_cell(session, paused["cell"])["status"] == "ok")
        assert _effects(world, "p") == 1
        again = first.run(session, "more = pay(name='q', amount=8)\nmore['total']")
        assert again["status"] == "paused"

        first.process.kill()
        first.process.wait()
        assert "value:  (41, 7)" in second.run(session, "x, paid['total']")["envelope"]
        with socket(second, kernel, session="one", token=SHOP) as client:  # type: ignore[arg-type]
            assert client.run("print(y + 1)").texts() == "6\n"
        assert _effects(world, "p") == 1  # the journal answered: nobody was paid twice
        (request,) = http.get("/v1/approvals", params={"state": "pending"}).json()
        http.post(f"/v1/approvals/{request['id']}/approve").raise_for_status()
        wait_for(lambda: second.ended_cell(session, again["cell"])["status"] == "ok")
        assert (_effects(world, "p"), _effects(world, "q")) == (1, 1)
        found = http.get(f"/v1/transcripts/{session}/verification").json()
        assert (found["ok"], found["problems"]) == (True, [])
        assert len(http.get(f"/v1/transcripts/{session}").json()["cells"]) == 5

        with world.gateway() as third, third.http() as back:  # the first one is back: the session stays where it is
            assert "value:  41" in third.run(session, "x")["envelope"]
            assert back.get(f"/v1/transcripts/{session}/verification").json()["problems"] == []
            assert back.get("/v1/status").json()["pool"]["leased"] == 0


KEEP = Script("keep", "Remember", (Step("kept = 7", ()),), "It is kept.")
RECALL = Script("recall", "What was it?", (Step("print(kept)", ()),), "Seven.")


def test_what_names_its_session_in_the_body_finds_it_too(postgres: str, tmp_path: Path) -> None:
    model = scripted({each.message: each for each in (KEEP, RECALL)}, "model-key-1234567")
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(listening(model)) as model_url:
        told = {"OPENAI_BASE_URL": f"{model_url}/v1", "OPENAI_API_KEY": "model-key-1234567"}
        with two(postgres, tmp_path, **told) as (_, first, second), first.http() as one, second.http() as other:
            # a chat front end that does not know of sessions
            said = [{"role": "user", "content": KEEP.message}]
            begun = one.post("/v1/chat/completions", json={"model": "shop", "messages": said})
            said += [{"role": "assistant", "content": KEEP.answer}, {"role": "user", "content": RECALL.message}]
            gone_on = other.post("/v1/chat/completions", json={"model": "shop", "messages": said})
            assert gone_on.status_code == 200, gone_on.text
            assert gone_on.json()["choices"][0]["message"]["content"] == RECALL.answer
            assert gone_on.headers["x-omniops-session"] == begun.headers["x-omniops-session"]
            said += [{"role": "assistant", "content": RECALL.answer}, {"role": "user", "content": KEEP.message}]
            streamed = other.post("/v1/chat/completions", json={"model": "shop", "messages": said, "stream": True})
            assert streamed.headers["x-omniops-session"] == begun.headers["x-omniops-session"]
            assert streamed.text.rstrip().endswith("data: [DONE]")

            # a model behind MCP
            session = first.create()
            first.run(session, "x = 41")
            assert "42" in _mcp(other, "run_cell", {"code": "x + 1", "session": session})

            # a file that is not held on its way, in pieces as they come
            def pieces() -> Iterator[bytes]:
                yield from (bytes([n]) * 2**20 for n in range(5))

            path = f"/v1/sessions/{session}/files/large"
            assert other.put(path, content=pieces()).status_code == 201
            told_of = first.run(session, "import os; data = open('large', 'rb').read(); len(data), data[-1]")
            assert "(5242880, 4)" in told_of["envelope"]
            assert other.get(path).content == b"".join(pieces())


def _mcp(http: httpx.Client, tool: str, arguments: dict[str, Any]) -> str:
    """Call a tool of the gateway's MCP server; its answer as it comes."""
    headers = {"accept": "application/json, text/event-stream"}
    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    begun = http.post("/mcp", headers=headers, json=_rpc(1, "initialize", about))
    if id := begun.headers.get("mcp-session-id"):
        headers["mcp-session-id"] = id
    answer = http.post("/mcp", headers=headers, json=_rpc(2, "tools/call", {"name": tool, "arguments": arguments}))
    assert answer.status_code == 200, answer.text
    return answer.text


def _rpc(id: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def test_a_gateway_that_was_stopped_finds_its_session_taken_and_writes_nothing_more(
    postgres: str, tmp_path: Path
) -> None:
    late = "from servers.counting import add\nimport time\nprint('begun', flush=True)\ntime.sleep(4)\nadd(name='late')"
    with two(postgres, tmp_path) as (world, first, second), second.http() as http:
        session = first.create()
        first.run(session, "x = 41")
        lost = begin(first, session, late, "late")
        wait_for(lambda: first.http().get(f"/v1/sessions/{session}/cells/late").status_code == 200)
        first.process.send_signal(signal.SIGSTOP)
        try:
            assert (
                "value:  41" in second.run(session, "from servers.counting import add\nadd(name='new')\nx")["envelope"]
            )
            time.sleep(3)  # its kernel makes its call meanwhile, and waits for its broker
        finally:
            first.process.send_signal(signal.SIGCONT)
        lost.join()
        wait_for(lambda: first.session(session)["state"] == "live")
        with first.http() as at_first:
            wait_for(lambda: at_first.get("/v1/status").json()["pool"]["leased"] == 0)  # it has let go of its kernel
            assert (_effects(world, "late"), _effects(world, "new")) == (0, 1)
            assert "value:  41" in first.run(session, "x")["envelope"]  # brought to the second
            for each in (at_first, http):
                assert each.get(f"/v1/transcripts/{session}/verification").json()["problems"] == []
                cells = each.get(f"/v1/transcripts/{session}").json()["cells"]
                assert [text_of(cell["outputs"]) for cell in cells] == ["", "", ""]
        assert second.ended_cell(session, "late")["status"] == "dead"


def _nobody_else_is_believed(gateway: Doomed, session: str) -> None:
    """Whoever says that a gateway sends him, without the gateways' secret, gets nothing."""
    for value in ("", "e30=.00", "e30=", f"{'a' * 400}.{'0' * 64}"):
        with httpx.Client(base_url=gateway.url, trust_env=False) as http:
            answer = http.get(f"/v1/sessions/{session}", headers={"x-omniops-peer": value})
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def _jupyter(gateway: Doomed, method: str) -> Any:
    headers = {"authorization": f"token {SHOP}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=30, trust_env=False) as http:
        return http.request(method, "/api/kernels").raise_for_status().json()


def _effects(world: World, name: str) -> int:
    import psycopg

    with psycopg.connect(world.database_url) as connection:
        found = connection.execute("SELECT count(*) FROM effect WHERE name = %s", (name,)).fetchone()
        return int(found[0]) if found else 0
