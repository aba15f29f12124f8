"""From inside a cell: the network, the host's files, secrets and processes, other kernels. All of it must fail."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attack import SECRET_NAME, Arena, error, output

from kernel_pool import types

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server on the host's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


async def test_cannot_connect_to_the_hosts_loopback(arena: Arena, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    result = await arena.attack(f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
    assert error(result) == "OSError: [Errno 101] Network is unreachable"
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("address", ["1.1.1.1", "169.254.169.254", "10.0.0.1", "::1"])
async def test_cannot_connect_to_the_outside(arena: Arena, address: str) -> None:
    result = await arena.attack(f"import socket; socket.create_connection(({address!r}, 80), 2)")
    assert error(result) == "OSError: [Errno 101] Network is unreachable"


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG"])
async def test_cannot_make_a_socket_of_another_family_than_unix(arena: Arena, family: str) -> None:
    result = await arena.attack(f"import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM)")
    assert error(result) == "OSError: [Errno 101] Network is unreachable"


async def test_cannot_resolve_names(arena: Arena) -> None:
    result = await arena.attack("import socket; socket.getaddrinfo('example.com', 80)")
    assert error(result).startswith("gaierror")


async def test_urllib_says_that_the_network_is_unreachable(arena: Arena) -> None:
    result = await arena.attack("import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=2)")
    assert "Network is unreachable" in error(result)


async def test_cannot_reach_the_hosts_abstract_sockets(arena: Arena) -> None:
    name = f"\0omniops-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(name)
        server.listen()
        result = await arena.attack(f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})")
    assert error(result) == "ConnectionRefusedError: [Errno 111] Connection refused"


async def test_cannot_find_the_hosts_files(arena: Arena) -> None:
    with tempfile.NamedTemporaryFile(prefix="gateway-secret-") as file:
        os.chmod(file.name, 0o644)
        project = Path(types.__file__).parent.parent / "pyproject.toml"
        assert project.exists()
        paths = [file.name, os.fspath(project), os.fspath(Path.home() / ".ssh"), "/etc/shadow", "/var/log"]
        paths += [] if arena.contained else ["/sys"]
        result = await arena.attack(f"print([path for path in {paths!r} if os.path.exists(path)])")
    assert output(result) == "[]"


async def test_sees_only_what_is_made_for_it(arena: Arena) -> None:
    result = await arena.attack("print(*os.listdir('/')); print(*os.listdir('/dev')); print(*os.listdir('/etc'))")
    root, dev, etc = (set(line.split()) for line in output(result).splitlines())
    if arena.contained:
        known = {"bin", "dev", "etc", "home", "ipc", "lib", "lib64", "mnt", "opt", "proc", "root", "run", "sbin", "sys"}
        assert root - known <= {"lib32", "libx32", "tmp", "usr", "var", ".dockerenv"}
        return
    made = {"bin", "dev", "etc", "home", "ipc", "lib", "mnt", "opt", "proc", "run", "sbin", "tmp", "usr", "var"}
    assert made <= root
    assert root - made <= {"lib32", "lib64", "libx32", Path(sys.base_prefix).parts[1]}
    links = {"fd", "stdin", "stdout", "stderr", "ptmx"}
    assert dev == {"null", "zero", "full", "random", "urandom", "shm", "pts"} | links
    generated = {"passwd", "group", "hosts", "hostname", "nsswitch.conf", "resolv.conf"}
    assert etc - {"ld.so.cache", "alternatives"} == generated


async def test_has_nothing_of_the_gateways_environment(arena: Arena) -> None:
    code = """
print(dict(os.environ))
for pid in filter(str.isdigit, os.listdir('/proc')):
    print(open(f'/proc/{pid}/environ').read())
"""
    inside = output(await arena.attack(code))
    assert "/home/kernel" in inside
    assert os.environ[SECRET_NAME]
    assert os.environ[SECRET_NAME] not in inside
    assert SECRET_NAME not in inside


async def test_finds_no_other_kernels_key_in_its_memory(arena: Arena) -> None:
    """The template makes all kernels: what it knew of one, the next could read. A control tells what noise there is."""
    key, control = arena.sibling.process.key[:16], secrets.token_bytes(16)
    code = f"""
def count(needle):
    found = 0
    with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb') as memory:
        for line in maps.readlines():
            start, end = (int(part, 16) for part in line.split()[0].split('-'))
            if 'r' not in line.split()[1] or '[v' in line:
                continue
            memory.seek(start)
            try:
                found += memory.read(end - start).count(needle)
            except OSError:
                continue
    return found

print(count(bytes.fromhex({key.hex()!r})) == count(bytes.fromhex({control.hex()!r})), count(b'omniops') > 0)
"""
    assert output(await arena.attack(code)) == "True True"


async def test_sees_no_process_but_its_own(arena: Arena) -> None:
    result = await arena.attack("print(sorted(filter(str.isdigit, os.listdir('/proc'))), os.getpid(), os.getppid())")
    pids, own, parent = output(result).rsplit(" ", 2)
    if arena.contained:  # process 1 keeps the door
        assert (pids, parent) == (str(["1", own]), "1")
    else:
        assert (pids, own, parent) == ("['1']", "1", "0")


async def test_cannot_signal_the_hosts_processes(arena: Arena) -> None:
    pids = [os.getpid(), arena.sibling.pid]
    result = await arena.attack(f"print([attempt(os.kill, pid, 9) for pid in {pids} if pid > 1])")
    assert output(result) == str(["ESRCH"] * len(pids))


async def test_signals_to_everyone_reach_nobody_else(arena: Arena) -> None:
    result = await arena.attack("print(attempt(os.kill, -1, 9))")
    assert output(result) == "ESRCH"


async def test_does_not_see_other_kernels_folders(arena: Arena) -> None:
    sibling = arena.sibling
    code = f"""
paths = ['/run/kernels/{sibling.id}', {str(sibling.directory)!r}]
print(attempt(os.listdir, '/run/kernels'), *map(os.path.exists, paths))
print(sorted(os.listdir('/ipc')))
"""
    result = await arena.attack(code)
    folder = "ENOENT" if arena.contained else "[]"
    assert output(result) == f"{folder} False False\n['control', 'hb', 'iopub', 'shell', 'stdin']"


async def test_cannot_connect_to_another_kernels_sockets(arena: Arena) -> None:
    sibling = arena.sibling
    paths = [f"{folder}/{sibling.id}/shell" for folder in ("/run/kernels", "/ipc/..", sibling.directory.parent)]
    code = f"""
import socket
print([attempt(socket.socket(socket.AF_UNIX).connect, path) for path in {paths!r}])
"""
    result = await arena.attack(code)
    assert output(result) == str(["ENOENT"] * len(paths))


async def test_holds_no_descriptor_that_leads_out(arena: Arena) -> None:
    """Every open file is the kernel's own: sockets made inside, event queues, /dev/null and pipes."""
    code = """
for name in sorted(os.listdir('/proc/self/fd'), key=int):
    try:
        print(os.readlink(f'/proc/self/fd/{name}').split(':')[0])
    except OSError:
        pass
"""
    result = await arena.attack(code)
    kinds = set(output(result).split())
    assert kinds <= {"socket", "pipe", "anon_inode", "/dev/null", "/proc/1/fd", "/dev/urandom"}, kinds
