"""Interrupts, restarts, deaths and reconnects of kernels as Jupyter clients see them."""

from __future__ import annotations

import time

import httpx
import pytest
from gateway_world import ServedGateway
from jupyter_world import new_kernel, wait_for
from socket_client import Message, Socket, socket

pytestmark = pytest.mark.xdist_group("jupyter")


def says(state: str, message: Message) -> bool:
    return message["header"]["msg_type"] == "status" and message["content"]["execution_state"] == state


def begun(client: Socket, code: str) -> str:
    """A cell that has printed its first line."""
    msg_id = client.execute(code)
    client.until(lambda each: each["header"]["msg_type"] == "stream")
    return msg_id


FOREVER = "print('begun', flush=True)\nimport time\nwhile True: time.sleep(0.01)"


@pytest.mark.parametrize("way", ["rest", "control"])
def test_an_interrupt_ends_the_cell_and_keeps_the_kernel(
    jupyter: ServedGateway, http: httpx.Client, kernel: str, way: str
) -> None:
    with socket(jupyter, kernel) as client:
        client.run("kept = 1")
        msg_id = begun(client, FOREVER)
        if way == "rest":
            assert http.post(f"/api/kernels/{kernel}/interrupt", json={}).status_code == 204
        else:
            client.send("interrupt_request", {}, channel="control")
        ran = client.end_of(msg_id)
        assert (ran.status, ran.reply["ename"]) == ("error", "KeyboardInterrupt")
        assert client.run("print(kept)").texts() == "1\n"
    wait_for(lambda: http.get(f"/api/kernels/{kernel}").json()["execution_state"] == "idle")


def test_a_restart_ends_what_runs_and_begins_anew_under_the_same_id(
    jupyter: ServedGateway, http: httpx.Client, kernel: str
) -> None:
    with socket(jupyter, kernel) as client:
        client.run("gone = 1")
        msg_id, waiting = begun(client, FOREVER), client.execute("never = 1")
        restarted = http.post(f"/api/kernels/{kernel}/restart")
        assert (restarted.status_code, restarted.json()["id"]) == (200, kernel)
        seen = client.until(lambda each: says("starting", each))
        assert not any(says("restarting", each) for each in seen)  # JupyterLab would say that the kernel has died
        replies = {
            each["parent_header"]["msg_id"]: each["content"]["status"] for each in seen if each["channel"] == "shell"
        }
        assert replies == {msg_id: "error", waiting: "aborted"}
        assert client.run("gone").reply["ename"] == "NameError"
        assert client.request("shutdown_request", {"restart": True}, "control")["content"]["restart"] is True
        client.until(lambda each: says("starting", each))
        assert client.run("1").status == "ok"


def test_a_kernel_that_dies_tells_why_and_comes_back_by_a_restart(
    jupyter: ServedGateway, http: httpx.Client, kernel: str
) -> None:
    with socket(jupyter, kernel) as client:
        ran = client.run("import os; os._exit(1)")
        assert (ran.status, ran.reply["ename"]) == ("error", "KernelDied")
        assert ran.reply["evalue"]
        dead = client.until(lambda each: says("dead", each))[-1]
        assert dead["content"]["reason"]
        assert http.get(f"/api/kernels/{kernel}").json()["execution_state"] == "dead"
        assert "Restart" in client.run("1").reply["evalue"]
        assert http.post(f"/api/kernels/{kernel}/restart").status_code == 200
        assert client.run("1").status == "ok"


def test_the_end_of_a_kernel_closes_its_clients(jupyter: ServedGateway, http: httpx.Client) -> None:
    for way in ("jupyter", "platform", "message"):
        with new_kernel(http) as kernel, socket(jupyter, kernel) as client:
            client.run("1")
            if way == "jupyter":
                assert http.delete(f"/api/kernels/{kernel}").status_code == 204
            elif way == "platform":
                assert http.delete(f"/v1/sessions/{kernel.replace('-', '')}").status_code == 204
            else:
                client.send("shutdown_request", {"restart": False}, channel="control")
            assert client.end()[0] == 1001
            assert http.get(f"/api/kernels/{kernel}").status_code == 404


def test_what_was_said_while_nobody_listened_comes_on_reconnect(jupyter: ServedGateway, kernel: str) -> None:
    with socket(jupyter, kernel, session="back") as client:
        msg_id = begun(client, "print('begun', flush=True)\nimport time\ntime.sleep(1.5)\nprint('later')\n7")
    time.sleep(2)
    with socket(jupyter, kernel, session="stranger") as stranger:
        assert stranger.run("1").texts() == ""
    with socket(jupyter, kernel, session="back") as client:
        ran = client.end_of(msg_id)
        assert (ran.status, ran.texts()) == ("ok", "later\n")
        assert [each["content"]["data"]["text/plain"] for each in ran.messages if "data" in each["content"]] == ["7"]


def test_what_is_kept_for_an_absent_client_is_bounded_and_says_so(jupyter: ServedGateway, kernel: str) -> None:
    with socket(jupyter, kernel, session="back") as client:
        msg_id = begun(
            client, "print('begun', flush=True)\nimport time\ntime.sleep(1)\nfor n in range(60): print('x' * 50_000)"
        )
    with socket(jupyter, kernel) as other:
        other.until(lambda each: each["header"]["msg_type"] == "stream" and "x" in each["content"]["text"])
        assert other.run("1").status == "ok"
    with socket(jupyter, kernel, session="back") as client:
        first = client.receive()
        assert "were not kept" in first["content"]["text"]
        ran = client.end_of(msg_id)
        assert ran.status == "ok"
        assert 0 < len(ran.texts()) <= 2**20


def test_a_connection_for_every_cell(jupyter: ServedGateway, kernel: str) -> None:
    for n in range(5):
        with socket(jupyter, kernel, session="") as client:
            assert client.run(f"print({n})").texts() == f"{n}\n"
