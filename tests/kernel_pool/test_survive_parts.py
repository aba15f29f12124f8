"""Parts that are killed under a living gateway: sessions are told what they lost, and the pool heals."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from attack import LIMITS, output
from pools import pool_config
from test_survive import processes_of

from kernel_pool.pool import Pool
from kernel_pool.types import CellResult, ExitReason


@pytest.fixture
async def pool(runtime_dir: Path) -> AsyncIterator[Pool]:
    pool = Pool(pool_config(runtime_dir, limits=LIMITS, minimum=1, maximum=4))
    await pool.start()
    yield pool
    await pool.close()
    assert not runtime_dir.exists()


def launcher_of(runtime_dir: Path) -> int:
    """Process id of the launcher of the one place: of the two that write its log, the one outside of the sandbox."""
    found = [pid for pid in processes_of(runtime_dir) if b"sandbox.launch" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    (launcher,) = found
    return launcher


def template_of(launcher: int) -> int:
    (template,) = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return int(template)


async def lost_with(pool: Pool, victim: int) -> CellResult:
    """What two sessions are told, one of them in the middle of a cell, when a process is killed."""
    idle, busy = await pool.lease(), await pool.lease()
    begun = asyncio.Event()
    code = "print('on', flush=True)\nimport time; time.sleep(60)"
    running = asyncio.create_task(busy.execute(code, deadline_s=60, on_output=lambda _: begun.set()))
    await asyncio.wait_for(begun.wait(), 30)
    os.kill(victim, signal.SIGKILL)
    result = await asyncio.wait_for(running, 30)
    assert (await asyncio.wait_for(asyncio.shield(idle.exited), 30)).reason is ExitReason.CRASH
    for kernel in (idle, busy):
        await pool.release(kernel)
    return result


@pytest.mark.parametrize("part", ["template", "launcher"])
async def test_killed_with_all_its_kernels(pool: Pool, runtime_dir: Path, part: str) -> None:
    launcher = launcher_of(runtime_dir)
    result = await lost_with(pool, launcher if part == "launcher" else template_of(launcher))
    assert (result.status, result.state_lost, result.outputs[0]["text"]) == ("dead", True, "on\n")
    assert "the template process that held the kernel ended" in result.reason
    kernel = await pool.lease()
    assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"
    assert launcher_of(runtime_dir) != launcher
    assert not Path(f"/proc/{launcher}").exists()
