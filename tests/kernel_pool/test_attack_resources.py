"""From inside a cell: fill memory, disk and process table. Each ends with a clear error and hurts nobody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attack import LIMITS, Arena, error, output

from kernel_pool.types import CellResult, ExitReason

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024


def killed_for_memory(result: CellResult) -> bool:
    assert result.status == "dead", (result.status, result.error, output(result))
    assert result.state_lost
    assert result.exit is not None
    assert result.exit.reason is ExitReason.MEMORY
    assert f"its memory limit is {LIMITS.memory_mb} MiB" in result.exit.detail
    return True


def held_back(arena: Arena, result: CellResult) -> bool:
    """Killed; or refused by gVisor, where what a process may map is limited as a whole."""
    if arena.gvisor and result.error is not None:
        return error(result) == "OSError: [Errno 12] Cannot allocate memory"
    return killed_for_memory(result)


@pytest.mark.parametrize(
    "code",
    [
        f"block = bytearray({4 * LIMITS.memory_mb * MIB})",
        "grown = []\nwhile True:\n    grown.append(bytes(100_000))",
        "text = 'x'\nwhile True:\n    text += text",
        "numbers = list(range(10**9))",
    ],
    ids=["one-block", "many-blocks", "doubling", "small-objects"],
)
async def test_one_process_that_fills_memory_gets_a_memory_error_and_lives(arena: Arena, code: str) -> None:
    async with arena.attacker() as kernel:
        result = await kernel.execute(f"{code}", deadline_s=60)
        assert error(result) == f"MemoryError: the kernel's memory limit of {LIMITS.memory_mb} MiB is reached"
        result = await kernel.execute("grown = text = numbers = block = None\n1 + 1", deadline_s=30)
        assert output(result) == "2"


async def test_a_cell_that_goes_on_with_full_memory_leaves_the_kernel_able_to_answer(arena: Arena) -> None:
    code = """
grown = []
try:
    while True:
        grown.append(bytes(1 << 17))
except MemoryError:
    pass
"""
    async with arena.attacker() as kernel:
        for _ in range(3):
            result = await kernel.execute(code, deadline_s=60)
            assert result.status in ("ok", "error"), result
        assert output(await kernel.execute("del grown\n1 + 1", deadline_s=30)) == "2"


async def test_a_kernel_can_use_the_memory_that_its_limit_says(arena: Arena) -> None:
    result = await arena.attack(
        f"block = bytearray({(LIMITS.memory_mb - 8) * MIB}); block[::4096] = block[::4096]; 'fits'"
    )
    assert output(result) == "'fits'"


async def test_many_processes_that_fill_memory_together_are_killed(arena: Arena) -> None:
    code = f"""
import time
for _ in range(8):
    if os.fork() == 0:
        block = bytearray({LIMITS.memory_mb // 3 * MIB})
        for at in range(0, len(block), 4096):
            block[at] = 1
        time.sleep(60)
        os._exit(0)
time.sleep(60)
"""
    assert killed_for_memory(await arena.attack(code))


async def test_programs_that_the_kernel_starts_count_as_well(arena: Arena) -> None:
    code = f"""
import subprocess, time
hold = "import time; block = b'x' * {LIMITS.memory_mb // 2 * MIB}; time.sleep(60)"
programs = [subprocess.Popen([sys.executable, '-c', hold]) for _ in range(4)]
time.sleep(60)
"""
    assert killed_for_memory(await arena.attack(code))


async def test_shared_memory_counts(arena: Arena) -> None:
    code = f"""
import mmap, time
shared = mmap.mmap(-1, {2 * LIMITS.memory_mb * MIB})
for at in range(0, len(shared), 4096):
    shared[at] = 1
time.sleep(60)
"""
    assert held_back(arena, await arena.attack(code))


async def test_memory_cannot_be_hidden_from_the_watcher_by_not_being_dumpable(arena: Arena) -> None:
    code = f"""
import mmap, time
call('prctl', 4, 0, 0, 0, 0)
shared = mmap.mmap(-1, {2 * LIMITS.memory_mb * MIB})
for at in range(0, len(shared), 4096):
    shared[at] = 1
time.sleep(60)
"""
    assert held_back(arena, await arena.attack(code))


async def test_page_tables_count(arena: Arena) -> None:
    """Reading costs no page of one's own, but a table for every 2 MiB of addresses."""
    code = """
import mmap, time
room = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ)
for at in range(0, 1 << 40, 1 << 21):
    room[at]
time.sleep(60)
"""
    assert held_back(arena, await arena.attack(code))


async def test_what_waits_in_sockets_counts(arena: Arena) -> None:
    code = """
import socket, time
def fill():
    held = []
    try:
        while True:
            pair = socket.socketpair()
            pair[0].setblocking(False)
            held.append(pair)
            try:
                while True:
                    pair[0].send(bytes(1 << 16))
            except BlockingIOError:
                pass
    except OSError:
        time.sleep(60)
for _ in range(8):
    if os.fork() == 0:
        fill()
        os._exit(0)
time.sleep(60)
"""
    assert killed_for_memory(await arena.attack(code))


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("attempt(os.memfd_create, 'x')", "'ENOSYS'"),
        ("syscall(447, 0)", "'ENOSYS'"),
        ("call('shmget', 0, 1 << 20, 0o1600)", "'ENOSYS'"),
        ("call('msgget', 0, 0o1600)", "'ENOSYS'"),
        ("call('semget', 0, 1, 0o1600)", "'ENOSYS'"),
        ("call('inotify_init')", "'ENOSYS'"),
        ("syscall(206, 128, ctypes.byref(ctypes.c_ulong()))", "'ENOSYS'"),
        ("call('mlock', ctypes.create_string_buffer(1 << 20), 1 << 20)", "'EPERM'"),
    ],
    ids=["memfd", "memfd-secret", "sysv-memory", "sysv-queue", "sysv-semaphore", "inotify", "aio", "locked-memory"],
)
async def test_memory_that_no_limit_would_count_is_refused(arena: Arena, code: str, answer: str) -> None:
    assert output(await arena.attack(code)) == answer


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
    result = await arena.attack(f"open('long', 'wb').truncate({10 * LIMITS.disk_mb * MIB})")
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
    assert error(await arena.attack(code)).startswith(("ValueError: not allowed to raise", "PermissionError"))


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
    assert error(result) == "PermissionError: [Errno 13] Permission denied"
