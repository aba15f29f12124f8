"""Files of a session over HTTP: up, down, parts, what is refused, and that nothing is held in memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from gateway_world import ServedGateway, environment, own_database, served

MB = 2**20


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    data = tmp_path_factory.mktemp("files") / "data"
    data.mkdir(mode=0o700)
    limits = {"OMNIOPS_POOL__DISK_MB": "160", "OMNIOPS_FILES__LARGEST_MB": "100"}
    with own_database(postgres) as url, served(data, environment(url, **limits)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def http(gateway: ServedGateway) -> Iterator[httpx.Client]:
    with gateway.client() as http:
        yield http


@pytest.fixture(scope="module")
def files(http: httpx.Client) -> Iterator[str]:
    session = http.post("/v1/sessions", json={"tenant": "shop"}).headers["location"]
    yield f"{session}/files"
    http.delete(session)


def run(http: httpx.Client, files: str, code: str) -> str:
    answer = http.post(f"{files.removesuffix('/files')}/cells", json={"code": code}).json()
    assert answer["status"] == "ok", answer["envelope"]
    return "".join(output["text"] for output in answer["outputs"] if output["output_type"] == "stream")


def code_of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def test_a_file_goes_up_is_seen_by_cells_and_comes_down(http: httpx.Client, files: str) -> None:
    put = http.put(f"{files}/data/or%20ders.csv", content=b"id\n1\n")
    assert put.status_code == 201
    assert {name: put.json()[name] for name in ("path", "kind", "size")} == {
        "path": "data/or ders.csv",
        "kind": "file",
        "size": 5,
    }
    assert run(http, files, "print(open('data/or ders.csv').read())") == "id\n1\n\n"
    got = http.get(f"{files}/data/or%20ders.csv")
    assert (got.status_code, got.content) == (200, b"id\n1\n")
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''or%20ders.csv"
    assert got.headers["x-content-type-options"] == "nosniff"
    listed = http.get(files, params={"path": "data"}).json()
    assert listed == {"files": [put.json()], "next": None}
    assert http.put(f"{files}/data/or%20ders.csv", content=b"").json()["size"] == 0
    assert http.get(f"{files}/data/or%20ders.csv").content == b""
    assert http.delete(f"{files}/data/or%20ders.csv").status_code == 204
    assert code_of(http.get(f"{files}/data/or%20ders.csv")) == (404, "file_not_found")


@pytest.mark.parametrize(
    ("wanted", "status", "content", "said"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, None, ""),
        ("bytes=3-1", 416, None, ""),
        ("bytes=0-1,3-4", 416, None, ""),
        ("lines=1-2", 416, None, ""),
        ("bytes=-0", 416, None, ""),
    ],
)
def test_parts_of_a_file(
    http: httpx.Client, files: str, wanted: str, status: int, content: bytes | None, said: str
) -> None:
    http.put(f"{files}/ten", content=b"0123456789")
    got = http.get(f"{files}/ten", headers={"range": wanted})
    assert got.status_code == status
    if content is None:
        assert code_of(got) == (416, "bad_range")
    else:
        assert (got.content, got.headers["content-range"]) == (content, said)


@pytest.mark.parametrize(
    "path", ["..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "a/%2e%2e/%2e%2e/x", "a%00b", "a//b", "a/", "%2e%2e", "%2e/x"]
)
def test_a_path_that_leads_elsewhere_is_refused(gateway: ServedGateway, files: str, path: str) -> None:
    with gateway.client() as http:
        for method in ("GET", "PUT", "DELETE"):
            # as it is: the client would tidy it
            url = httpx.URL(gateway.url).copy_with(raw_path=f"{files}/{path}".encode())
            answer = http.request(method, url, content=b"x" if method == "PUT" else None)
            assert code_of(answer) == (422, "bad_path"), (method, answer.text)


def test_a_link_that_a_cell_sets_leads_nowhere(http: httpx.Client, files: str) -> None:
    run(http, files, "import os; os.symlink('/etc', 'etc'); os.symlink('/etc/passwd', 'passwd'); os.mkfifo('pipe')")
    assert code_of(http.get(f"{files}/etc/passwd")) == (404, "file_not_found")
    assert code_of(http.get(f"{files}/passwd")) == (404, "file_not_found")
    assert code_of(http.get(files, params={"path": "etc"})) == (404, "file_not_found")
    assert code_of(http.get(f"{files}/pipe")) == (409, "not_a_file")
    assert code_of(http.put(f"{files}/pipe", content=b"x")) == (409, "not_a_file")


def peak_mb(gateway: ServedGateway) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{gateway.process.pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


def test_large_files_pass_through_and_are_not_held(gateway: ServedGateway, http: httpx.Client, files: str) -> None:
    http.put(f"{files}/warm", content=b"x" * MB)
    before = peak_mb(gateway)
    piece = os.urandom(MB)
    assert http.put(f"{files}/large", content=(piece for _ in range(80))).json()["size"] == 80 * MB
    with http.stream("GET", f"{files}/large") as answer:
        assert answer.headers["content-length"] == str(80 * MB)
        assert sum(len(part) for part in answer.iter_raw()) == 80 * MB
    assert peak_mb(gateway) - before < 40


def test_what_is_too_large_is_refused_and_leaves_nothing(http: httpx.Client, files: str) -> None:
    for name in ("large", "warm"):
        http.delete(f"{files}/{name}")
    declared = HTTPConnection(http.base_url.host, http.base_url.port, timeout=30)
    declared.putrequest("PUT", f"{files}/huge")
    for name, value in (("Content-Length", str(200 * MB)), ("Authorization", http.headers["authorization"])):
        declared.putheader(name, value)
    declared.endheaders()
    assert declared.getresponse().status == 413  # before a byte of it was sent
    declared.close()
    assert code_of(http.put(f"{files}/huge", content=(b"x" * MB for _ in range(101)))) == (413, "too_large")
    run(http, files, "f = open('hole', 'w'); f.truncate(150 << 20); f.close()")
    assert code_of(http.get(f"{files}/hole")) == (413, "file_too_large")
    run(http, files, "f = open('fills', 'wb'); f.write(b'x' * (120 << 20)); f.close()")
    assert code_of(http.put(f"{files}/no-room", content=(b"x" * MB for _ in range(90)))) == (413, "work_folder_full")
    run(http, files, "import os; os.remove('fills'); os.remove('hole')")
    names = run(http, files, "print(sorted(os.listdir('.')))")
    assert "huge" not in names
    assert "no-room" not in names
    assert "part" not in names


def test_a_folder_is_listed_by_pages(http: httpx.Client, files: str) -> None:
    run(http, files, "import os; os.mkdir('many')\nfor n in range(7): open(f'many/{n}', 'w').close()")
    found, after, pages = [], "", 0
    while after is not None:
        page = http.get(files, params={"path": "many", "limit": 3, "after": after}).json()
        found += [file["path"] for file in page["files"]]
        after, pages = page["next"], pages + 1
    assert (found, pages) == ([f"many/{n}" for n in range(7)], 3)
    assert code_of(http.delete(f"{files}/many")) == (409, "not_empty")


def test_files_go_with_their_kernel(gateway: ServedGateway, http: httpx.Client) -> None:
    session = http.post("/v1/sessions", json={"tenant": "shop"}).headers["location"]
    http.put(f"{session}/files/x", content=b"x")
    with gateway.client("the-others-own-token") as other:
        for method in ("GET", "PUT", "DELETE"):
            assert code_of(other.request(method, f"{session}/files/x")) == (404, "session_not_found")
        assert code_of(other.get(f"{session}/files")) == (404, "session_not_found")
    http.post(f"{session}/restart")
    assert http.get(f"{session}/files").json()["files"] == []
    http.post(f"{session}/cells", json={"code": "import os; os._exit(1)"})
    assert code_of(http.get(f"{session}/files")) == (409, "session_lost")
    http.delete(session)
    assert code_of(http.get(f"{session}/files")) == (409, "session_ended")
