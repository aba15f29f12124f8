"""`omniops serve`: what it says, one gateway per data folder, an orderly end that leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from pathlib import Path

import pytest
from gateway_world import environment, omniops, served


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


def children_of(pid: int) -> set[int]:
    """All processes below one."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) in (pid, *found):
            found.add(int(path.parent.name))
    return found


def test_a_gateway_with_its_own_database_from_start_to_end(data: Path) -> None:
    """No DATABASE_URL: the embedded Postgres is started and stopped, nothing is left running."""
    runtime = data.parent / "r"
    env = environment(OMNIOPS_RUNTIME_DIR=str(runtime)) if len(str(runtime)) < 40 else environment()
    with served(data, env) as gateway:
        for shown in (gateway.url, gateway.token, str(data), "namespaces", "other, shop"):
            assert shown in gateway.printed
        for secret in ("token", "gateway.json"):
            assert stat.S_IMODE((data / secret).stat().st_mode) == 0o600
        second = omniops("serve", "--port", "0", "--data-dir", str(data), env=env, cwd=data.parent)
        assert second.returncode == 1
        assert f"already at {gateway.url} (process {gateway.process.pid})" in second.stderr
        with gateway.client() as http:
            session = http.post("/v1/sessions", json={"tenant": "shop"}).json()["id"]
            http.post(f"/v1/sessions/{session}/cells", json={"code": "1"})
        below = children_of(gateway.process.pid)
        assert below
        assert gateway.stop() == 0
    deadline = time.monotonic() + 10  # what was told to end, or saw its other end go, may need a busy machine's turn
    while left := [pid for pid in below if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert not (data / "gateway.json").exists()
    kept = (data / "token").read_text()
    with served(data, env) as again:
        assert (again.token, again.stop()) == (kept.strip(), 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_cell_ends_it_in_order(data: Path, database_url: str, number: signal.Signals) -> None:
    with served(data, environment(database_url)) as gateway, gateway.client() as http:
        session = http.post("/v1/sessions", json={"tenant": "shop"}).json()["id"]
        code = {"code": "print('begun', flush=True)\nimport time; time.sleep(60)"}
        headers = {"accept": "text/event-stream"}
        with http.stream("POST", f"/v1/sessions/{session}/cells", json=code, headers=headers) as answer:
            next(answer.iter_lines())
            gateway.process.send_signal(number)
            assert gateway.process.wait(30) == 0
    assert (data / "transcripts" / "shop" / f"{session}.ipynb").exists()


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"OMNIOPS_POOL__WARM": "many"}, "pool.warm"),
        ({"OMNIOPS_POLL__WARM": "1"}, "OMNIOPS_POLL__WARM"),
        (
            {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x", "OMNIOPS_DATABASE__CONNECT_TIMEOUT_S": "0.1"},
            "database",
        ),
        ({"OMNIOPS_TENANTS__SHOP__POLICY_FILE": "/no/such/file"}, "tenants.shop.policy_file /no/such/file"),
        ({"OMNIOPS_AGENT__EVERYDAY_TOOLS": '["woocommerce.lookup_oder"]'}, "lookup_order"),
        ({"OMNIOPS_TENANTS__OTHER__TOKEN": "the-shops-own-token"}, "one access token is set twice"),
        ({"OMNIOPS_SERVER__HOST": "no.such.host.invalid"}, "server.host 'no.such.host.invalid'"),
        ({"OMNIOPS_RUNTIME_DIR": "/proc/nowhere"}, "runtime folder /proc/nowhere"),
    ],
    ids=["type", "name", "database", "policy", "tool", "token", "host", "runtime dir"],
)
def test_what_keeps_it_from_starting_is_said_in_words(
    data: Path, database_url: str, env: dict[str, str], said: str
) -> None:
    done = omniops(
        "serve", "--port", "0", "--data-dir", str(data), env=environment(database_url) | env, cwd=data.parent
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.startswith("omniops: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_runtime_folder_that_others_can_write_is_refused(data: Path, tmp_path: Path, database_url: str) -> None:
    runtime = tmp_path / "open"
    runtime.mkdir()
    runtime.chmod(0o777)
    env = environment(database_url, OMNIOPS_RUNTIME_DIR=str(runtime))
    done = omniops("serve", "--port", "0", "--data-dir", str(data), env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert f"The runtime folder {runtime} must be a folder of user {os.getuid()} with mode 0700" in done.stderr


def test_a_port_that_is_taken_is_said(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = omniops("serve", "--port", port, "--data-dir", str(data), env=environment(), cwd=data.parent)
    assert done.returncode == 1
    assert f"Port {port} of 127.0.0.1 cannot be listened on: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
