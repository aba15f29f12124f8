"""A frozen kernel gets no CPU, loses nothing, and can be interrupted and killed."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from attack import LIMITS, error, output
from freezing import descendants, lives, ticks_used, until_busy
from groups import FREEZERS, found_without, give, groups_of
from places import PLACES_OF_USE, place_factory
from pools import pool_config

from kernel_pool.cgroups import Cgroups
from kernel_pool.kernel import Kernel
from kernel_pool.pool import Pool
from kernel_pool.types import CellResult, Exit, ExitReason, KernelGone

#: Three processes that never stop by themselves.
BUSY = """
import os
for _ in range(2):
    if os.fork() == 0:
        while True:
            pass
while True:
    pass
"""
#: Processes that come and go all the time.
FORKING = """
import os, time
while True:
    for _ in range(4):
        if os.fork() == 0:
            time.sleep(0.005)
            os._exit(0)
    for _ in range(4):
        os.wait()
"""
OVER = Exit(ExitReason.SHUTDOWN, "the test is over")

#: Ways to freeze a local kernel: by cgroups of version 2 or 1, by signals.
LOCAL = ("cgroup2", "cgroup1", "signals")
LOCAL_PARAMS = [pytest.param(way, marks=[pytest.mark.cgroup(way)] if way in FREEZERS else []) for way in LOCAL]
WAYS = [way for place in PLACES_OF_USE for way in (LOCAL_PARAMS if place == "local" else (place,))]


def cgroups_of(way: str, folder: Path) -> Cgroups:
    """This machine's, with this way to freeze a local kernel and no other."""
    return found_without(folder, *FREEZERS.get(way, (" cgroup2 ", ",freezer")))


@dataclass
class Frozen:
    """A pool whose kernels freeze in one way."""

    pool: Pool
    way: str

    @asynccontextmanager
    async def running(
        self, code: str = BUSY, processes: int = 3
    ) -> AsyncIterator[tuple[Kernel, asyncio.Task[CellResult]]]:
        """A kernel in the middle of a cell."""
        kernel = await self.pool.lease()
        cell = asyncio.create_task(kernel.execute(code, deadline_s=120))
        await until_busy(kernel.pid, processes)
        try:
            yield kernel, cell
        finally:
            await self.pool.release(kernel)
            await cell

    async def still(self, kernel: Kernel) -> bool:
        """Whether it uses no CPU. (gVisor's own kernel has a watchdog, which wakes about once in a second.)"""
        return await ticks_used(kernel.pid) <= (1 if self.way == "runsc" else 0)


@pytest_asyncio.fixture(params=WAYS)
async def frozen(
    request: pytest.FixtureRequest, runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Frozen]:
    way = request.param
    place = way if way in PLACES_OF_USE else "local"
    if place == "local":
        give(monkeypatch, cgroups_of(way, tmp_path))
    pool = Pool(pool_config(runtime_dir, limits=LIMITS), place_factory(request, place))
    await pool.start()
    yield Frozen(pool, way)
    await pool.close()


async def test_a_frozen_kernel_gets_no_cpu_and_goes_on_when_thawed(frozen: Frozen) -> None:
    async with frozen.running() as (kernel, cell):
        await kernel.process.freeze()
        assert await frozen.still(kernel)
        await kernel.process.freeze()
        assert await frozen.still(kernel)
        await kernel.process.thaw()
        await kernel.process.thaw()
        await until_busy(kernel.pid)
        assert not cell.done()


async def test_an_idle_kernel_freezes_and_a_cell_thaws_it_with_its_state(frozen: Frozen) -> None:
    kernel = await frozen.pool.lease()
    busy = "import threading\nthreading.Thread(target=lambda: [1 for _ in iter(int, 1)], daemon=True).start()"
    await kernel.execute(f"x = 20\n{busy}", deadline_s=60)
    await kernel.freeze()
    assert await frozen.still(kernel)
    assert output(await kernel.execute("x + 1", deadline_s=60)) == "21"
    await until_busy(kernel.pid)


async def test_processes_that_appear_while_it_freezes_are_frozen_too(frozen: Frozen) -> None:
    async with frozen.running(FORKING, processes=2) as (kernel, cell):
        await kernel.process.freeze()
        before = descendants(kernel.pid)
        assert await frozen.still(kernel)
        assert descendants(kernel.pid) == before
        await kernel.process.thaw()
        await until_busy(kernel.pid)
        assert not cell.done()


async def test_an_interrupt_of_a_frozen_kernel_arrives(frozen: Frozen) -> None:
    async with frozen.running("while True:\n    pass", processes=1) as (kernel, cell):
        await kernel.process.freeze()
        await kernel.interrupt()
        assert error(await cell).startswith("KeyboardInterrupt")
        assert output(await kernel.execute("1 + 1", deadline_s=60)) == "2"


async def test_a_frozen_kernel_can_be_killed(frozen: Frozen) -> None:
    async with frozen.running() as (kernel, cell):
        pids = descendants(kernel.pid)
        await kernel.process.freeze()
        await kernel.kill(OVER)
        assert kernel.exited.result() == OVER
        assert (await cell).status == "dead"
        assert not any(map(lives, pids))
        with pytest.raises(KernelGone, match="the test is over"):
            await kernel.process.freeze()
        with pytest.raises(KernelGone, match="the test is over"):
            await kernel.process.thaw()


@pytest.mark.parametrize("steps", [0, 1, 2, 3], ids=str)
async def test_a_kill_wins_over_a_freeze_that_is_under_way(frozen: Frozen, steps: int) -> None:
    async with frozen.running() as (kernel, _):
        freezing = asyncio.create_task(kernel.process.freeze())
        for _ in range(steps):
            await asyncio.sleep(0)
        await kernel.kill(OVER)
        assert kernel.exited.result() == OVER
        await asyncio.gather(freezing, return_exceptions=True)


async def test_a_killed_kernel_is_not_frozen_any_more(frozen: Frozen) -> None:
    async with frozen.running() as (kernel, _):
        killing = asyncio.create_task(kernel.kill(OVER))
        await asyncio.sleep(0)
        await asyncio.gather(kernel.process.freeze(), return_exceptions=True)
        await killing
        assert kernel.exited.result() == OVER


async def test_a_pool_with_frozen_kernels_closes(frozen: Frozen) -> None:
    kernel = await frozen.pool.lease()
    await kernel.freeze()
    await frozen.pool.close()
    assert kernel.exited.result().detail == "the gateway was stopped"


@pytest.mark.parametrize("frozen", LOCAL_PARAMS, indirect=True)
async def test_a_frozen_kernel_ends_with_its_template(frozen: Frozen) -> None:
    kernel = await frozen.pool.lease()
    await kernel.freeze()
    with open(f"/proc/{kernel.pid}/stat") as stat:
        template = int(stat.read().split(") ")[1].split()[1])
    os.kill(template, 9)
    assert (await kernel.exited).reason is ExitReason.CRASH


@pytest.mark.parametrize("frozen", ["signals"], indirect=True)
async def test_a_process_that_was_stopped_before_is_left_stopped(frozen: Frozen) -> None:
    kernel = await frozen.pool.lease()
    start = "import subprocess; p = subprocess.Popen(['sleep', '1000']); p.send_signal(19)"
    await kernel.execute(start, deadline_s=60)
    state = "open(f'/proc/{p.pid}/stat').read().split()[2]"
    while output(await kernel.execute(state, deadline_s=60)) != "'T'":
        pass
    await kernel.freeze()
    assert output(await kernel.execute(state, deadline_s=60)) == "'T'"


#: A gateway that is killed with a frozen kernel.
CRASHING = """
import asyncio, os, sys
from pathlib import Path
from kernel_pool import kernel_limits
from kernel_pool.cgroups import find
from kernel_pool.pool import Pool
from kernel_pool.types import PoolConfig, Profile

async def main():
    kernel_limits.find = lambda: find(Path(sys.argv[2]))
    pool = Pool(PoolConfig(Path(sys.argv[1]), (Profile(preload=(), minimum=1),), orphan_grace_s=1000))
    await pool.start()
    kernel = await pool.lease(note=sys.argv[3])
    await kernel.execute("x = 20", deadline_s=30)
    await kernel.freeze()
    print(kernel.pid, flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.mark.parametrize("way", LOCAL_PARAMS)
@pytest.mark.parametrize("note", ["", "a session"], ids=["in nobody's name", "leased"])
async def test_what_a_killed_gateway_froze_is_of_use_again_or_ended_and_nothing_of_it_stays(
    way: str, note: str, runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroups = cgroups_of(way, tmp_path)
    give(monkeypatch, cgroups)
    command = [sys.executable, "-c", CRASHING, os.fspath(runtime_dir), os.fspath(tmp_path / "mountinfo"), note]
    done = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, text=True, timeout=90)
    assert done.returncode == -9
    left = os.pidfd_open(int(done.stdout))
    pool = Pool(pool_config(runtime_dir))
    await pool.start()
    try:
        if note:
            kernel = pool.adopt(note)
            assert kernel is not None
            assert output(await kernel.execute("x + 1", deadline_s=60)) == "21"
        kernel = await pool.lease()
        assert output(await kernel.execute("1 + 1", deadline_s=60)) == "2"
        groups = groups_of(runtime_dir)
        # the adopted kernel is of another generation, which keeps its place
        assert len(groups) == len(cgroups.hierarchies) * (2 if note else 1)
    finally:
        await pool.close()
    try:
        assert select.select([left], [], [], 30)[0]
    finally:
        os.close(left)
    assert not any(group.exists() for group in groups)
