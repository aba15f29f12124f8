"""The gateway is killed while Jupyter clients work; they come back to the next one, and nothing is lost."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from gateway_world import environment, own_database, served
from jupyter_world import SHOP, cells_of, new_kernel
from socket_client import socket

pytestmark = pytest.mark.timeout(200)

_SLOW = "print('begun', flush=True)\nimport time\nfor n in range(40):\n    print(n, flush=True); time.sleep(0.1)\nkept"
_LINES = "begun\n" + "".join(f"{n}\n" for n in range(40))


def test_a_cell_and_its_outputs_outlive_the_gateway(postgres: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    with own_database(postgres) as url, tempfile.TemporaryDirectory(prefix="oj-") as runtime:
        env = environment(url, OMNIOPS_RUNTIME_DIR=f"{runtime}/r")
        with served(tmp_path / "data", env) as first, first.client(SHOP) as http:
            kernel, idle = (http.post("/api/kernels").json()["id"] for _ in range(2))
            with socket(first, idle, token=SHOP) as client:
                client.run("kept = 5")
            with socket(first, kernel, session="back", token=SHOP) as client:
                client.run("kept = 41")
                msg_id = client.execute(_SLOW)
                client.until(lambda each: each["content"].get("text", "").endswith("1\n"))
                first.process.kill()
                first.process.wait(20)
        with served(tmp_path / "data", env) as second, second.client(SHOP) as http:
            assert {each["id"] for each in http.get("/api/kernels").json()} == {kernel, idle}
            with socket(second, kernel, session="back", token=SHOP) as client:
                ran = client.end_of(msg_id)
                kinds = [each["header"]["msg_type"] for each in ran.messages if each["channel"] == "iopub"]
                # what the client had is cleared, and comes again as a whole
                assert kinds.index("clear_output") < kinds.index("stream")
                assert (ran.status, ran.texts()) == ("ok", _LINES)
                assert client.run("print(kept)").texts() == "41\n"
            with socket(second, idle, token=SHOP) as client:
                assert client.run("print(kept)").texts() == "5\n"
            assert cells_of(second, kernel, 3)[1]["outputs"][0]["text"] == _LINES
            for each in (kernel, idle):
                assert http.delete(f"/api/kernels/{each}").status_code == 204
            with new_kernel(http) as fresh, socket(second, fresh, token=SHOP) as client:
                assert client.run("kept").status == "error"
