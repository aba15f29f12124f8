"""From inside a cell: the network, in every way that Linux knows to leave a machine. All of them must fail."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator

import pytest
from attack import Arena, error, output

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server on the host's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


async def test_cannot_connect_to_the_hosts_loopback(arena: Arena, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    result = await arena.probe(f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
    assert error(result) == "OSError: [Errno 101] Network is unreachable"
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("address", ["1.1.1.1", "169.254.169.254", "10.0.0.1", "::1"])
async def test_cannot_connect_to_the_outside(arena: Arena, address: str) -> None:
    result = await arena.probe(f"import socket; socket.create_connection(({address!r}, 80), 2)")
    assert error(result) == "OSError: [Errno 101] Network is unreachable"


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_PACKET", "AF_VSOCK", "AF_ALG"])
async def test_cannot_make_a_socket_of_another_family_than_unix(arena: Arena, family: str) -> None:
    result = await arena.probe(f"import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM)")
    assert error(result) == "OSError: [Errno 101] Network is unreachable"


async def test_a_netlink_socket_is_refused_as_one_that_the_system_does_not_have(arena: Arena) -> None:
    result = await arena.attack("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)")
    assert error(result) == "OSError: [Errno 95] Operation not supported"


async def test_a_zmq_socket_bound_by_tcp_fails_and_the_kernel_lives(arena: Arena) -> None:
    result = await arena.attack("import zmq; zmq.Context().socket(zmq.REP).bind('tcp://127.0.0.1:*')")
    assert error(result).startswith("ZMQError")


async def test_cannot_resolve_names(arena: Arena) -> None:
    result = await arena.probe("import socket; socket.getaddrinfo('example.com', 80)")
    assert error(result).startswith("gaierror")


async def test_urllib_says_that_the_network_is_unreachable(arena: Arena) -> None:
    result = await arena.probe("import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=2)")
    assert "Network is unreachable" in error(result)


async def test_cannot_reach_the_hosts_abstract_sockets(arena: Arena) -> None:
    name = f"\0omniops-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(name)
        server.listen()
        result = await arena.probe(f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})")
    assert error(result) == "ConnectionRefusedError: [Errno 111] Connection refused"


async def test_has_no_socket_of_any_other_family(arena: Arena) -> None:
    """Families are where Linux is attacked most: AF_ALG (Copy Fail, CVE-2026-31431), AF_PACKET, AF_VSOCK, AF_XDP ..."""
    code = """
import socket
made = []
for family in range(64):
    for kind in (1, 2, 3, 5):
        answer = attempt(socket.socket, family, kind)
        if not isinstance(answer, str):
            made.append(family)
print(set(made), syscall(41, ctypes.c_long(2 + (1 << 32)), 2, 0), syscall(53, 2, 2, 0, ctypes.create_string_buffer(8)))
"""
    assert output(await arena.probe(code)) in ("{1} ENETUNREACH ENOSYS", "{1} ENETUNREACH EPERM")


async def test_has_no_interface_with_an_address(arena: Arena) -> None:
    code = """
def names(path):
    return [line.split(':')[0].strip() for line in open(path) if ':' in line] if os.path.exists(path) else []
print(names('/proc/net/dev'), names('/proc/net/route')[1:], attempt(os.listdir, '/sys/class/net'))
"""
    shown = output(await arena.probe(code))
    assert shown in ("['lo'] [] ENOENT", "[] [] ENOENT", "['lo'] [] []", "[] [] []", "['lo'] [] ['lo']"), shown
