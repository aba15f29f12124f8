"""How a kernel ends, and what is told of it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest
from attack import LIMITS, error, output
from pools import adapted

from kernel_pool.pool import Pool
from kernel_pool.process import explain
from kernel_pool.template_client import Ended
from kernel_pool.types import Exit, ExitReason, KernelGone, PoolConfig


async def test_killed_from_outside(pool: Pool) -> None:
    kernel = await pool.lease()
    os.kill(kernel.pid, 9)
    assert await kernel.exited == Exit(
        ExitReason.KILLED, "the kernel's process was ended by SIGKILL from outside the sandbox"
    )


async def test_ended_by_itself(pool: Pool) -> None:
    kernel = await pool.lease()
    result = await kernel.execute("import os; os._exit(3)", deadline_s=30)
    assert (result.status, result.state_lost) == ("dead", True)
    assert result.exit == Exit(ExitReason.CRASH, "the kernel's process ended by itself with exit status 3")


async def test_used_up_its_cpu_time(config: PoolConfig) -> None:
    pool = Pool(adapted(config, limits=replace(LIMITS, cpu_seconds=1)))
    await pool.start()
    try:
        kernel = await pool.lease()
        result = await kernel.execute("while True: pass", deadline_s=60)
        assert result.status == "dead"
        assert result.exit == Exit(ExitReason.KILLED, "the kernel used up its CPU time of 1 s")
    finally:
        await pool.close()


async def test_killed_on_request_with_the_callers_reason(pool: Pool) -> None:
    kernel = await pool.lease()
    exit = Exit(ExitReason.DEADLINE, "as asked")
    await kernel.kill(exit)
    assert kernel.exited.result() == exit
    await kernel.kill(Exit(ExitReason.KILLED, "too late"))
    assert kernel.exited.result() == exit


async def test_a_cell_past_its_deadline_is_interrupted_and_the_kernel_lives(pool: Pool) -> None:
    kernel = await pool.lease()
    result = await kernel.execute("x = 1\nwhile True: pass", deadline_s=0.3)
    assert result.status == "interrupted"
    assert output(await kernel.execute("x", deadline_s=30)) == "1"


async def test_a_cell_that_does_not_stop_is_killed_and_says_that_its_state_is_lost(config: PoolConfig) -> None:
    pool = Pool(adapted(config, interrupt_grace_s=0.5))
    await pool.start()
    try:
        kernel = await pool.lease()
        code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
        result = await kernel.execute(code, deadline_s=0.3)
        assert (result.status, result.state_lost) == ("dead", True)
        assert result.exit is not None
        assert result.exit.reason is ExitReason.DEADLINE
    finally:
        await pool.close()


async def test_a_kernel_stopped_by_a_signal_is_killed_at_the_deadline(config: PoolConfig) -> None:
    pool = Pool(adapted(config, interrupt_grace_s=0.5))
    await pool.start()
    try:
        kernel = await pool.lease()
        os.kill(kernel.pid, 19)
        result = await kernel.execute("1 + 1", deadline_s=0.3)
        assert result.status == "dead"
        assert kernel.exited.result().reason is ExitReason.DEADLINE
    finally:
        await pool.close()


async def test_an_interrupt_reaches_programs_that_the_cell_waits_for(pool: Pool) -> None:
    kernel = await pool.lease()
    running = asyncio.create_task(kernel.execute("import subprocess; subprocess.run(['sleep', '1000'])", deadline_s=60))
    while len([name for name in os.listdir(kernel.process.proc) if name.isdigit()]) < 2:
        await asyncio.sleep(0.01)
    await kernel.interrupt()
    result = await running
    assert error(result) == "KeyboardInterrupt: "
    assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"


async def test_an_interrupt_of_a_dead_kernel_says_how_it_ended(pool: Pool) -> None:
    kernel = await pool.lease()
    os.kill(kernel.pid, 9)
    await kernel.exited
    with pytest.raises(KernelGone, match="SIGKILL from outside"):
        await kernel.interrupt()


async def test_all_processes_of_a_kernel_end_with_it(pool: Pool) -> None:
    kernel = await pool.lease()
    code = "import subprocess; p = subprocess.Popen(['setsid', 'sleep', '1000']); p.pid"
    await kernel.execute(code, deadline_s=30)
    proc = os.dup(kernel.process.proc)
    await pool.release(kernel)
    try:
        assert [name for name in os.listdir(proc) if name.isdigit()] == []
    finally:
        os.close(proc)


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (0, ExitReason.CRASH, "exit status 0"),
        (-11, ExitReason.CRASH, "SIGSEGV"),
        (-31, ExitReason.CRASH, "SIGSYS"),
        (-9, ExitReason.KILLED, "SIGKILL from outside"),
        (-40, ExitReason.KILLED, "40"),
    ],
)
def test_a_status_is_told_in_words(status: int, reason: ExitReason, words: str) -> None:
    exit = explain(Ended(status, cpu_s=0.1), LIMITS)
    assert exit.reason is reason
    assert words in exit.detail


def test_a_crash_with_full_memory_is_told_as_such() -> None:
    exit = explain(Ended(-11, cpu_s=0.1), LIMITS, memory_full=True)
    assert exit.reason is ExitReason.MEMORY
    assert f"memory limit of {LIMITS.memory_mb} MiB" in exit.detail
