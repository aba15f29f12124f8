"""Kernels over Jupyter's websocket: raw frames in both protocols, several clients, hostile ones and slow ones."""

from __future__ import annotations

import json
import socket as sockets
import struct
from collections.abc import Iterator

import httpx
import pytest
from gateway_world import ServedGateway
from jupyter_world import SHOP, cells_of, new_kernel, wait_for
from socket_client import Message, pack, socket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

pytestmark = pytest.mark.xdist_group("jupyter")

HEADER = {"msg_id": "m", "msg_type": "kernel_info_request"}


def kind(message: Message) -> str:
    return str(message["header"]["msg_type"])


# -- cells --


@pytest.mark.parametrize("v1", [False, True], ids=["json", "v1"])
def test_a_cell(jupyter: ServedGateway, kernel: str, v1: bool) -> None:
    with socket(jupyter, kernel, v1=v1) as client:
        assert client.v1 is v1
        info = client.request("kernel_info_request", {})
        assert info["content"]["language_info"]["name"] == "python"
        assert info["parent_header"]["session"] == client.session
        ran = client.run("x = 6 * 7\nprint('counted')\nx")
        assert (ran.status, ran.texts()) == ("ok", "counted\n")
        kinds = [kind(message) for message in ran.messages if message["channel"] == "iopub"]
        assert kinds == ["status", "execute_input", "stream", "execute_result", "status"]
        assert client.run("1 / 0").status == "error"
        assert client.run("x").reply == client.run("").reply | {"execution_count": 3, "payload": []}
    cells = cells_of(jupyter, kernel, 4)
    assert cells[0]["source"].startswith("x = 6 * 7")
    assert cells[0]["outputs"][0]["text"] == "counted\n"
    assert cells[1]["outputs"][0]["ename"] == "ZeroDivisionError"


@pytest.mark.parametrize("v1", [False, True], ids=["json", "v1"])
def test_buffers_go_both_ways(jupyter: ServedGateway, kernel: str, v1: bool) -> None:
    echo = (
        "def opened(comm, message):\n"
        "    comm.on_msg(lambda m: comm.send({'n': 1}, buffers=[bytes(b)[::-1] for b in m['buffers']]))\n"
        "get_ipython().kernel.comm_manager.register_target('echo', opened)"
    )
    with socket(jupyter, kernel, v1=v1) as client:
        client.run(echo)
        client.send("comm_open", {"comm_id": "c", "target_name": "echo", "data": {}})
        client.send("comm_msg", {"comm_id": "c", "data": {}}, buffers=[b"\x00abc\xff", b""])
        message = client.until(lambda each: kind(each) == "comm_msg")[-1]
    assert message["buffers"] == [b"\xffcba\x00", b""]


def test_sparse_headers_are_understood(jupyter: ServedGateway, kernel: str) -> None:
    with socket(jupyter, kernel, session="") as client:
        for header in (HEADER, HEADER | {"date": 1.5, "version": "5.0", "session": "", "username": None}):
            client.connection.send(json.dumps({"header": header, "buffers": {}}))
            got = client.until(lambda each: kind(each) == "kernel_info_reply")
            assert got[-1]["parent_header"]["msg_id"] == "m"


def test_input_is_asked_of_the_client_that_ran_the_cell(jupyter: ServedGateway, kernel: str) -> None:
    with socket(jupyter, kernel) as client, socket(jupyter, kernel) as other:
        msg_id = client.execute("print(input('Name? ') + '!')", allow_stdin=True)
        asked = client.until(lambda each: kind(each) == "input_request")[-1]
        assert (asked["channel"], asked["content"]["prompt"]) == ("stdin", "Name? ")
        client.send("input_reply", {"status": "ok", "value": "Ada"}, channel="stdin", parent_header=asked["header"])
        assert client.end_of(msg_id).texts() == "Ada!\n"
        seen = other.until(lambda each: kind(each) == "stream" and "Ada!" in each["content"]["text"])
        assert "input_request" not in map(kind, seen)


def test_what_waits_behind_a_cell_that_failed_is_aborted(jupyter: ServedGateway, kernel: str) -> None:
    with socket(jupyter, kernel) as client:
        failing = client.execute("import time; time.sleep(1); 1 / 0")
        waiting = [client.execute("ran = 1"), client.execute("ran = 2")]
        info = client.send("kernel_info_request", {})
        replies: dict[str, str] = {}
        while len(replies) < 4:
            message = client.receive()
            if message["channel"] == "shell":
                replies[message["parent_header"]["msg_id"]] = message["content"]["status"]
        assert replies == {failing: "error", waiting[0]: "aborted", waiting[1]: "aborted", info: "ok"}
        assert client.run("ran").status == "error"
        client.execute("1 / 0", stop_on_error=False)
        assert client.run("ran = 3").status == "ok"


def test_a_cell_that_is_too_large_is_told_so(jupyter: ServedGateway, kernel: str) -> None:
    with socket(jupyter, kernel) as client:
        ran = client.run("#" * 70_000)
        assert ran.status == "error"
        assert "64 KiB" in ran.reply["evalue"]
        assert client.run("1").status == "ok"


# -- several clients --


def test_outputs_go_to_all_and_replies_to_the_one_that_asked(jupyter: ServedGateway, kernel: str) -> None:
    with socket(jupyter, kernel) as one, socket(jupyter, kernel, v1=True) as two:
        msg_id = one.execute("print('to all')")
        one.end_of(msg_id)
        seen = two.until(lambda each: kind(each) == "status" and each["content"]["execution_state"] == "idle")
        assert [kind(each) for each in seen] == ["status", "execute_input", "stream", "status"]
        assert all(each["parent_header"]["msg_id"] == msg_id for each in seen)
        assert two.request("kernel_info_request", {})["channel"] == "shell"


def test_the_gateways_own_cells_are_seen_too(jupyter: ServedGateway, http: httpx.Client, kernel: str) -> None:
    with socket(jupyter, kernel) as client:
        path = f"/v1/sessions/{kernel.replace('-', '')}/cells"
        assert http.post(path, json={"code": "y = 5; print('by an agent')"}).json()["status"] == "ok"
        seen = client.until(lambda each: kind(each) == "stream")
        assert seen[-1]["content"]["text"] == "by an agent\n"
        assert client.run("print(y)").texts() == "5\n"


def test_a_second_connection_with_the_same_session_takes_the_place(jupyter: ServedGateway, kernel: str) -> None:
    with socket(jupyter, kernel, session="same") as first, socket(jupyter, kernel, session="same") as second:
        assert first.end()[0] == 1000
        assert second.run("1").status == "ok"


def test_there_is_a_most_of_connections(jupyter: ServedGateway, kernel: str) -> None:
    with socket(jupyter, kernel), socket(jupyter, kernel), socket(jupyter, kernel), socket(jupyter, kernel) as last:
        with pytest.raises(InvalidStatus) as refused, socket(jupyter, kernel):
            pass
        assert refused.value.response.status_code == 429
        assert last.run("1").status == "ok"


# -- hostile clients --

_PARTS = [json.dumps(part).encode() for part in (HEADER, {}, {}, {})]


@pytest.mark.parametrize(
    ("v1", "frame"),
    [
        (False, "no JSON"),
        (False, "[]"),
        (False, "{}"),
        (False, "[" * 100_000),
        (False, json.dumps({"header": {"msg_id": 1, "msg_type": []}})),
        (False, json.dumps({"header": HEADER | {"msg_id": "x" * 300}})),
        (False, json.dumps({"header": HEADER | {"msg_id": "a\0b"}})),
        (False, json.dumps({"header": HEADER, "content": []})),
        (False, json.dumps({"header": HEADER, "channel": "iopub"})),
        (False, json.dumps({"header": HEADER | {"msg_type": "resume_request"}, "channel": "control"})),
        (False, json.dumps({"header": HEADER | {"msg_type": "execute_request"}, "content": {"code": 5}})),
        (
            False,
            json.dumps(
                {"header": HEADER | {"msg_type": "execute_request"}, "content": {"code": "1", "stop_on_error": 1}}
            ),
        ),
        (
            False,
            json.dumps(
                {"header": HEADER | {"msg_type": "execute_request"}, "content": {"code": "1"}, "channel": "control"}
            ),
        ),
        (False, b""),
        (False, b"\xff\xff\xff\xff"),
        (False, struct.pack(">II", 1, 4)),
        (False, struct.pack(">III", 2, 12, 8) + b"{}{}"),
        (True, "text"),
        (True, b"\x01"),
        (True, struct.pack("<QQQ", 2, 24, 2**63)),
        (True, struct.pack("<Q", 2**64 - 1)),
        (True, pack([b"shell", *_PARTS[:2]], "<Q", end=True)),
        (True, pack([b"\xff\xfe", *_PARTS], "<Q", end=True)),
        (True, pack([b"shell", b"\xff", *_PARTS[1:]], "<Q", end=True)),
    ],
)
def test_a_frame_that_is_no_message_closes_its_socket_alone(
    jupyter: ServedGateway, shared: str, v1: bool, frame: str | bytes
) -> None:
    with socket(jupyter, shared, session="stays") as other:
        with socket(jupyter, shared, v1=v1) as hostile:
            hostile.connection.send(frame)
            code, reason = hostile.end()
        assert (code, bool(reason)) == (1007, True)
        assert other.request("kernel_info_request", {})["content"]["status"] == "ok"


@pytest.fixture(scope="module")
def shared(jupyter: ServedGateway) -> Iterator[str]:
    """A kernel for all hostile frames."""
    with jupyter.client(SHOP) as http, new_kernel(http) as kernel:
        yield kernel


def test_text_that_is_no_utf8_closes_the_socket(jupyter: ServedGateway, shared: str) -> None:
    with socket(jupyter, shared) as hostile:
        with hostile.connection.send_context():
            hostile.connection.protocol.send_text(b"\xff\xfe")
        assert hostile.end()[0] == 1007


def test_a_message_that_is_too_large_closes_the_socket_as_too_large(jupyter: ServedGateway, shared: str) -> None:
    with socket(jupyter, shared) as hostile, socket(jupyter, shared) as other:
        hostile.execute("#" * 2**21)
        assert hostile.end()[0] == 1009
        assert other.request("kernel_info_request", {})["content"]["status"] == "ok"


def test_who_asks_for_too_much_at_once_is_sent_away(jupyter: ServedGateway, http: httpx.Client, kernel: str) -> None:
    with socket(jupyter, kernel) as hostile:
        for _ in range(40):
            hostile.execute("import time; time.sleep(60)")
        code, reason = hostile.end()
        assert (code, "too many" in reason) == (1013, True)
    assert http.post(f"/api/kernels/{kernel}/interrupt").status_code == 204


def test_a_client_that_does_not_read_is_closed_and_harms_nobody(jupyter: ServedGateway, kernel: str) -> None:
    host, port = jupyter.url.removeprefix("http://").split(":")
    with sockets.socket() as narrow:
        narrow.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        narrow.connect((host, int(port)))
        address = f"ws://{host}:{port}/api/kernels/{kernel}/channels?session_id=slow"
        headers = {"authorization": f"token {SHOP}"}
        with (
            connect(address, sock=narrow, additional_headers=headers, max_queue=1, compression=None, close_timeout=1),
            socket(jupyter, kernel) as other,
        ):
            ran = other.run("for n in range(200): print('x' * 50_000)")
            assert len(ran.texts()) == 200 * 50_001
            with jupyter.client(SHOP) as http:
                wait_for(lambda: http.get(f"/api/kernels/{kernel}").json()["connections"] == 1)
            assert other.run("1").status == "ok"
