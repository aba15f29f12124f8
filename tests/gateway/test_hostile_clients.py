"""Clients that are slow, many, or mean: each is cut off with a code and a reason, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
import socket as sockets
from collections.abc import Callable, Iterator

import httpx
import pytest
from gateway_world import ServedGateway
from jupyter_world import SHOP, jupyter_gateway, new_kernel, wait_for
from socket_client import Socket, pack, socket
from websockets.exceptions import ConnectionClosed, InvalidStatus

LIMITS = {
    "OMNIOPS_SERVER__HEAD_S": "1",
    "OMNIOPS_SERVER__BODY_S": "1.5",
    "OMNIOPS_SERVER__MESSAGE_S": "1",
    "OMNIOPS_SERVER__REQUESTS": "6",
    "OMNIOPS_SERVER__WEBSOCKETS": "4",
    "OMNIOPS_SERVER__CONNECTIONS": "40",
}


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    with jupyter_gateway(postgres, tmp_path_factory.mktemp("hostile"), **LIMITS) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def kernel(gateway: ServedGateway) -> Iterator[str]:
    with gateway.client(SHOP) as http, new_kernel(http) as kernel:
        yield kernel


def plain(gateway: ServedGateway, sent: bytes = b"") -> sockets.socket:
    host, port = gateway.url.removeprefix("http://").split(":")
    made = sockets.create_connection((host, int(port)), timeout=20)
    made.sendall(sent)
    return made


def all_of(connection: sockets.socket) -> bytes:
    """What comes until the gateway closes."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            got += data
    return got


def posting(length: int = 100) -> bytes:
    """The head of a request, with the first byte of its body."""
    head = (
        f"POST /v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SHOP}\r\ncontent-type: application/json\r\n"
    )
    return f"{head}content-length: {length}\r\n\r\n{{".encode()


# -- HTTP --


@pytest.mark.parametrize("head", [b"", b"GET /v1/st", b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: "])
def test_who_does_not_send_a_request_is_cut_off(gateway: ServedGateway, head: bytes) -> None:
    with plain(gateway, head) as slow:
        assert httpx.get(f"{gateway.url}/healthz").status_code == 200
        assert all_of(slow) == b""


def test_who_sends_the_next_request_byte_by_byte_is_cut_off(gateway: ServedGateway) -> None:
    with plain(gateway, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n") as slow:
        while not (answered := slow.recv(65536)).endswith(b"}"):  # head and body may come apart
            assert answered
        slow.sendall(b"G")
        assert all_of(slow) == b""


def test_a_body_that_does_not_come_is_answered_408(gateway: ServedGateway) -> None:
    with plain(gateway, posting()) as slow:
        answer = all_of(slow)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"request_timeout"' in answer


def test_too_many_requests_at_once_are_refused_at_once_and_what_watches_is_not(gateway: ServedGateway) -> None:
    with contextlib.ExitStack() as stack, gateway.client(SHOP) as http, gateway.client() as operator:
        for _ in range(6):
            stack.enter_context(plain(gateway, posting()))

        def refused() -> bool:
            answer = http.get("/v1/sessions")
            if answer.status_code != 503:
                return False
            assert (answer.json()["code"], answer.headers["retry-after"]) == ("busy", "1")
            return True

        wait_for(refused)
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 200
        assert 'omniops_http_refused_total{reason="busy"}' in operator.get("/metrics").text
        # the six get their 408, and make room
        wait_for(lambda: http.get("/v1/sessions").status_code == 200)


def test_connections_beyond_the_most_are_closed(gateway: ServedGateway) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(plain(gateway)) for _ in range(60)]
        assert [all_of(each) for each in idle[-10:]] == [b""] * 10
    with gateway.client(SHOP) as http:
        http_works = lambda: http.get("/v1/sessions").status_code == 200  # noqa: E731
        wait_for(lambda: _suppressed(http_works))


def _suppressed(what: Callable[[], bool]) -> bool:
    try:
        return what()
    except httpx.TransportError:
        return False


def test_bytes_that_are_no_http_end_their_connection(gateway: ServedGateway) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9\r\n\r\n", b"x" * 100_000, b"GET /\xff HTTP/1.1\r\n\r\n"):
        with plain(gateway, sent) as hostile:
            assert all_of(hostile)[:12] in (b"HTTP/1.1 400", b"")
    assert httpx.get(f"{gateway.url}/healthz").status_code == 200


# -- websockets --


def fragments(client: Socket) -> None:
    """A message whose end does not come."""
    with client.connection.send_context():
        client.connection.protocol.send_text(b"{", fin=False)


def crumbs(client: Socket) -> None:
    for number in range(5000):
        with client.connection.send_context():
            protocol = client.connection.protocol
            protocol.send_text(b"", fin=False) if number == 0 else protocol.send_continuation(b"", fin=False)


def pings(client: Socket) -> None:
    for _ in range(1500):
        with client.connection.send_context():
            client.connection.protocol.send_ping(b"x" * 125)


def raw(data: bytes) -> Callable[[Socket], None]:
    return lambda client: client.connection.socket.sendall(data)


def message(content: bytes) -> Callable[[Socket], None]:
    parts = [b'{"msg_id":"m","msg_type":"execute_request"}', b"{}", b"{}", content]
    return lambda client: client.connection.send(pack([b"shell", *parts], "<Q", end=True))


HOSTILE: dict[str, tuple[int, Callable[[Socket], None]]] = {
    "fragmented for ever": (1008, fragments),
    "in crumbs": (1008, crumbs),
    "a frame whose end does not come": (1008, raw(b"\x82\xfe\x01\x00\0\0\0\0{")),
    "a flood of pings": (1008, pings),
    "reserved bits": (1002, raw(b"\xf1\x80\0\0\0\0")),
    "without a mask": (1002, raw(b"\x81\x01x")),
    "an unknown kind of frame": (1002, raw(b"\x83\x80\0\0\0\0")),
    "a control frame in pieces": (1002, raw(b"\x09\x80\0\0\0\0")),
    "a continuation of nothing": (1002, raw(b"\x80\x80\0\0\0\0")),
    "a length beyond all bounds": (1009, raw(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0")),
    "deep": (1007, message(b'{"code":"1","a":' + b"[" * 900 + b"]" * 900 + b"}")),
    "no UTF-8": (1007, message(b'{"code":"\xff"}')),
    "NaN": (1007, message(b'{"code":"1","a":NaN}')),
    "no number": (1007, message(b'{"code":1}')),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_socket_is_closed_alone(gateway: ServedGateway, kernel: str, how: str) -> None:
    code, attack = HOSTILE[how]
    with socket(gateway, kernel) as other, socket(gateway, kernel, v1=True) as hostile:
        # who still sends when it is closed may get a reset before the reason
        with contextlib.suppress(OSError, ConnectionClosed):
            attack(hostile)
        ended = hostile.end()
        assert ended[0] == code or (attack in (pings, crumbs) and ended[0] == 1006), ended
        assert ended[1] or code == 1002 or ended[0] == 1006
        assert other.run("print('here')").texts() == "here\n"


def test_an_unknown_protocol_is_not_spoken(gateway: ServedGateway, kernel: str) -> None:
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    address = f"{gateway.url.replace('http', 'ws')}/api/kernels/{kernel}/channels"
    headers = {"authorization": f"token {SHOP}"}
    with connect(address, additional_headers=headers, subprotocols=[Subprotocol("v9.kernel")]) as client:
        assert client.subprotocol is None
        client.send(json.dumps({"header": {"msg_id": "m", "msg_type": "kernel_info_request"}}))
        assert isinstance(client.recv(20), str)


def test_websockets_beyond_the_most_are_refused(gateway: ServedGateway, kernel: str) -> None:
    with contextlib.ExitStack() as stack, gateway.client(SHOP) as http, new_kernel(http) as another:
        last = [stack.enter_context(socket(gateway, kernel)) for _ in range(4)][-1]
        with pytest.raises(InvalidStatus) as refused:
            stack.enter_context(socket(gateway, another))
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["retry-after"] == "1"
        assert last.run("1").status == "ok"
