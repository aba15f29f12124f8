"""What agent frameworks run code on Jupyter servers with: their own clients, against a gateway."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import requests
import smolagents.remote_executors as smolagents
import websocket
from jupyter_kernel_client import JupyterKernelClient
from own_database import own_database
from served_gateway import environment, served
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.utils import AgentError

TOKEN = "the-shops-own-token"


def test_their_clients_work(postgres: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    with own_database(postgres) as url, served(tmp_path / "data", environment(url)) as gateway:
        jupyter_kernel_client(gateway.url)
        smolagents_executor(gateway.url)
        left = requests.get(f"{gateway.url}/api/kernels?token={TOKEN}", timeout=30).json()
    assert left == []


def jupyter_kernel_client(url: str) -> None:
    """Jupyter MCP Server and Datalayer's agents use it. Its variables as objects need its own package in the kernel."""
    with JupyterKernelClient(server_url=url, token=TOKEN) as kernel:
        answer = kernel.execute("x = 41\nprint(x + 1)\nx")
        assert [each["output_type"] for each in answer["outputs"]] == ["stream", "execute_result"]
        assert answer["outputs"][0]["text"] == "42\n"
        assert [each["name"] for each in kernel.list_variables()] == ["x"]
        assert kernel.execute("1/0")["outputs"][0]["ename"] == "ZeroDivisionError"
        kernel.restart()
        assert kernel.execute("print('x' in globals())")["outputs"][0]["text"] == "False\n"


def smolagents_executor(url: str) -> None:
    """The part of its remote executors that speaks to a kernel gateway: a POST without a body, a token in the query."""
    log = AgentLogger(level=LogLevel.OFF)
    kernel = smolagents._create_kernel_http(f"{url}/api/kernels?token={TOKEN}", log)
    channels = f"{url.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels?token={TOKEN}"
    with contextlib.closing(websocket.create_connection(channels)) as socket:
        ran = smolagents._websocket_run_code_raise_errors("y = 3\nprint('hi')\ny * 2", socket, log)
        assert (ran.output, ran.logs) == ("6", "hi\n")
        with pytest.raises(AgentError, match="ZeroDivisionError"):
            smolagents._websocket_run_code_raise_errors("1/0", socket, log)
    requests.delete(f"{url}/api/kernels/{kernel}?token={TOKEN}", timeout=30).raise_for_status()
