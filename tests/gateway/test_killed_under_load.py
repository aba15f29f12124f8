"""The gateway is killed while many sessions print, and comes back: no session and no byte of output is lost."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from gateway_world import notebook_of
from jupyter_world import SHOP, wait_for
from socket_client import Socket, socket
from survival_world import Doomed, begin, survival_world, text_of

from gateway.transcripts.output_file import read_outputs

pytestmark = pytest.mark.timeout(300)

_EACH, _LINES = 3, 1500
#: Until the next gateway is there, and a little on.
_CODE = f"import time\nfor n in range({_LINES}):\n    print(n, 'x' * 200, flush=True)\n    time.sleep(0.004)"
_ALL = "".join(f"{n} {'x' * 200}\n" for n in range(_LINES))


#: More than memory is to hold, and than a kernel keeps: it has to wait for the next gateway.
_MUCH_LINES = 32_000
_MUCH = f"import time\nfor n in range({_MUCH_LINES}):\n    print(n, 'x' * 1000)\n    if n % 250 == 0: time.sleep(0.02)"


def test_every_line_of_every_session_is_there_once_and_in_order(postgres: str, tmp_path: Path) -> None:
    with survival_world(postgres, tmp_path, OMNIOPS_CELL__DEADLINE_S="280") as world:
        lost: list[threading.Thread] = []
        with world.gateway() as first, ExitStack() as stack:
            sessions = [first.create() for _ in range(_EACH)]
            kernels = [_kernel(first) for _ in range(_EACH)]
            clients = [
                stack.enter_context(socket(first, kernel, session="back", token=SHOP))  # type: ignore[arg-type]
                for kernel in kernels
            ]
            lost = [begin(first, session, _CODE, "load") for session in sessions]
            much = first.create()
            asked = [client.execute(_CODE) for client in clients]
            for client in clients:
                client.until(lambda each: each["header"]["msg_type"] == "stream", 60)
            wait_for(lambda: all(_known(first, session) for session in sessions))
            lost.append(begin(first, much, _MUCH, "much"))
            wait_for(lambda: _known(first, much, "much"))
            time.sleep(1)
            first.process.kill()
            first.process.wait()
        for thread in lost:
            thread.join()
        with world.gateway() as second:
            for kernel, msg_id in zip(kernels, asked, strict=True):
                with socket(second, kernel, session="back", token=SHOP) as client:  # type: ignore[arg-type]
                    assert _shown(client, msg_id) == _ALL
            for session in sessions:
                found = second.ended_cell(session, "load")
                assert (found["status"], text_of(found["result"]["outputs"]) == _ALL) == ("ok", True)
            found = second.ended_cell(much, "much")
            assert (found["status"], found["result"]["reason"]) == ("ok", "")
            (spooled,) = (world.data / "transcripts" / "shop" / f"{much}.outputs").iterdir()
            texts = "".join(output["text"] for output in read_outputs(spooled))
            assert texts == "".join(f"{n} {'x' * 1000}\n" for n in range(_MUCH_LINES))
            with second.http() as http:
                assert http.get(f"/v1/transcripts/{much}/verification").json()["problems"] == []
                (cell,) = http.get(f"/v1/transcripts/{much}").json()["cells"]
            assert cell["metadata"]["omniops"]["dropped_bytes"] == 0
            for session in [*sessions, *(kernel.replace("-", "") for kernel in kernels)]:
                assert second.session(session)["state"] == "live"
                wait_for(lambda session=session: notebook_of(world.data, session).cells)  # type: ignore[misc]
                (cell,) = notebook_of(world.data, session).cells
                assert text_of(cell.outputs) == _ALL


def _kernel(gateway: Doomed) -> str:
    with gateway.http() as http:
        headers = {"authorization": f"token {SHOP}"}
        return str(http.post("/api/kernels", headers=headers).raise_for_status().json()["id"])


def _known(gateway: Doomed, session: str, cell: str = "load") -> bool:
    with gateway.http() as http:
        return http.get(f"/v1/sessions/{session}/cells/{cell}").status_code == 200


def _shown(client: Socket, msg_id: str) -> str:
    """What a client that clears its cell when it is told to has at the end."""
    shown, replied, idle = "", False, False
    while not (replied and idle):
        message = client.receive(60)
        if message["parent_header"].get("msg_id") != msg_id:
            continue
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "clear_output":
            shown = ""
        elif kind == "stream":
            shown += content["text"]
        elif kind == "execute_reply":
            replied = True
        elif kind == "status":
            idle = content["execution_state"] == "idle"
    return shown
