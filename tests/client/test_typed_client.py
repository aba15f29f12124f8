"""The Python client against a gateway, on connections that break."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cutting_proxy import CuttingProxy, cutting_proxy
from own_database import own_database
from served_gateway import ServedGateway, environment, served

import omniops_client
from omniops_client import (
    AsyncClient,
    BadAnswer,
    BadRequest,
    CellCancelled,
    CellFailed,
    Client,
    ConnectionFailed,
    Finished,
    Forbidden,
    NotFound,
    RateLimited,
    ServerError,
    Session,
    SessionLost,
    TimedOut,
    Unauthorized,
    core,
)
from omniops_client.errors import ApiError, error_of
from omniops_client.make_sync import make

FOLDER = Path(omniops_client.__file__).parent


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    data = tmp_path_factory.mktemp("client") / "data"
    data.mkdir(mode=0o700)
    with own_database(postgres) as url, served(data, environment(url)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def proxy(gateway: ServedGateway) -> Iterator[CuttingProxy]:
    with cutting_proxy(gateway.url) as proxy:
        yield proxy


@pytest.fixture
def client(gateway: ServedGateway, proxy: CuttingProxy) -> Iterator[Client]:
    proxy.budgets.clear()
    proxy.asked.clear()
    # a connection for each request: the proxy counts by connections
    with Client(proxy.url, gateway.token) as client:
        yield client


@pytest.fixture
def session(gateway: ServedGateway) -> Iterator[str]:
    with Client(gateway.url, gateway.token) as client, client.sessions.create("shop") as session:
        yield session.id


# -- made of one code --


def test_the_blocking_client_is_up_to_date(tmp_path: Path) -> None:
    make(tmp_path)
    for arguments in (["check", "--fix", "--ignore", "SIM117,UP028"], ["format"]):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "ruff",
                *arguments,
                "--quiet",
                "--config",
                FOLDER.parent / "pyproject.toml",
                tmp_path,
            ],
            check=False,
        )
    made = {path.name: path.read_text() for path in tmp_path.glob("*.py")}
    assert made == {path.name: path.read_text() for path in FOLDER.glob("_sync/*.py")}, "run `make client`"


def test_it_loads_nothing_of_the_gateway() -> None:
    heavy = "{'gateway', 'kernel_pool', 'servers', 'pydantic', 'fastapi', 'numpy', 'openai', 'unasync'}"
    code = f"import sys, omniops_client; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


# -- what breaks --


def test_a_session_is_made_once_though_its_answer_is_lost(client: Client, proxy: CuttingProxy) -> None:
    proxy.budgets[:] = [0, 20, None]
    with client.sessions.create("shop", title="made once") as session:
        assert proxy.asked[:2] == ["POST /v1/sessions"] * 2
        titles = [info.title for info in client.sessions.list("shop") if info.state != "ended"]
        assert titles.count("made once") == 1
        assert session.info.tenant == "shop"


@pytest.mark.parametrize("budget", [0, 1, 150, 420])
def test_a_stream_that_breaks_anywhere_gives_each_output_once(
    client: Client, proxy: CuttingProxy, session: str, budget: int
) -> None:
    opened = client.sessions.open(session)
    client._http._http.close()  # the connection that is open is no longer used
    with Client(proxy.url, opened._http.options.token) as fresh:
        opened = Session(fresh._http, opened.info)
        proxy.budgets[:] = [budget, budget, None]
        shown: list[str] = []
        code = (
            "n = globals().get('n', 0) + 1\nimport time\nfor i in range(20): print(i, flush=True); time.sleep(0.01)\nn"
        )
        result = opened.run(code, on_output=shown.append)
    assert "".join(shown) == "".join(f"{i}\n" for i in range(20)) + f"{result.value}\n"
    assert result.value == "1"  # it ran once
    assert len(proxy.asked) > 1


def test_who_asks_for_a_cell_again_by_its_id_runs_it_again(
    gateway: ServedGateway, proxy: CuttingProxy, session: str
) -> None:
    with Client(proxy.url, gateway.token) as client:
        proxy.budgets[:] = [None, 0, None]
        opened = client.sessions.open(session)
        code = "m = globals().get('m', 0) + 1\nm"
        assert opened.run(code, cell_id="again").value == "1"
        assert opened.run(code, cell_id="again").value == "2"


def test_it_gives_up_after_its_retries(gateway: ServedGateway, proxy: CuttingProxy, session: str) -> None:
    with Client(proxy.url, gateway.token, retries=1) as client:
        proxy.budgets[:] = [None]
        opened = client.sessions.open(session)
    with Client(proxy.url, gateway.token, retries=1) as client:
        proxy.budgets[:] = [0] * 2 + [None]
        with pytest.raises(ConnectionFailed):
            Session(client._http, opened.info).run("1")
        proxy.budgets.clear()


# -- what is refused --


def test_problems_are_errors_of_their_kinds(gateway: ServedGateway, session: str) -> None:
    with Client(gateway.url, gateway.token) as client:
        with pytest.raises(NotFound, match="There is no session 'none'") as error:
            client.sessions.open("none")
        assert (error.value.status, error.value.code) == (404, "session_not_found")
        with pytest.raises(BadRequest, match="NUL"):
            client.sessions.open(session).run("a = '\0'")
        with pytest.raises(NotFound, match="There is no tenant"):
            client.sessions.create("nobody")
        with pytest.raises(NotFound, match="has run no cell"):
            next(client.sessions.open(session).follow("none"))
    with Client(gateway.url, "wrong") as client, pytest.raises(Unauthorized):
        client.status()
    with Client(gateway.url, "the-others-own-token") as client, pytest.raises(Forbidden):
        client.sessions.create("shop")


def test_a_lost_session_says_so_and_is_restored(gateway: ServedGateway) -> None:
    with Client(gateway.url, gateway.token) as client, client.sessions.create("shop") as session:
        session.run("kept = 1", check=True)
        with pytest.raises(CellFailed, match="status: dead") as failed:
            session.run("import os; os._exit(1)", check=True)
        assert failed.value.result.state_lost
        with pytest.raises(SessionLost):
            session.run("kept")
        assert [result.status for result in session.restore()] == ["ok"]
        assert session.run("kept").value == "1"
        assert session.info.state == "live"


def test_what_is_no_gateway_is_said(gateway: ServedGateway) -> None:
    with pytest.raises(
        ConnectionFailed, match=r"No gateway answers at http://127\.0\.0\.1:1\. Start one: omniops serve"
    ):
        Client("http://127.0.0.1:1", "x", retries=0).status()
    with pytest.raises(BadAnswer, match="Wanted: http://HOST:PORT"):
        Client("nowhere", "x", retries=0).status()
    with pytest.raises(BadAnswer, match="Wanted"):
        Client(gateway.url, "t\xf6ken\u20ac")
    with pytest.raises(Unauthorized, match="OMNIOPS_CLIENT__TOKEN"):
        Client(gateway.url, "")


# -- answers that a gateway gives only in trouble --


def answering(*answers: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
    """A client whose gateway gives these answers, and what it was asked."""
    asked: list[httpx.Request] = []
    left = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Client("http://gateway", "t", transport=httpx.MockTransport(handle)), asked


def problem(status: int, code: str = "x", **headers: str) -> httpx.Response:
    body = {"status": status, "code": code, "message": "It failed.", "hint": "Do."}
    return httpx.Response(status, json=body, headers=headers)


STATUS = {"version": "1", "isolation": "x", "pool": {}, "tenants": ["a"], "of_a_later_version": 1}


def test_it_waits_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
    limited = problem(429, **{"retry-after": "7"})
    client, asked = answering(limited, problem(503), httpx.Response(200, json=STATUS))
    assert client.status().tenants == ("a",)
    assert len(asked) == 3
    assert waited[0] == 7
    assert 0 < waited[1] <= 1


def test_what_may_not_be_repeated_is_sent_once() -> None:
    client, asked = answering(problem(503))
    with pytest.raises(ServerError):
        client.approvals.approve("a")
    client, asked = answering(httpx.ReadError("gone"))
    with pytest.raises(ConnectionFailed):
        client.approvals.revert(1)
    assert len(asked) == 1
    client, asked = answering(problem(429, **{"retry-after": "3600"}))
    with pytest.raises(RateLimited) as error:
        client.status()
    assert (error.value.retry_after_s, len(asked)) == (3600, 1)


def test_what_cannot_be_read_is_said() -> None:
    for body in (b"<html>", b'{"version": 1}', b"\xff"):
        with pytest.raises(BadAnswer, match="cannot be read"):
            answering(httpx.Response(200, content=body))[0].status()
    with pytest.raises(BadAnswer, match="answered 404: is it an omniops gateway"):
        answering(httpx.Response(404, text="nginx"))[0].status()
    with pytest.raises(TimedOut):
        Client("http://gateway", "t", retries=0, transport=_slow()).status()


def _slow() -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    return httpx.MockTransport(handle)


def test_an_error_event_is_an_error() -> None:
    refused = b'{"status": 409, "code": "cell_cancelled", "message": "m"}'
    stream = b'event: output\ndata: {"text": "x"}\n\nevent: error\ndata: ' + refused + b"\n\n"
    info = {"id": "s", "tenant": "a", "role": "agent", "profile": "p", "title": "", "state": "live", "reason": ""}
    info |= {"customer": None, "created": "2025-01-01T00:00:00Z", "ended": None, "cells": 0}
    answer = httpx.Response(200, content=stream, headers={"content-type": "text/event-stream"})
    client, _ = answering(httpx.Response(200, json=info), answer)
    with pytest.raises(CellCancelled):
        client.sessions.open("s").run("1")


def test_a_sign_of_life_is_no_event() -> None:
    stream = b'id: 1\nevent: output\ndata: {"text": "x"}\n\n: ping\n\nevent: end\ndata: {"reason": "done"}\n\n'
    client, _ = answering(httpx.Response(200, content=stream, headers={"content-type": "text/event-stream"}))
    assert [event.kind for event in client.chat.stream("a", "hello")] == ["output", "end"]


def test_pauses_grow_and_end() -> None:
    pauses = [core.pause_s(attempt, None) for attempt in range(1, 12)]
    assert pauses[0] <= 0.5
    assert max(pauses) <= 8
    assert isinstance(error_of(418, b'{"message": "teapot"}', url="x"), ApiError)


# -- asynchronous --


async def test_the_asynchronous_client_does_the_same(gateway: ServedGateway) -> None:
    async with AsyncClient(gateway.url, gateway.token) as client, await client.sessions.create("shop") as session:
        both = await asyncio.gather(session.run("print('a')"), session.run("6 * 7"))
        assert (both[0].stdout, both[1].value) == ("a\n", "42")
        events = [event async for event in session.stream("print('x')")]
        assert isinstance(events[-1], Finished)
        with pytest.raises(CellFailed):
            await session.run("1 / 0", check=True)
        assert session.id in [info.id async for info in client.sessions.list("shop", page=1)]
        assert [tool.name async for tool in client.tools.list(page=50)] == sorted(
            [tool.name async for tool in client.tools.list()]
        )
        assert (await client.transcripts.verify(session.id)).ok
        newest = await anext(client.transcripts.search(tenant="shop", page=1))
        assert newest.session == session.id
