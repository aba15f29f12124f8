"""The session API over HTTP: made once, followed after a lost stream, given up, restarted, listed by pages."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from gateway_world import ServedGateway, environment, own_database, served
from httpx_sse import connect_sse

WAITING = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.02)"


@pytest.fixture(scope="module")
def database(postgres: str) -> Iterator[str]:
    with own_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def gateway(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    folder = tmp_path_factory.mktemp("sessions")
    (folder / "data").mkdir(mode=0o700)
    with served(folder / "data", environment(database)) as gateway:
        yield gateway


@pytest.fixture
def http(gateway: ServedGateway) -> Iterator[httpx.Client]:
    with gateway.client() as http:
        yield http


@pytest.fixture
def session(http: httpx.Client) -> Iterator[str]:
    answer = http.post("/v1/sessions", json={"tenant": "shop"})
    yield answer.headers["location"]
    http.delete(answer.headers["location"])


def made(http: httpx.Client, key: str, **body: Any) -> httpx.Response:
    return http.post("/v1/sessions", json={"tenant": "shop", **body}, headers={"idempotency-key": key})


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def wait_for(condition: Callable[[], Any]) -> Any:
    until = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.02)
    return found


def running(http: httpx.Client, session: str, cell: str) -> bool:
    answer = http.get(f"{session}/cells/{cell}")
    return answer.status_code == 200 and answer.json()["status"] == "running"


# -- made once --


def test_the_same_key_gives_the_same_session(gateway: ServedGateway, http: httpx.Client) -> None:
    first, again = made(http, "one", title="Mine"), made(http, "one", title="Mine")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert code_of(made(http, "one", title="Another")) == (422, "idempotency_key_reused")
    assert made(http, "two", title="Mine").json()["id"] != first.json()["id"]
    with gateway.client("the-shops-own-token") as other:  # another caller's key is another key
        assert made(other, "one", title="Mine").json()["id"] != first.json()["id"]


def test_requests_under_one_key_at_once_make_one_session(http: httpx.Client) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: made(http, "race"), range(4)))
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_a_key_holds_for_an_ended_session_and_after_a_request_that_failed(http: httpx.Client) -> None:
    first = made(http, "ended")
    http.delete(first.headers["location"])
    again = made(http, "ended").json()
    assert (again["id"], again["state"]) == (first.json()["id"], "ended")
    assert code_of(made(http, "failed", profile="no-such")) == (422, "bad_request")
    assert made(http, "failed").status_code == 201


@pytest.mark.parametrize("key", ["", "with space", "x" * 201, "umlaut-\xe4"])
def test_a_key_that_is_none_is_refused(http: httpx.Client, key: str) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    assert code_of(http.post("/v1/sessions", json={"tenant": "shop"}, headers=headers)) == (422, "bad_request")


# -- followed --


def read(http: httpx.Client, path: str, last: str | None = None, until: str = "") -> list[tuple[str, str, Any]]:
    """Name, id and data of a stream's events: all, or up to output that has `until` in it."""
    found = []
    headers = {"last-event-id": last} if last else {}
    with connect_sse(http, "GET", path, headers=headers) as source:
        for event in source.iter_sse():
            found.append((event.event, event.id, event.json()))
            if until and until in event.data:
                break
    return found


def text_of(events: list[tuple[str, str, Any]]) -> str:
    return "".join(data["text"] for name, _, data in events if name == "output")


def test_a_lost_stream_goes_on_after_its_last_event_and_after_the_end(http: httpx.Client, session: str) -> None:
    code = "print('one', flush=True)\nimport time\ntime.sleep(1)\nprint('two')\n6 * 7"
    body = {"code": code, "cell_id": "mine"}
    with connect_sse(http, "POST", f"{session}/cells", json=body, headers={"accept": "text/event-stream"}) as source:
        first = next(source.iter_sse())  # and the connection is gone
    assert first.json() == {"text": "one\n"}
    rest = read(http, f"{session}/cells/mine/events", first.id)
    assert text_of(rest) == "two\n42\n"
    assert rest[-1][0] == "cell"
    whole = read(http, f"{session}/cells/mine/events")
    assert text_of(whole) == "one\ntwo\n42\n"
    assert whole[-1] == rest[-1]
    assert whole[-1][2] == http.get(f"{session}/cells/mine").json()["result"]
    assert text_of(read(http, f"{session}/cells/mine/events", first.id)) == "two\n42\n"
    assert text_of(read(http, f"{session}/cells/mine/events", "999999")) == ""


def test_what_cannot_be_followed_is_a_problem(http: httpx.Client, session: str) -> None:
    assert code_of(http.get(f"{session}/cells/none/events")) == (404, "cell_not_found")
    answer = http.get(f"{session}/cells/none/events", headers={"last-event-id": "-1"})
    assert code_of(answer) == (422, "bad_request")


# -- given up --


def test_a_cell_that_waits_never_runs_and_one_that_runs_is_interrupted(http: httpx.Client, session: str) -> None:
    answers: dict[str, httpx.Response] = {}

    def run(cell: str, code: str) -> threading.Thread:
        def post() -> None:
            answers[cell] = http.post(f"{session}/cells", json={"code": code, "cell_id": cell})

        thread = threading.Thread(target=post)
        thread.start()
        return thread

    threads = [run("first", WAITING)]
    wait_for(lambda: running(http, session, "first"))
    threads += [run("second", "mark = 'it ran'"), run("third", "'mark' in globals()")]
    # nothing tells of a cell that waits but its events: they are a stream, not a 404
    for cell in ("second", "third"):
        wait_for(lambda cell=cell: stream_status(http, f"{session}/cells/{cell}/events") == 200)
    gone = http.post(f"{session}/cells/second/cancel").json()
    assert gone == {"cell": "second", "was": "waiting", "ended": True}
    assert code_of(http.get(f"{session}/cells/second")) == (404, "cell_not_found")
    assert http.post(f"{session}/cells/first/cancel").json() == {"cell": "first", "was": "running", "ended": True}
    for thread in threads:
        thread.join()
    assert answers["first"].json()["status"] == "interrupted"
    assert code_of(answers["second"]) == (409, "cell_cancelled")
    assert "False" in answers["third"].json()["envelope"]
    assert http.post(f"{session}/cells/third/cancel").json()["was"] == "ended"
    assert code_of(http.post(f"{session}/cells/none/cancel")) == (404, "cell_not_found")
    assert [cell["cell"] for cell in http.get(f"{session}/cells").json()] == ["first", "third"]


def stream_status(http: httpx.Client, path: str) -> int:
    with http.stream("GET", path) as answer:
        return answer.status_code


# -- restarted --


def test_a_restart_empties_the_namespace_and_stands_in_the_transcript(http: httpx.Client, session: str) -> None:
    http.post(f"{session}/cells", json={"code": "old = 1"})
    assert http.post(f"{session}/restart").json()["state"] == "live"
    ran = http.post(f"{session}/cells", json={"code": "print('old' in globals()); new = 2"}).json()
    assert ran["outputs"][0]["text"] == "False\n"
    cells = http.get(f"/v1/transcripts/{session.rpartition('/')[2]}").json()["cells"]
    assert [cell["cell_type"] for cell in cells] == ["code", "markdown", "code"]
    assert "The kernel was restarted" in json.dumps(cells[1])
    # nor does it come back when the kernel that came after it is lost
    http.post(f"{session}/cells", json={"code": "import os; os._exit(1)"})
    assert http.get(session).json()["state"] == "lost"
    assert [cell["index"] for cell in http.post(f"{session}/restore").json()] == [2]
    ran = http.post(f"{session}/cells", json={"code": "print('old' in globals(), new)"}).json()
    assert ran["outputs"][0]["text"] == "False 2\n"


def test_a_restart_ends_what_runs(http: httpx.Client, session: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(http.post, f"{session}/cells", json={"code": WAITING, "cell_id": "long"})
        wait_for(lambda: running(http, session, "long"))
        assert http.post(f"{session}/restart").json()["state"] == "live"
        assert ran.result().json()["status"] == "dead"


# -- listed --


def test_sessions_are_listed_by_pages(gateway: ServedGateway) -> None:
    with gateway.client("the-others-own-token") as http:
        ids = [http.post("/v1/sessions", json={"tenant": "other"}).json()["id"] for _ in range(3)]
        for id in ids:
            http.delete(f"/v1/sessions/{id}")
        first = http.get("/v1/sessions", params={"limit": 2}).json()
        rest = http.get("/v1/sessions", params={"limit": 2, "after": first[-1]["id"]}).json()
        assert [each["id"] for each in first + rest] == ids[::-1]
        assert http.get("/v1/sessions", params={"after": "none"}).json() == []


# -- another gateway --


def test_another_gateway_knows_the_key(
    gateway: ServedGateway, http: httpx.Client, database: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = made(http, "everywhere").json()
    folder = tmp_path_factory.mktemp("second")
    (folder / "data").mkdir(mode=0o700)
    with served(folder / "data", environment(database)) as second, second.client() as there:
        assert made(there, "everywhere").json()["id"] == first["id"]
        assert code_of(made(there, "everywhere", title="x")) == (422, "idempotency_key_reused")
