"""From inside a cell: disk, files, processes, terminals, priorities. Each has an end, and nobody else meets it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attack import LIMITS, MIB, Arena, error, killed_for_memory, output

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("folder", ["/home/kernel", "/tmp", "/dev/shm"])
async def test_filling_the_disk_ends_with_no_space_left(arena: Arena, folder: str) -> None:
    code = f"""
for number in range(1000):
    with open(f'{folder}/fill-{{number}}', 'wb') as file:
        file.write(bytes(1 << 20))
"""
    async with arena.attacker() as kernel:
        result = await kernel.execute(code, deadline_s=60)
        assert error(result) == "OSError: [Errno 28] No space left on device"
        result = await kernel.execute(f"sum(len(files) for _, _, files in os.walk('{folder}'))", deadline_s=30)
        assert int(output(result)) <= LIMITS.disk_mb + 1


async def test_one_limit_holds_for_all_that_can_be_written(arena: Arena) -> None:
    code = """
written = 0
for folder in ('/home/kernel', '/tmp', '/dev/shm'):
    try:
        with open(f'{folder}/fill', 'wb', buffering=0) as file:
            while True:
                written += file.write(bytes(1 << 16))
    except OSError:
        pass
print(written)
"""
    # a container has three file systems; what they hold together counts as its memory
    limit_mb = LIMITS.disk_mb * (3 if arena.contained else 1)
    assert int(output(await arena.attack(code))) <= limit_mb * MIB


async def test_many_small_files_end_with_no_space_left(arena: Arena) -> None:
    code = """
for number in range(10**6):
    open(f'/tmp/{number}', 'w').close()
"""
    result = await arena.attack(code, deadline_s=60)
    if arena.gvisor:  # it counts no files, only memory
        assert killed_for_memory(result)
    else:
        assert error(result).startswith("OSError: [Errno 28] No space left on device")


async def test_a_file_as_long_as_one_likes_is_refused(arena: Arena) -> None:
    result = await arena.probe(f"open('long', 'wb').truncate({10 * LIMITS.disk_mb * MIB})")
    assert error(result) == "OSError: [Errno 27] File too large"


async def test_open_files_are_limited(arena: Arena) -> None:
    result = await arena.attack("held = []\nwhile True:\n    held.append(open('/dev/null'))")
    assert error(result).startswith("OSError: [Errno 24] Too many open files")


async def test_a_kernel_cannot_start_more_processes_than_its_limit(arena: Arena) -> None:
    code = """
import time
children = 0
try:
    for _ in range(10_000):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        children += 1
except OSError as error:
    print(error.errno == errno.EAGAIN, children)
"""
    async with arena.attacker() as kernel:
        result = await kernel.execute(code, deadline_s=60)
        if arena.gvisor:  # a process costs it so much memory that this limit comes first
            assert killed_for_memory(result)
            return
        refused, children = output(result).split()
        assert refused == "True"
        assert 1 < int(children) < LIMITS.processes
        if kernel.process.proc is not None:
            seen_from_outside = [name for name in os.listdir(kernel.process.proc) if name.isdigit()]
            assert len(seen_from_outside) == int(children) + 1
        await arena.check_unharmed()


async def test_a_fork_bomb_stays_in_its_sandbox(arena: Arena) -> None:
    code = """
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
    async with arena.attacker() as kernel:
        result = await kernel.execute(code, deadline_s=2)
        assert result.status in ("dead", "interrupted", "error")
        await arena.check_unharmed()
        if not kernel.exited.done() and kernel.process.proc is not None:
            seen_from_outside = [name for name in os.listdir(kernel.process.proc) if name.isdigit()]
            assert len(seen_from_outside) <= LIMITS.processes
        assert result.reason or result.error


async def test_a_thread_bomb_gets_an_error_and_the_kernel_lives(arena: Arena) -> None:
    code = """
import threading
stop = threading.Event()
try:
    while True:
        threading.Thread(target=stop.wait).start()
finally:
    stop.set()
"""
    async with arena.attacker() as kernel:
        assert error(await kernel.execute(code, deadline_s=30)) == "RuntimeError: can't start new thread"
        assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"


@pytest.mark.parametrize("limit", ["NPROC", "DATA", "NOFILE", "FSIZE", "CPU", "MEMLOCK", "CORE", "NICE", "RTPRIO"])
async def test_limits_cannot_be_raised(arena: Arena, limit: str) -> None:
    if arena.gvisor and limit == "DATA":
        limit = "AS"  # what it keeps to instead
    code = f"""
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_{limit}) if hasattr(resource, 'RLIMIT_{limit}') else (0, 0)
resource.setrlimit(getattr(resource, 'RLIMIT_{limit}', 13), (hard + 1, hard + 1))
"""
    assert error(await arena.probe(code)).startswith(("ValueError: not allowed to raise", "PermissionError"))


async def test_priority_cannot_be_raised(arena: Arena) -> None:
    code = """
print(attempt(os.nice, -1), attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1)))
os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1000')
"""
    async with arena.attacker() as kernel:
        result = await kernel.execute(code, deadline_s=30)
        if arena.gvisor:  # it takes note of both; the machine's kernel hears nothing of it
            assert os.getpriority(os.PRIO_PROCESS, kernel.pid) >= 0
            assert int(Path(f"/proc/{kernel.pid}/oom_score_adj").read_text()) >= 1000
            return
    assert output(result).startswith("EPERM EPERM")
    assert error(result).startswith("PermissionError: [Errno 13] Permission denied")


async def test_all_terminals_of_one_kernel_are_not_all_of_the_machine(arena: Arena) -> None:
    """The machine has 4,096 pseudo-terminals for all containers together."""
    code = """
import time
for _ in range(20):
    if os.fork() == 0:
        try:
            while True:
                os.open('/dev/ptmx', os.O_RDWR)
        except OSError:
            time.sleep(20)
        os._exit(0)
time.sleep(2)
print(attempt(os.open, '/dev/ptmx', os.O_RDWR))
"""
    async with arena.attacker() as kernel:
        result = await kernel.execute(code, deadline_s=30)
        assert result.status == "dead" or output(result) in ("ENOSPC", "EAGAIN", "EMFILE", "ENFILE") or arena.gvisor
        mine = await arena.sibling.execute("import pty; print(len(pty.openpty()))", deadline_s=30)
        assert output(mine) == "2"
        if not arena.gvisor:
            assert int(Path("/proc/sys/kernel/pty/nr").read_text()) < 1024


async def test_descriptors_under_way_do_not_keep_others_from_sending_any(arena: Arena) -> None:
    """They count for a user, and an ordinary user's kernels share theirs with the gateway (ETOOMANYREFS)."""
    code = """
import socket, time
def fill():
    held, one = [], os.open('/dev/null', os.O_RDONLY)
    try:
        while True:
            pair = socket.socketpair()
            pair[0].setblocking(False)
            held.append(pair)
            try:
                while True:
                    socket.send_fds(pair[0], [b'x'], [one] * 250)
            except BlockingIOError:
                pass
    except OSError as failure:
        return held, errno.errorcode[failure.errno]
kept, why = fill()
for _ in range(8):
    if os.fork() == 0:
        more = fill()
        time.sleep(20)
        os._exit(0)
time.sleep(1)
print(why)
"""
    async with arena.attacker() as kernel:
        result = await kernel.execute(code, deadline_s=30)
        assert output(result) in ("ETOOMANYREFS", "EMFILE") or arena.gvisor
        # the template gets a socket for each new kernel
        another = await arena.pool.lease()
        assert output(await another.execute("1 + 1", deadline_s=30)) == "2"
        await arena.pool.release(another)


async def test_a_pile_of_dead_children_is_limited_and_can_be_buried(arena: Arena) -> None:
    code = """
made = 0
try:
    for _ in range(10_000):
        if os.fork() == 0:
            os._exit(0)
        made += 1
except OSError as failure:
    print(errno.errorcode[failure.errno])
try:
    while os.wait(): pass
except ChildProcessError:
    print(made)
print(os.waitstatus_to_exitcode(os.system('true')))
"""
    async with arena.attacker() as kernel:
        result = await kernel.execute(code, deadline_s=60)
        if result.status == "dead":
            assert killed_for_memory(result)
            return
        why, made, after = output(result).split()
        assert (why, after) == ("EAGAIN", "0")
        assert int(made) < LIMITS.processes


async def test_links_and_holes_are_no_way_round_the_limit_on_files(arena: Arena) -> None:
    code = """
links = 0
open('/tmp/one', 'w').close()
try:
    for number in range(100_000):
        os.link('/tmp/one', f'/tmp/link-{number}')
        links += 1
except OSError as failure:
    print(errno.errorcode[failure.errno])
print(links)
"""
    result = await arena.attack(code, deadline_s=60)
    if result.status == "dead":
        assert killed_for_memory(result)
    else:
        *why, links = output(result).split()
        # gVisor counts no links; they are its memory, which is limited
        assert arena.gvisor or (why[0] in ("ENOSPC", "EMLINK") and int(links) <= LIMITS.disk_mb * 256)
