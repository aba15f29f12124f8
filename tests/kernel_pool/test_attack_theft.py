"""From inside a cell: secrets, keys and processes of the gateway, of other kernels and of what made them."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from attack import SECRET_NAME, Arena, output

from kernel_pool.pool import Kernel

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def broker(kernel: Kernel, heard: list[bytes]) -> AsyncIterator[None]:
    """A door as the gateway opens it in a kernel's folder."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    path = kernel.directory / "broker.sock"
    server = await asyncio.start_unix_server(serve, path)
    path.chmod(0o660)
    if os.getuid() == 0:
        os.chown(path, -1, kernel.directory.stat().st_gid)
        os.chown(path, kernel.directory.stat().st_uid, -1)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def test_has_nothing_of_the_gateways_environment(arena: Arena) -> None:
    code = """
print(dict(os.environ))
for pid in filter(str.isdigit, os.listdir('/proc')):
    print(open(f'/proc/{pid}/environ').read())
"""
    inside = output(await arena.probe(code))
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
    assert output(await arena.probe(code)) == "True True"


async def test_sees_no_process_but_its_own(arena: Arena) -> None:
    result = await arena.probe("print(sorted(filter(str.isdigit, os.listdir('/proc'))), os.getpid(), os.getppid())")
    pids, own, parent = output(result).rsplit(" ", 2)
    if arena.contained:  # process 1 keeps the door
        assert (pids, parent) == (str(["1", own]), "1")
    else:
        assert (pids, own, parent) == ("['1']", "1", "0")


async def test_cannot_signal_the_hosts_processes(arena: Arena) -> None:
    pids = [os.getpid(), arena.sibling.pid]
    result = await arena.probe(f"print([attempt(os.kill, pid, 9) for pid in {pids} if pid > 1])")
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
    result = await arena.probe(code)
    folder = "ENOENT" if arena.contained else "[]"
    assert output(result) == f"{folder} False False\n['control', 'hb', 'iopub', 'shell', 'stdin']"


async def test_cannot_connect_to_another_kernels_sockets(arena: Arena) -> None:
    sibling = arena.sibling
    paths = [f"{folder}/{sibling.id}/shell" for folder in ("/run/kernels", "/ipc/..", sibling.directory.parent)]
    code = f"""
import socket
print([attempt(socket.socket(socket.AF_UNIX).connect, path) for path in {paths!r}])
"""
    result = await arena.probe(code)
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
    result = await arena.attack(code)  # other probes may have left files open
    kinds = set(output(result).split())
    assert kinds <= {"socket", "pipe", "anon_inode", "/dev/null", "/proc/1/fd", "/dev/urandom"}, kinds


async def test_reaches_its_own_broker_and_no_other(arena: Arena) -> None:
    """Which door a call comes through says whose it is, so no kernel may come to another's, or take its place."""
    own: list[bytes] = []
    others: list[bytes] = []
    sibling = arena.sibling
    folders = ["/ipc/..", f"/ipc/../{sibling.id}", f"/run/kernels/{sibling.id}", os.fspath(sibling.directory)]
    folders += [
        f"/proc/1/root{sibling.directory}",
        f"/proc/self/cwd/../..{sibling.directory}",
        f"/ipc/../../{sibling.id}",
    ]
    code = f"""
import socket
def call(path):
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(path)
        door.sendall(b'from the attacker')
        door.shutdown(socket.SHUT_WR)
        door.recv(1)
call('/ipc/broker.sock')
print({{attempt(call, folder + '/broker.sock') for folder in {folders}}})
print(attempt(os.unlink, '/ipc/broker.sock'), attempt(os.rename, '/ipc/broker.sock', '/ipc/b'),
      attempt(os.symlink, '/tmp/b', '/ipc/x'), attempt(os.chmod, '/ipc/broker.sock', 0o777),
      attempt(socket.socket(socket.AF_UNIX).bind, '/ipc/door'))
"""
    async with AsyncExitStack() as stack:
        kernel = await stack.enter_async_context(arena.attacker())
        await stack.enter_async_context(broker(kernel, own))
        await stack.enter_async_context(broker(sibling, others))
        reached, replaced = output(await kernel.execute(code, deadline_s=30)).splitlines()
    assert own == [b"from the attacker"]
    assert others == []
    assert set(eval(reached)) <= {"ENOENT", "ENOTDIR", "EACCES", "ENOTSOCK", "ECONNREFUSED"}
    assert set(replaced.split()) <= {"EROFS", "EACCES", "EPERM"}


async def test_the_client_in_its_own_memory_leads_nowhere_else(arena: Arena) -> None:
    """The stubs' client can be found and turned: all it has is a path, and behind it the kernel's own door."""
    code = f"""
client = next((found for found in map(sys.modules.get, sys.modules) if hasattr(found, 'BrokerClient')), None)
if client is None:
    import importlib
    package = get_ipython().kernel.__class__.__module__.rpartition('.')[0]
    client = importlib.import_module(package + '.client')
for path in ('/ipc/../{arena.sibling.id}/broker.sock', {os.fspath(arena.sibling.directory)!r} + '/broker.sock'):
    try:
        client.BrokerClient(path).call('counting.look', {{'tenant': 'other'}})
    except client.CallFailed as failed:
        print(failed.error.message)
"""
    heard: list[bytes] = []
    async with broker(arena.sibling, heard):
        lines = output(await arena.probe(code)).splitlines()
    assert [line.startswith("look: there is no tool broker for this kernel") for line in lines] == [True, True]
    assert heard == []


async def test_a_handle_of_the_gateway_is_good_for_nothing(arena: Arena) -> None:
    """A socket gives a handle of the process at its other end (SO_PEERPIDFD), which is the gateway."""
    code = """
import signal, socket, threading
answers, seen = set(), 0
for fd in map(int, os.listdir('/proc/self/fd')):
    try:
        end = socket.socket(fileno=os.dup(fd))
        if not str(end.getsockname()).startswith('/ipc/'):
            continue
        end.getpeername()
    except OSError:
        continue
    seen += 1
    pid, uid, gid = (int.from_bytes(end.getsockopt(1, 17, 12)[i:i + 4], 'little') for i in (0, 4, 8))
    answers.add(('pid', pid in (0, os.getppid(), os.getpid())))
    handle = attempt(end.getsockopt, socket.SOL_SOCKET, 77, 4)
    if isinstance(handle, bytes):
        handle = int.from_bytes(handle, 'little')
        answers.add(('kill', attempt(signal.pidfd_send_signal, handle, 0)))
        answers.add(('take', syscall(438, handle, 0, 0)))
        answers.add(('enter', call('setns', handle, 0x40000000)))
        answers.add(('ask', syscall(16, handle, 0xff01, 0)))
print(seen > 0, sorted(answers))
"""
    seen, answers = output(await arena.probe(code)).split(" ", 1)
    got = dict(eval(answers))
    assert seen == "True" or arena.gvisor  # which does not show who is at the other end
    assert got.pop("pid", True) is True
    assert set(got.values()) <= {"EINVAL", "EPERM", "ESRCH", "ENOSYS", "EBADF"}


async def test_finds_no_note_of_who_leased_what(arena: Arena) -> None:
    """Keys and sessions are on the gateway's disk, below the folder of which a kernel sees one corner."""
    key = arena.sibling.process.key
    names = sorted(path.name for path in arena.sibling.directory.parent.parent.iterdir())
    code = f"""
needles = ({key!r}, {key.hex()!r}.encode())
found, read, names = [], 0, set()
for top in ('/ipc', '/run', '/opt/omniops', '/tmp', '/var', '/home', '/dev/shm', '/mnt', '/etc'):
    for where, folders, files in os.walk(top):
        if 'packages' in where:
            continue
        names.update(folders, files)
        for name in files:
            try:
                with open(os.path.join(where, name), 'rb') as file:
                    content = file.read(1 << 20)
            except OSError:
                continue
            read += 1
            if any(needle in content for needle in needles):
                found.append(os.path.join(where, name))
print(found, read > 5, names & {{'leases', 'template.sock', 'template.log', 'door'}})
"""
    assert names
    assert output(await arena.probe(code)) == "[] True set()"


async def test_random_numbers_are_its_own(arena: Arena) -> None:
    """Forks of one process would draw the same: keys, tokens, samples."""
    code = """
import random, uuid, tempfile, secrets
print(random.getstate()[1][:5], random.random(), uuid.uuid4(), tempfile.mktemp(), secrets.token_hex(8))
"""
    mine, other = output(await arena.probe(code)), output(await arena.sibling.execute(code, deadline_s=30))
    assert set(mine.split()) & set(other.split()) <= {"(3,"}


async def test_what_it_changes_in_shared_memory_pages_is_changed_for_itself(arena: Arena) -> None:
    """Kernels of a template share its pages until one writes to them."""
    code = """
import string
at = id(string.ascii_lowercase) + sys.getsizeof(string.ascii_lowercase) - 27
ctypes.memmove(at, b'!', 1)
print(string.ascii_lowercase[0])
"""
    async with arena.attacker() as kernel:
        assert output(await kernel.execute(code, deadline_s=30)) == "!"
        same = await arena.sibling.execute("import string; print(string.ascii_lowercase[0])", deadline_s=30)
        assert output(same) == "a"
