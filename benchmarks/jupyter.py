"""Kernels over Jupyter's REST and websocket: this gateway beside Jupyter Server, with the same client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.figure import Figure, quantile
from benchmarks.support import figure_of

IDS = (
    "post_to_result_p50_ms",
    "ws_cell_p50_ms",
    "ws_cell_p99_ms",
    "ws_new_per_cell_p50_ms",
    "output_1mib_ms",
    "ws_cells_per_s",
)

_PEER = "jupyter_server with ipykernel"
_TOKEN = "bench-token"
_KERNELS, _STARTS, _CELLS, _NEW, _OUTPUTS = 4, 5, 200, 20, 5
_MIB = "for _ in range(1000): print('x' * 1047)"
_READY_S = 120.0


@dataclass(frozen=True)
class _Server:
    address: str

    @contextlib.asynccontextmanager
    async def kernel(self) -> AsyncIterator[str]:
        headers = {"authorization": f"token {_TOKEN}"}
        async with httpx.AsyncClient(base_url=f"http://{self.address}", headers=headers, timeout=60) as http:
            kernel = (await http.post("/api/kernels")).raise_for_status().json()["id"]
            try:
                yield kernel
            finally:
                await http.delete(f"/api/kernels/{kernel}")

    def channels(self, kernel: str) -> connect:
        url = f"ws://{self.address}/api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}&token={_TOKEN}"
        return connect(url, compression=None, max_size=2**26)


def run(ids: set[str]) -> list[Figure]:
    """Measure all figures."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _gateway(Path(folder)) as ours:
        mine = asyncio.run(_measure(ours))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _jupyter_server(Path(folder)) as theirs:
        peer = asyncio.run(_measure(theirs))
    units = {id: "1/s" if id.endswith("per_s") else "ms" for id in IDS}
    return [figure_of(id, mine[id], units[id], peer[id], _PEER) for id in IDS]


async def _measure(server: _Server) -> dict[str, float]:
    starts, cells, new, outputs = [], [], [], []
    for _ in range(_STARTS):
        began = time.perf_counter()
        async with server.kernel() as kernel, server.channels(kernel) as channels:
            await _cell(channels, "1+1")
            starts.append(_ms(began))
        await asyncio.sleep(0.5)  # the stock of kernels is filled again
    async with contextlib.AsyncExitStack() as stack:
        kernels = [await stack.enter_async_context(server.kernel()) for _ in range(_KERNELS)]
        each = [await stack.enter_async_context(server.channels(kernel)) for kernel in kernels]
        for _ in range(_CELLS):
            began = time.perf_counter()
            await _cell(each[0], "1+1")
            cells.append(_ms(began))
        for _ in range(_OUTPUTS):
            began = time.perf_counter()
            await _cell(each[0], _MIB)
            outputs.append(_ms(began))
        for _ in range(_NEW):
            began = time.perf_counter()
            async with server.channels(kernels[0]) as channels:
                await _cell(channels, "1+1")
                new.append(_ms(began))
        began = time.perf_counter()

        async def many(channels: ClientConnection) -> None:
            for _ in range(_CELLS):
                await _cell(channels, "1+1")

        await asyncio.gather(*map(many, each))
        per_s = _KERNELS * _CELLS / (time.perf_counter() - began)
    values = (starts, 0.5), (cells, 0.5), (cells, 0.99), (new, 0.5), (outputs, 0.5)
    return dict(zip(IDS, (*(quantile(*value) for value in values), per_s), strict=True))


async def _cell(channels: ClientConnection, code: str) -> None:
    """A cell until its reply and its end are there."""
    id = uuid.uuid4().hex
    header = {"msg_id": id, "msg_type": "execute_request", "username": "", "session": id, "version": "5.3"}
    message = {"header": header | {"date": "2026-01-01T00:00:00Z"}, "parent_header": {}, "metadata": {}, "buffers": []}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    await channels.send(json.dumps(message | {"content": content, "channel": "shell"}))
    replied = idle = False
    while not (replied and idle):
        got = json.loads(await channels.recv())
        if got["parent_header"].get("msg_id") == id:
            replied = replied or got["header"]["msg_type"] == "execute_reply"
            idle = idle or got["content"].get("execution_state") == "idle"


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000


@contextlib.contextmanager
def _gateway(folder: Path) -> Iterator[_Server]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMNIOPS_", "DATABASE_URL"))}
    env = kept | {"OMNIOPS_SERVER__TOKEN": _TOKEN, "OMNIOPS_TENANTS__SHOP__TOKEN": f"{_TOKEN}-shop"}
    env |= {"OMNIOPS_POOL__PROVISIONER": "local", "OMNIOPS_LOG_LEVEL": "error"}
    port = _free_port()
    command = ["gateway.cli", "serve", "--port", str(port), "--data-dir", str(folder / "data")]
    with _running(command, env, folder, port) as server:
        yield server


@contextlib.contextmanager
def _jupyter_server(folder: Path) -> Iterator[_Server]:
    port = _free_port()
    options = [f"--ServerApp.port={port}", f"--IdentityProvider.token={_TOKEN}", f"--ServerApp.root_dir={folder}"]
    command = ["jupyter_server", "--no-browser", "--allow-root", *options]
    with _running(command, os.environ | {"HOME": str(folder)}, folder, port) as server:
        yield server


@contextlib.contextmanager
def _running(command: list[str], env: dict[str, str], folder: Path, port: int) -> Iterator[_Server]:
    null = subprocess.DEVNULL
    with subprocess.Popen([sys.executable, "-m", *command], env=env, cwd=folder, stdout=null, stderr=null) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/kernelspecs", process)
            yield _Server(f"127.0.0.1:{port}")
        finally:
            process.terminate()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + _READY_S
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, headers={"authorization": f"token {_TOKEN}"}).status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} did not start")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
