"""From inside a cell: memory, by each way to hold it. Each ends with a clear error and hurts nobody else."""

from __future__ import annotations

import pytest
from attack import LIMITS, MIB, Arena, error, held_back, killed_for_memory, output

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
        block = bytearray(12 << 20)  # of itself a third of what is left
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
    assert output(await arena.probe(code)) == answer


async def test_pipes_hold_no_more_than_the_limit(arena: Arena) -> None:
    """Pipes hold 64 KiB each, until a user has 64 MiB of it; then 8 (pipe(7))."""
    code = """
import fcntl, time
reader, writer = os.pipe()
for _ in range(24):
    if os.fork() == 0:
        held = 0
        try:
            while True:
                _, end = os.pipe()
                os.set_blocking(end, False)
                attempt(fcntl.fcntl, end, fcntl.F_SETPIPE_SZ, 1 << 20)
                try:
                    while True:
                        held += os.write(end, bytes(1 << 16))
                except BlockingIOError:
                    pass
        except OSError:
            os.write(writer, b'%d ' % held)
            time.sleep(30)
        os._exit(0)
time.sleep(4)
os.close(writer)
print(sum(map(int, os.read(reader, 65536).split())))
"""
    result = await arena.attack(code, deadline_s=60)
    if result.status == "dead":
        assert killed_for_memory(result)
    else:
        assert int(output(result)) <= LIMITS.memory_mb * MIB


async def test_an_output_of_a_third_of_the_memory_is_left_out_and_ends_nothing(arena: Arena) -> None:
    """What packs messages may take no multiple of them: it would crash where the memory ends."""
    code = f"""
from IPython.display import display
display({{'text/html': 'x' * {LIMITS.memory_mb * MIB // 3}}}, raw=True)
"""
    async with arena.attacker() as kernel:
        result = await kernel.execute(code, deadline_s=60)
        assert "not shown" in output(result)
        assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"


async def test_timers_are_limited(arena: Arena) -> None:
    code = """
made = 0
while syscall(222, 1, 0, ctypes.byref(ctypes.c_int())) == 0:
    made += 1
    if made > 100_000: break
print(made)
"""
    result = await arena.attack(code)
    if arena.gvisor:  # it counts none; they are its memory
        assert result.status == "ok" or killed_for_memory(result)
    else:
        assert int(output(result)) <= 1024


async def test_attributes_of_files_count_as_their_file_system(arena: Arena) -> None:
    code = """
held = 0
try:
    for number in range(10**6):
        os.setxattr('/home/kernel', f'user.{number}', bytes(4096))
        held += 4096
except OSError as failure:
    print(errno.errorcode[failure.errno])
print(held)
"""
    result = await arena.attack(code, deadline_s=60)
    if result.status == "dead":
        assert killed_for_memory(result)
    else:
        assert int(output(result).split()[-1]) <= 2 * LIMITS.disk_mb * MIB
