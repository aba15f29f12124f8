"""Jupyter's REST interface, and that tenants are apart on every one of its routes."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import httpx
import pytest
from gateway_world import ServedGateway
from jupyter_world import OTHER, SHOP, cells_of, new_kernel
from socket_client import socket
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.xdist_group("jupyter")


def test_a_token_opens_in_each_of_three_ways_and_options_needs_none(jupyter: ServedGateway) -> None:
    url = f"{jupyter.url}/api"
    for given in ({"headers": {"authorization": f"token {SHOP}"}}, {"headers": {"authorization": f"Bearer {SHOP}"}}):
        assert httpx.get(url, **given).json()["version"]
    assert httpx.get(url, params={"token": SHOP}).status_code == 200
    assert httpx.get(url).status_code == 401
    assert httpx.options(f"{url}/kernels").status_code == 200
    assert httpx.get(f"{url}/contents", params={"token": SHOP}).status_code == 404


def test_kernelspecs(http: httpx.Client) -> None:
    specs = http.get("/api/kernelspecs").json()
    assert specs["default"] == "python3"
    assert {"python3", "agent", "analyst", "stock"} == set(specs["kernelspecs"])
    one = http.get("/api/kernelspecs/analyst").json()
    assert one == specs["kernelspecs"]["analyst"]
    assert one["spec"]["language"] == "python"
    assert http.get(one["resources"]["logo-64x64"]).content.startswith(b"\x89PNG")
    for path in ("/api/kernelspecs/none", "/kernelspecs/none/logo-64x64.png", "/kernelspecs/analyst/kernel.json"):
        assert http.get(path).status_code == 404


def test_a_kernel_from_its_start_to_its_end(http: httpx.Client) -> None:
    with new_kernel(http, name="agent", env={"KERNEL_ANSWER": 42, "PYTHONPATH": "/x"}, path="a/b.ipynb") as kernel:
        model = http.get(f"/api/kernels/{kernel}").json()
        assert (model["id"], model["name"], model["connections"]) == (str(uuid.UUID(kernel)), "agent", 0)
        assert datetime.strptime(model["last_activity"], "%Y-%m-%dT%H:%M:%S.%fZ")
        assert model in http.get("/api/kernels").json()
        (session,) = [each for each in http.get("/v1/sessions").json() if each["id"] == kernel.replace("-", "")]
        assert (session["role"], session["tenant"], session["title"]) == ("analyst", "shop", "a/b.ipynb")
        assert http.get("/api/status").json()["kernels"] >= 1
    assert http.get(f"/api/kernels/{kernel}").status_code == 404
    assert http.delete(f"/api/kernels/{kernel}").status_code == 404
    assert http.get(f"/v1/sessions/{session['id']}").json()["state"] == "ended"


def test_variables_come_with_the_kernel_and_stay_over_a_restart(jupyter: ServedGateway, http: httpx.Client) -> None:
    show = "import os; print(os.environ['KERNEL_ANSWER'])"
    with new_kernel(http, env={"KERNEL_ANSWER": 42}) as kernel, socket(jupyter, kernel) as client:
        assert client.run(show).texts() == "42\n"
        assert http.post(f"/api/kernels/{kernel}/restart", json={}).status_code == 200
        assert client.run(show).texts() == "42\n"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"name": "none"}', 400), (b'{"name": 5}', 400), (b"[", 400), (b'{"env": {"A B": "c"}}', 422)],
)
def test_what_cannot_be_a_kernel_is_refused_with_words(http: httpx.Client, body: bytes, status: int) -> None:
    answer = http.post("/api/kernels", content=body)
    assert answer.status_code == status
    assert answer.json()["message"]


def test_a_document_and_its_kernel(http: httpx.Client) -> None:
    body: dict[str, Any] = {"path": "one.ipynb", "name": "", "type": "notebook", "kernel": {"name": "python3"}}
    made = http.post("/api/sessions", json=body)
    assert made.status_code == 201
    session = made.json()
    assert (session["path"], session["notebook"]["path"]) == ("one.ipynb", "one.ipynb")
    # opened again, it is the same one
    assert http.post("/api/sessions", json={"notebook": {"path": "one.ipynb"}}).json()["id"] == session["id"]
    assert [each["id"] for each in http.get("/api/sessions").json()] == [session["id"]]
    url = f"/api/sessions/{session['id']}"
    first = session["kernel"]["id"]
    changed = http.patch(url, json={"path": "two.ipynb", "kernel": {"name": "agent"}}).json()
    assert (changed["path"], changed["kernel"]["name"]) == ("two.ipynb", "agent")
    assert http.get(f"/api/kernels/{first}").status_code == 404
    other = http.post("/api/sessions", json=body).json()
    assert http.patch(url, json={"path": "one.ipynb"}).status_code == 409
    for each in (session, other):
        assert http.delete(f"/api/sessions/{each['id']}").status_code == 204
    assert http.get(url).status_code == 404
    assert http.get(f"/api/kernels/{changed['kernel']['id']}").status_code == 404
    assert http.post("/api/sessions", json={"kernel": {}}).status_code == 400


def test_another_tenants_token_finds_nothing_on_any_route(
    jupyter: ServedGateway, http: httpx.Client, kernel: str
) -> None:
    session = http.post("/api/sessions", json={"path": "mine.ipynb", "kernel": {"id": kernel}}).json()["id"]
    paths = http.get("/v1/openapi.json").json()["paths"]
    tried = 0
    with jupyter.client(OTHER) as other:
        for path, methods in paths.items():
            if not path.startswith(("/api/kernels/{", "/api/sessions/{")):
                continue
            for method in methods:
                address = path.replace("{kernel}", kernel).replace("{session}", session)
                answer = other.request(method, address, json={})
                assert answer.status_code == 404, (method, path, answer.text)
                tried += 1
        assert tried >= 7
        assert other.get("/api/kernels").json() == other.get("/api/sessions").json() == []
        stolen = other.post("/api/sessions", json={"path": "x.ipynb", "kernel": {"id": kernel}})
        assert stolen.status_code == 404
        assert other.get("/api/status").json()["kernels"] == 0
    for token, status in ((OTHER, 404), ("wrong", 401)):
        with pytest.raises(InvalidStatus) as refused, socket(jupyter, kernel, token=token):
            pass
        assert refused.value.response.status_code == status
    assert http.get(f"/api/kernels/{kernel}").status_code == 200
    assert http.delete(f"/api/sessions/{session}").status_code == 204


def test_tools_are_called_from_cells_and_journaled(jupyter: ServedGateway, kernel: str) -> None:
    with socket(jupyter, kernel) as client:
        ran = client.run("from servers.woocommerce import count_orders\ncount_orders()")
    assert ran.status == "error"
    (cell,) = cells_of(jupyter, kernel, 1)
    (call,) = cell["metadata"]["omniops"]["calls"]
    assert call["tool"] == "woocommerce.count_orders"


def test_no_tool_is_called_outside_of_a_cell(jupyter: ServedGateway, kernel: str) -> None:
    sneak = (
        "from servers.woocommerce import count_orders\n"
        "def opened(comm, message):\n"
        "    try:\n"
        "        comm.send({'got': count_orders()})\n"
        "    except Exception as error:\n"
        "        comm.send({'got': str(error)})\n"
        "get_ipython().kernel.comm_manager.register_target('sneak', opened)"
    )
    with socket(jupyter, kernel) as client:
        assert client.run(sneak).status == "ok"
        client.send("comm_open", {"comm_id": "c", "target_name": "sneak", "data": {}})
        got = client.until(lambda each: each["header"]["msg_type"] == "comm_msg")[-1]
        assert "cell" in got["content"]["data"]["got"]
        client.run("")
    cells = cells_of(jupyter, kernel, 2)
    assert not any(cell["metadata"]["omniops"]["calls"] for cell in cells)


def test_no_token_is_logged(jupyter: ServedGateway, kernel: str) -> None:
    address = f"{jupyter.url}/api/kernels/{kernel}/channels"
    headers = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    key = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
    with httpx.stream("GET", address, params={"token": SHOP}, headers=headers | key) as answer:
        assert answer.status_code == 101
    log = jupyter.data_dir.with_name("data.log").read_text()
    assert SHOP not in log
    assert OTHER not in log
