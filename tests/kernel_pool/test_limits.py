"""A kernel that is over a limit is held alone, and its session is told, whatever holds it there."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from attack import LIMITS, error, output
from pools import adapted, pool_config

from kernel_pool import watch
from kernel_pool.kernel import Kernel
from kernel_pool.pool import Pool
from kernel_pool.process import KernelProcess
from kernel_pool.types import ExitReason, KernelGone, PoolConfig
from kernel_pool.watch import MemoryUse

MIB = 2**20
#: More than a kernel may hold by far.
TOO_MUCH = 3 * LIMITS.memory_mb * MIB

HOLD = "import time; time.sleep(60)"
#: Ways to hold memory that no limit on one process counts.
PATHS = {
    "many processes": f"""
import os
for _ in range(8):
    if os.fork() == 0:
        block = bytearray({LIMITS.memory_mb * MIB // 2})
        block[::4096] = block[::4096]
        {HOLD}
        os._exit(0)
{HOLD}
""",
    "programs": f"""
import subprocess, sys
hold = "block = b'x' * {LIMITS.memory_mb * MIB // 2}; {HOLD}"
programs = [subprocess.Popen([sys.executable, '-c', hold]) for _ in range(8)]
{HOLD}
""",
    "shared memory": f"""
import mmap
shared = mmap.mmap(-1, {TOO_MUCH})
for at in range(0, len(shared), 4096):
    shared[at] = 1
{HOLD}
""",
    "page tables": f"""
import mmap
room = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ)
for at in range(0, 1 << 40, 1 << 21):
    room[at]
{HOLD}
""",
    "files and memory": f"""
import mmap
with open('/tmp/full', 'wb') as file:
    file.write(bytes({(LIMITS.disk_mb - 1) * MIB}))
shared = mmap.mmap(-1, {TOO_MUCH})
for at in range(0, len(shared), 4096):
    shared[at] = 1
{HOLD}
""",
}


@pytest_asyncio.fixture(params=[pytest.param("cgroup", marks=pytest.mark.cgroup("memory")), "watcher"])
async def pool(
    request: pytest.FixtureRequest, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pool]:
    """One of the two that bound a kernel's memory as a whole, without the other."""
    config = pool_config(runtime_dir, limits=LIMITS, cgroups="off" if request.param == "watcher" else "auto")
    if request.param == "cgroup":
        monkeypatch.setattr(watch, "measure", lambda *_: MemoryUse(0, LIMITS.memory_mb * MIB, 1))
    pool = Pool(config)
    await pool.start()
    yield pool
    await pool.close()


@pytest.mark.parametrize("code", PATHS.values(), ids=PATHS)
async def test_a_kernel_over_its_memory_dies_alone_and_its_session_learns_that_it_was_memory(
    pool: Pool, code: str
) -> None:
    sibling = await pool.lease()
    await sibling.execute("state = 'untouched'", deadline_s=60)
    kernel = await pool.lease()
    result = await kernel.execute(code, deadline_s=60)
    if result.status != "dead":  # Linux ended another process of the kernel than the first
        await kernel.exited
        with pytest.raises(KernelGone) as gone:
            await kernel.execute("1", deadline_s=60)
        exit = gone.value.exit
    else:
        assert result.state_lost
        assert result.exit is not None
        exit = result.exit
    assert exit.reason is ExitReason.MEMORY
    assert f"its memory limit is {LIMITS.memory_mb} MiB" in exit.detail
    assert output(await sibling.execute("state", deadline_s=60)) == "'untouched'"


async def test_one_process_gets_a_memory_error_first(pool: Pool) -> None:
    kernel = await pool.lease()
    result = await kernel.execute("grown = []\nwhile True:\n    grown.append(bytes(100_000))", deadline_s=60)
    assert error(result) == f"MemoryError: the kernel's memory limit of {LIMITS.memory_mb} MiB is reached"
    assert output(await kernel.execute("grown = None\n1 + 1", deadline_s=60)) == "2"


async def test_what_the_limits_say_can_be_used_at_once(pool: Pool) -> None:
    """Memory and files together, to the last but a little."""
    kernel = await pool.lease()
    code = f"""
with open('/tmp/full', 'wb') as file:
    file.write(bytes({(LIMITS.disk_mb - 1) * MIB}))
block = bytearray({(LIMITS.memory_mb - 8) * MIB}); block[::4096] = block[::4096]
'fits'
"""
    assert output(await kernel.execute(code, deadline_s=60)) == "'fits'"


@pytest.mark.cgroup("memory")
async def test_a_kernel_of_which_linux_ended_a_program_ends_and_says_why(
    runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program was what the cell went by; a kernel without it is not what its session thinks."""
    monkeypatch.setattr(watch, "measure", lambda *_: MemoryUse(0, LIMITS.memory_mb * MIB, 1))
    pool = Pool(pool_config(runtime_dir, limits=LIMITS))
    await pool.start()
    try:
        kernel = await pool.lease()
        hold = f"import mmap; block = mmap.mmap(-1, {TOO_MUCH})\nfor at in range(0, {TOO_MUCH}, 4096): block[at] = 1"
        code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {hold!r}])"
        await kernel.execute(code, deadline_s=60)
        exit = await kernel.exited
        assert exit.reason is ExitReason.MEMORY
    finally:
        await pool.close()


def _cpu_group(kernel: Kernel) -> tuple[Path, int]:
    assert isinstance(kernel.process, KernelProcess)
    found = kernel.process.group.folder("cpu")
    assert found is not None
    return found


@pytest.mark.cgroup("cpu")
async def test_a_busy_kernel_gets_no_more_cpu_than_its_cores(config: PoolConfig) -> None:
    """Three busy processes, a tenth of a core: Linux makes them wait, and counts how often."""
    pool = Pool(adapted(config, limits=replace(LIMITS, cpus=0.1)))
    await pool.start()
    try:
        kernel = await pool.lease()
        folder, _ = _cpu_group(kernel)
        busy = "import os\nfor _ in range(2):\n    if os.fork() == 0:\n        break\nwhile True: pass"
        result = await kernel.execute(busy, deadline_s=1)
        assert result.status in ("interrupted", "dead")
        throttled = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())["nr_throttled"]
        assert int(throttled) > 0
    finally:
        await pool.close()


@pytest.mark.cgroup("cpu")
async def test_kernels_weigh_alike_and_all_together_as_much_as_the_gateway(config: PoolConfig) -> None:
    pool = Pool(config)
    await pool.start()
    try:
        kernel = await pool.lease()
        folder, version = _cpu_group(kernel)
        file = "cpu.shares" if version == 1 else "cpu.weight"
        usual = 1024 if version == 1 else 100
        assert [int((group / file).read_text()) for group in (folder.parent, folder)] == [usual, usual]
        assert os.getpriority(os.PRIO_PROCESS, kernel.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 10
    finally:
        await pool.close()


async def test_without_cgroups_a_kernel_still_gives_way(runtime_dir: Path) -> None:
    pool = Pool(pool_config(runtime_dir, cgroups="off"))
    await pool.start()
    try:
        kernel = await pool.lease()
        assert isinstance(kernel.process, KernelProcess)
        assert kernel.process.group.hierarchies == ()
        assert os.getpriority(os.PRIO_PROCESS, kernel.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 10
    finally:
        await pool.close()
