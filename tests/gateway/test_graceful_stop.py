"""SIGTERM to a real gateway: no new work, what runs comes to its end and its client hears it, sockets get a reason."""

from __future__ import annotations

import json
import signal
import threading

import httpx
import pytest
from gateway_world import ServedGateway, environment, own_database, served
from jupyter_world import SHOP, new_kernel, wait_for
from socket_client import socket
from websockets.exceptions import InvalidStatus

CELL = "import time\nfor n in range(30): print(n, flush=True); time.sleep(0.1)\n'whole'"


def stream(gateway: ServedGateway, session: str, got: list[str]) -> None:
    with (
        gateway.client(SHOP) as http,
        http.stream(
            "POST", f"/v1/sessions/{session}/cells", json={"code": CELL}, headers={"accept": "text/event-stream"}
        ) as answer,
    ):
        got.extend(answer.iter_lines())


@pytest.mark.parametrize(("on_stop", "code"), [("end", 1001), ("keep", 1012)])
def test_a_gateway_that_is_stopped(
    postgres: str, tmp_path_factory: pytest.TempPathFactory, on_stop: str, code: int
) -> None:
    data = tmp_path_factory.mktemp("stop") / "data"
    data.mkdir(mode=0o700)
    more = {"OMNIOPS_POOL__ON_STOP": on_stop, "OMNIOPS_SERVER__SHUTDOWN_GRACE_S": "20", "OMNIOPS_POOL__WARM": "2"}
    got: list[str] = []
    with own_database(postgres) as url:
        with served(data, environment(url, **more)) as gateway, gateway.client(SHOP) as http:
            assert http.get("/readyz").json()["ready"] is True
            session = http.post("/v1/sessions", json={"tenant": "shop"}).json()["id"]
            running = threading.Thread(target=stream, args=(gateway, session, got))
            with new_kernel(http) as kernel, socket(gateway, kernel) as idle:
                assert idle.run("1").status == "ok"
                running.start()
                wait_for(lambda: got)
                gateway.process.send_signal(signal.SIGTERM)
                assert idle.end()[0] == code
                ready = http.get("/readyz")
                assert (ready.status_code, ready.json()["conditions"]["running"]) == (503, "the gateway is stopping")
                assert http.get("/healthz").status_code == 200
                refused = http.post("/v1/sessions", json={"tenant": "shop"})
                assert (refused.status_code, refused.json()["code"]) == (503, "stopping")
                assert refused.headers["retry-after"] == "1"
                with pytest.raises(InvalidStatus) as turned_away, socket(gateway, kernel):
                    pass
                assert turned_away.value.response.status_code == 503
                assert http.get(f"/v1/sessions/{session}").status_code == 200
            running.join(60)
            assert gateway.process.wait(60) == 0
        told = [json.loads(line.removeprefix("data: ")) for line in got if line.startswith("data: ")]
        assert (told[-1]["status"], told[-1]["outputs"][-1]["data"]["text/plain"]) == ("ok", "'whole'")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{gateway.url}/healthz")
