"""What docs/jupyter.md shows works: Jupyter's own server and clients on a gateway."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.settings import JupyterSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "jupyter.md").read_text()
sys.path.append(str(ROOT / "tests" / "gateway"))

from gateway_world import ServedGateway  # noqa: E402
from jupyter_world import SHOP, jupyter_gateway  # noqa: E402


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    with jupyter_gateway(postgres, tmp_path_factory.mktemp("page")) as gateway:
        yield gateway


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"HOME": os.fspath(tmp_path), "PATH": path, "no_proxy": "127.0.0.1"}


def here(text: str, gateway: ServedGateway) -> str:
    """An example, with this gateway's address and a token that there is."""
    return text.replace("127.0.0.1:8765", gateway.url.removeprefix("http://")).replace("TOKEN", SHOP)


def test_the_program_that_it_shows_runs(gateway: ServedGateway, environment: dict[str, str]) -> None:
    (program,) = blocks("python")
    command = [sys.executable, "-c", here(program, gateway)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "42\n\n"), done.stderr
    with gateway.client(SHOP) as http:
        assert http.get("/api/kernels").json() == []


def test_the_commands_that_it_shows_run(gateway: ServedGateway, environment: dict[str, str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    command = ["bash", "-euc", here(blocks("sh")[1], gateway)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert '"name":"python3"' in done.stdout


def test_jupyters_own_server_works_on_the_gateway(
    gateway: ServedGateway, environment: dict[str, str], tmp_path: Path
) -> None:
    """JupyterLab is this server and a page in the browser."""
    (command,) = blocks("sh")[0].splitlines()
    assert command.startswith("jupyter lab --gateway-url=")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = here(command, gateway).split()[2:]
    more = [
        f"--ServerApp.port={port}",
        "--IdentityProvider.token=own",
        "--allow-root",
        f"--ServerApp.root_dir={tmp_path}",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "jupyter_server", "--no-browser", *arguments, *more],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            headers = {"authorization": "token own"}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False) as lab:
                _wait_for(lab, server)
                specs = lab.get("/api/kernelspecs").json()
                assert specs["default"] == "python3"
                assert lab.get(specs["kernelspecs"]["agent"]["resources"]["logo-64x64"]).status_code == 200
                body = {"path": "a.ipynb", "name": "a", "type": "notebook", "kernel": {"name": "python3"}}
                kernel = lab.post("/api/sessions", json=body).json()["kernel"]["id"]
                _work(f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels")
                assert lab.post(f"/api/kernels/{kernel}/restart").status_code == 200
                assert lab.post(f"/api/kernels/{kernel}/interrupt").status_code == 204
                _work(f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels")
                assert lab.delete(f"/api/kernels/{kernel}").status_code == 204
        finally:
            server.terminate()


def _wait_for(lab: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if lab.get("/api").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert server.poll() is None, "jupyter_server ended"
        assert time.monotonic() < deadline, "jupyter_server did not start"
        time.sleep(0.2)


def _work(address: str) -> None:
    from socket_client import V1, Socket
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    headers = {"authorization": "token own"}
    with connect(
        f"{address}?session_id=lab", additional_headers=headers, subprotocols=[Subprotocol(V1)], open_timeout=60
    ) as connection:
        client = Socket(connection, "lab")
        assert client.request("kernel_info_request", {})["content"]["status"] == "ok"
        assert client.run("print(6 * 7)").texts() == "42\n"


def test_every_setting_that_it_names_is_one() -> None:
    names = set(re.findall(r"`jupyter\.(\w+)`", PAGE))
    assert names
    assert names <= set(JupyterSettings.model_fields)
