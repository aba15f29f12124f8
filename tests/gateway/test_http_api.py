"""The HTTP interface of a gateway in a process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from gateway_world import ServedGateway, environment, notebook_of, own_database, scripted_model, served
from httpx_sse import connect_sse

from demo.model.script import Script, Step

HELLO = Script("hello", "Count to three", (Step("total = 1 + 2\nprint('counted')", ()), Step("total", ())), "It is 3.")
AGAIN = Script("again", "And double?", (Step("total * 2", ()),), "It is 6.")
LONG = Script("long", "Take long", (Step("import time\nprint('begun', flush=True)\ntime.sleep(30)", ()),), "Done.")


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    folder = tmp_path_factory.mktemp("http")
    with own_database(postgres) as url, scripted_model(folder, HELLO, AGAIN, LONG) as model:
        (folder / "data").mkdir(mode=0o700)
        with served(folder / "data", environment(url, **model)) as gateway:
            yield gateway
            assert gateway.stop() == 0


@pytest.fixture
def http(gateway: ServedGateway) -> Iterator[httpx.Client]:
    with gateway.client() as http:
        yield http


@pytest.fixture
def session(http: httpx.Client) -> Iterator[str]:
    answer = http.post("/v1/sessions", json={"tenant": "shop"})
    yield answer.json()["id"]
    http.delete(answer.headers["location"])


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer's problem, checked."""
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["message"]
    return body


def test_a_client_that_lost_its_stream_asks_for_the_cell(http: httpx.Client, session: str) -> None:
    ran = http.post(f"/v1/sessions/{session}/cells", json={"code": "print('here'); 6 * 7", "cell_id": "mine"}).json()
    http.post(f"/v1/sessions/{session}/cells", json={"code": "1 / 0"})
    listed = http.get(f"/v1/sessions/{session}/cells").json()
    assert [(cell["index"], cell["status"]) for cell in listed] == [(1, "ok"), (2, "error")]
    assert listed[0] == {"cell": "mine", "index": 1, "status": "ok", "code": "print('here'); 6 * 7"}
    found = http.get(f"/v1/sessions/{session}/cells/mine").json()
    assert found == listed[0] | {"result": ran}
    problem(http.get(f"/v1/sessions/{session}/cells/none"), 404, "cell_not_found")
    problem(http.get("/v1/sessions/none/cells"), 404, "session_not_found")
    http.delete(f"/v1/sessions/{session}")
    assert http.get(f"/v1/sessions/{session}/cells/mine").json() == found


def events(http: httpx.Client, path: str, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    with connect_sse(http, "POST", path, json=body) as source:
        return [(event.event, event.json()) for event in source.iter_sse() if event.data]  # signs of life have none


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


# -- access --


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "token", "Token"])
def test_a_token_in_the_header_opens(gateway: ServedGateway, scheme: str) -> None:
    headers = {"authorization": f"{scheme} {gateway.token}"}
    assert httpx.get(f"{gateway.url}/v1/status", headers=headers).status_code == 200


def test_a_token_in_the_query_opens(gateway: ServedGateway) -> None:
    assert httpx.get(f"{gateway.url}/v1/status", params={"token": gateway.token}).status_code == 200


@pytest.mark.parametrize("token", ["", "wrong", "Bearer", "Bearer wrong", "Basic abc", "Bearer \x7f"])
def test_without_a_valid_token_nothing_opens(gateway: ServedGateway, token: str) -> None:
    for method, path in (("GET", "/v1/status"), ("POST", "/v1/chat"), ("GET", "/v1/openapi.json")):
        answer = httpx.request(method, gateway.url + path, headers={"authorization": token} if token else {})
        problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_health_needs_no_token_and_tells_nothing_else(gateway: ServedGateway) -> None:
    assert httpx.get(f"{gateway.url}/healthz").json() == {"status": "ok"}


def test_a_tenants_token_reaches_that_tenant_alone(gateway: ServedGateway, http: httpx.Client, session: str) -> None:
    with gateway.client("the-others-own-token") as other, gateway.client("the-shops-own-token") as shop:
        assert shop.get(f"/v1/sessions/{session}").status_code == 200
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/interrupt"),
            ("POST", "/restore"),
        ):
            problem(other.request(method, f"/v1/sessions/{session}{path}"), 404, "session_not_found")
        cell = other.post(f"/v1/sessions/{session}/cells", json={"code": "1"})
        problem(cell, 404, "session_not_found")
        problem(other.get(f"/v1/transcripts/{session}"), 404, "transcript_not_found")
        problem(other.post("/v1/sessions", json={"tenant": "shop"}), 403, "forbidden")
        problem(other.post("/v1/chat", json={"tenant": "shop", "message": "hi"}), 403, "forbidden")
        chat = {"tenant": "other", "message": "hi", "session": session}
        problem(other.post("/v1/chat", json=chat), 404, "session_not_found")
        problem(other.get("/v1/sessions", params={"tenant": "shop"}), 403, "forbidden")
        problem(other.post("/v1/tenants/shop/catalog"), 403, "forbidden")
        assert other.get("/v1/sessions").json() == []
        assert other.get("/v1/transcripts").json() == []
        assert other.get("/v1/status").json()["tenants"] == ["other"]


def test_a_session_that_runs_the_shop_is_for_the_servers_own_token(gateway: ServedGateway, http: httpx.Client) -> None:
    body = {"tenant": "other", "role": "operator"}
    made = http.post("/v1/sessions", json=body)
    assert made.status_code == 201
    assert made.json()["role"] == "operator"
    with gateway.client("the-others-own-token") as tenant:
        problem(tenant.post("/v1/sessions", json=body), 403, "forbidden")
        place = made.headers["location"]
        problem(tenant.get(place), 403, "forbidden")
        problem(tenant.post(f"{place}/cells", json={"code": "1"}), 403, "forbidden")
        chat = {"tenant": "other", "message": "hi", "session": made.json()["id"]}
        problem(tenant.post("/v1/chat", json=chat), 403, "forbidden")
    assert http.delete(place).status_code == 204


# -- sessions --


def test_a_session_from_start_to_end(http: httpx.Client) -> None:
    made = http.post("/v1/sessions", json={"tenant": "shop", "role": "analyst", "title": "figures"})
    assert made.status_code == 201
    place = made.headers["location"]
    assert http.get(place).json() == made.json()
    cell = http.post(f"{place}/cells", json={"code": "print('hi')\n6 * 7"}).json()
    assert (cell["status"], cell["index"], [each["output_type"] for each in cell["outputs"]]) == (
        "ok",
        1,
        ["stream", "execute_result"],
    )
    assert "value:  42" in cell["envelope"]
    assert http.post(f"{place}/interrupt").json() == {"interrupted": False}
    assert http.delete(place).status_code == 204
    assert http.get(place).json()["state"] == "ended"
    problem(http.post(f"{place}/cells", json={"code": "1"}), 409, "session_ended")
    assert made.json()["id"] in [each["id"] for each in http.get("/v1/sessions", params={"tenant": "shop"}).json()]


def test_a_lost_session_says_why_and_is_restored(http: httpx.Client, session: str) -> None:
    http.post(f"/v1/sessions/{session}/cells", json={"code": "x = 5"})
    dead = http.post(f"/v1/sessions/{session}/cells", json={"code": "import ctypes; ctypes.string_at(0)"}).json()
    assert (dead["status"], dead["state_lost"]) == ("dead", True)
    lost = problem(http.post(f"/v1/sessions/{session}/cells", json={"code": "x"}), 409, "session_lost")
    assert "Restore it" in lost["hint"]
    assert http.get(f"/v1/sessions/{session}").json()["state"] == "lost"
    assert [cell["status"] for cell in http.post(f"/v1/sessions/{session}/restore").json()] == ["ok"]
    assert "value:  5" in http.post(f"/v1/sessions/{session}/cells", json={"code": "x"}).json()["envelope"]


def test_a_cell_as_events_comes_as_it_happens(http: httpx.Client, session: str) -> None:
    code = "import time\nprint('one', flush=True)\ntime.sleep(0.6)\nprint('two')"
    with http.stream(
        "POST", f"/v1/sessions/{session}/cells", json={"code": code}, headers={"accept": "text/event-stream"}
    ) as answer:
        lines = list(answer.iter_lines())
    assert ": ping" in lines
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    texts = [json.loads(line.removeprefix("data: ")).get("text") for line in lines if line.startswith("data: ")]
    assert kinds == ["output", "output", "cell"]
    assert texts == ["one\n", "two\n", None]
    assert ": ping" in lines[lines.index("event: output") :]


def test_a_client_that_leaves_does_not_end_its_cell(gateway: ServedGateway, http: httpx.Client, session: str) -> None:
    code = "import time\nprint('here', flush=True)\ntime.sleep(0.5)\nleft = 1"
    with http.stream(
        "POST", f"/v1/sessions/{session}/cells", json={"code": code}, headers={"accept": "text/event-stream"}
    ) as answer:
        next(answer.iter_lines())
    assert "value:  1" in http.post(f"/v1/sessions/{session}/cells", json={"code": "left"}).json()["envelope"]
    assert len(notebook_of(gateway.data_dir, session).cells) == 2


def test_a_failure_after_the_stream_began_is_an_event(http: httpx.Client, session: str) -> None:
    [(kind, told)] = events(http, f"/v1/sessions/{session}/cells", {"code": "1", "cell_id": "../x"})
    assert (kind, told["code"]) == ("error", "bad_cell")


# -- problems --


def test_problems_say_what_is_wrong(http: httpx.Client) -> None:
    problem(http.get("/v1/nowhere"), 404, "not_found")
    problem(http.put("/v1/sessions"), 405, "method_not_allowed")
    problem(http.get("/v1/sessions/no-such"), 404, "session_not_found")
    problem(http.get("/v1/transcripts/no-such"), 404, "transcript_not_found")
    problem(http.get("/v1/transcripts/..%2F..%2Ftoken"), 404, "not_found")
    problem(http.get("/v1/transcripts/.."), 404, "not_found")
    unknown = problem(http.post("/v1/sessions", json={"tenant": "nobody"}), 404, "unknown_tenant")
    assert "other, shop" in unknown["hint"]
    wrong = problem(http.post("/v1/sessions", json={"tenan": "shop"}), 422, "bad_request")
    assert "body.tenant: Field required" in wrong["message"]
    problem(http.post("/v1/sessions", content=b"{"), 422, "bad_request")
    problem(http.post("/v1/tenants/shop/catalog"), 409, "no_shop")


def test_a_body_that_is_too_large_is_refused(http: httpx.Client) -> None:
    big = b'{"tenant": "' + b"x" * 2**20 + b'"}'
    problem(http.post("/v1/sessions", content=big), 413, "too_large")
    problem(http.post("/v1/sessions", content=iter([big[:600_000], big[600_000:]])), 413, "too_large")


def test_openapi_describes_every_route_and_its_problems(http: httpx.Client) -> None:
    document = http.get("/v1/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            if path not in ("/healthz", "/readyz"):
                content = operation["responses"]["401"]["content"]
                in_openais_words = "OpenAiErrors" in str(content)  # for clients that know no others
                assert in_openais_words or "application/problem+json" in content, (method, path)
    assert "text/event-stream" in document["paths"]["/v1/chat"]["post"]["responses"]["200"]["content"]


# -- conversations --


def test_a_conversation_keeps_its_state_from_turn_to_turn(gateway: ServedGateway, http: httpx.Client) -> None:
    first = events(http, "/v1/chat", {"tenant": "shop", "message": HELLO.message})
    kinds = [kind for kind, _ in first if kind not in ("output", "text")]
    assert kinds == ["session", "step", "cell", "step", "cell", "answer", "end"]
    session, end = first[0][1]["session"], first[-1][1]
    assert dict(first)["answer"]["text"] == HELLO.answer
    assert (end["reason"], end["session"], end["steps"]) == ("answered", session, 3)
    assert end["usage"]["input"] > 0
    second = http.post("/v1/chat", json={"tenant": "shop", "message": AGAIN.message, "session": session}).json()
    assert (second["answer"], second["session"]) == (AGAIN.answer, session)
    cells = notebook_of(gateway.data_dir, session).cells
    assert [cell.cell_type for cell in cells] == [
        "markdown",
        "code",
        "code",
        "markdown",
        "markdown",
        "code",
        "markdown",
    ]
    assert cells[3].metadata.omniops.usage.usage.input == end["usage"]["input"]
    assert cells[5].outputs[0].data["text/plain"] == "6"


def test_a_client_that_leaves_ends_its_turn(gateway: ServedGateway, http: httpx.Client) -> None:
    with connect_sse(http, "POST", "/v1/chat", json={"tenant": "shop", "message": LONG.message}) as source:
        stream = source.iter_sse()
        session = next(stream).json()["session"]
        while next(stream).event != "output":
            pass
    path = f"/v1/sessions/{session}"

    def noted() -> bool:
        return notebook_of(gateway.data_dir, session).cells[-1].metadata.omniops.get("who") == "note"

    wait_for(noted)
    cells = notebook_of(gateway.data_dir, session).cells
    assert cells[1].metadata.omniops.status == "interrupted"
    assert cells[-1].metadata.omniops.usage.reason == "cancelled"
    assert "value:  1" in http.post(f"{path}/cells", json={"code": "1"}).json()["envelope"]


def test_one_turn_at_a_time(http: httpx.Client) -> None:
    with connect_sse(http, "POST", "/v1/chat", json={"tenant": "shop", "message": LONG.message}) as source:
        stream = source.iter_sse()
        session = next(stream).json()["session"]
        again = http.post("/v1/chat", json={"tenant": "shop", "message": "hi", "session": session})
        problem(again, 429, "session_busy")
        assert http.delete(f"/v1/sessions/{session}").status_code == 204
        reasons = [event.json()["reason"] for event in stream if event.event == "end"]
    assert reasons == ["cancelled"]


def test_direct_calls_need_no_kernel(gateway: ServedGateway, http: httpx.Client) -> None:
    ready = http.get("/v1/status").json()["pool"]["started"]
    told = events(http, "/v1/chat", {"tenant": "shop", "message": HELLO.message, "mode": "direct"})
    assert told[-1][1]["mode"] == "direct"
    assert http.get("/v1/status").json()["pool"]["started"] == ready


# -- transcripts --


def test_transcripts_are_listed_and_read(http: httpx.Client, session: str) -> None:
    http.post(f"/v1/sessions/{session}/cells", json={"code": "1"})
    listed = {each["session"]: each for each in http.get("/v1/transcripts", params={"tenant": "shop"}).json()}
    assert listed[session]["cells"] == 1
    for path in (f"/v1/transcripts/{session}", f"/v1/transcripts/{session}.ipynb"):
        answer = http.get(path)
        assert answer.headers["content-type"] == "application/x-ipynb+json"
        assert answer.json()["nbformat_minor"] == 5
