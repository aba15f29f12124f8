"""The pool's policies on real kernels: several profiles, probes, freezing, many leases."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

from attack import LIMITS, output
from pools import adapted

from kernel_pool.pool import Kernel, Pool
from kernel_pool.types import ExitReason, PoolConfig, Profile


def cpu_ticks(kernel: Kernel) -> int:
    fields = Path(f"/proc/{kernel.pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def test_profiles_differ_in_what_is_loaded_and_in_what_they_may_use(config: PoolConfig) -> None:
    first = config.profiles[0]
    other = Profile("tables", preload=("duckdb",), minimum=0, limits=replace(LIMITS, memory_mb=256))
    pool = Pool(replace(config, profiles=(first, other)))
    await pool.start()
    try:
        assert len(list(config.runtime_dir.iterdir())) == 1  # the second has its place with its first lease
        lean, tables = await pool.lease(), await pool.lease("tables")
        code = "import sys; 'duckdb' in sys.modules"
        assert output(await lean.execute(code, deadline_s=30)) == "False"
        assert output(await tables.execute(code, deadline_s=30)) == "True"
        result = await tables.execute("import duckdb; duckdb.sql('select 6 * 7').fetchall()[0][0]", deadline_s=30)
        assert output(result) == "42"
        assert len(list(config.runtime_dir.iterdir())) == 2
    finally:
        await pool.close()
    assert not config.runtime_dir.exists()


async def test_an_idle_session_gets_no_cpu_and_goes_on_when_it_is_used(config: PoolConfig) -> None:
    pool = Pool(replace(config, freeze_after_s=0.3, upkeep_interval_s=0.05, probe_interval_s=0.1))
    await pool.start()
    try:
        kernel = await pool.lease()
        spin = (
            "import threading\ncount = 0\ndef spin():\n    global count\n    while True: count += 1\n"
            "threading.Thread(target=spin, daemon=True).start()"
        )
        await kernel.execute(spin, deadline_s=30)
        await until(lambda: kernel.frozen)
        await asyncio.sleep(0.1)
        before = cpu_ticks(kernel)
        await asyncio.sleep(1.0)
        assert cpu_ticks(kernel) == before
        seen = int(output(await kernel.execute("count", deadline_s=30)))
        waiting = f"import time\nwhile count == {seen}: time.sleep(0.01)"  # for its turn, on a busy machine
        assert (await kernel.execute(waiting, deadline_s=30)).status == "ok"
        await until(lambda: kernel.frozen)
        await pool.release(kernel)
        assert kernel.exited.result().reason is ExitReason.SHUTDOWN
    finally:
        await pool.close()


async def test_a_ready_kernel_that_hangs_is_replaced(config: PoolConfig) -> None:
    config = adapted(config, minimum=1)
    pool = Pool(replace(config, upkeep_interval_s=0.05, probe_interval_s=0.2, probe_timeout_s=0.5))
    await pool.start()
    try:
        await until(lambda: pool.status().ready)
        (hung,) = pool._stocks["agent"].ready
        os.kill(hung.pid, signal.SIGSTOP)
        await hung.exited
        kernel = await pool.lease()
        assert kernel.id != hung.id
        assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"
    finally:
        await pool.close()


async def test_a_leased_kernel_that_hangs_ends_and_says_why(config: PoolConfig) -> None:
    pool = Pool(replace(config, upkeep_interval_s=0.05, probe_interval_s=0.1, probe_timeout_s=0.3, probe_failures=2))
    await pool.start()
    try:
        kernel = await pool.lease()
        os.kill(kernel.pid, signal.SIGSTOP)
        exit = await asyncio.wait_for(kernel.exited, 30)
        assert exit.reason is ExitReason.UNHEALTHY
        assert "did not answer 2 probes in a row" in exit.detail
        await pool.release(kernel)
    finally:
        await pool.close()


async def test_a_long_cell_in_native_code_is_no_sign_of_ill_health(config: PoolConfig) -> None:
    pool = Pool(replace(config, upkeep_interval_s=0.05, probe_interval_s=0.1, probe_timeout_s=0.2, probe_failures=1))
    await pool.start()
    try:
        kernel = await pool.lease()
        code = "import ctypes; ctypes.PyDLL(None).usleep(900_000); 'done'"  # PyDLL: holds the interpreter's lock
        for _ in range(2):
            assert output(await kernel.execute(code, deadline_s=30)) == "'done'"
        assert not kernel.exited.done()
    finally:
        await pool.close()


async def test_kernels_of_two_profiles_have_different_users(config: PoolConfig) -> None:
    first = config.profiles[0]  # nothing in stock: six users for six leases
    pool = Pool(replace(config, profiles=(first, replace(first, name="other")), uid_range=(700_000, 6)))
    await pool.start()
    try:
        kernels = [await pool.lease(name) for name in ("agent", "other") for _ in range(3)]
        users = {os.stat(f"/proc/{kernel.pid}").st_uid for kernel in kernels}
        assert len(users) == (6 if os.getuid() == 0 else 1)
    finally:
        await pool.close()


async def test_a_new_generation_takes_over_from_real_kernels(config: PoolConfig) -> None:
    pool = Pool(adapted(config, minimum=1))
    await pool.start()
    try:
        old = await pool.lease()
        await old.execute("x = 20", deadline_s=30)
        assert await pool.renew() == ()
        assert await pool.renew(files={"tools.txt": b"new"}) == ("agent",)
        new = await pool.lease()
        read = "print(open('/opt/omniops/files/tools.txt').read())"
        assert output(await new.execute(read, deadline_s=30)) == "new"
        assert output(await old.execute("x + 1", deadline_s=30)) == "21"
        folders = {old.directory.parents[1], new.directory.parents[1]}
        assert folders == set(config.runtime_dir.iterdir())
        await pool.release(old)
        await until(lambda: set(config.runtime_dir.iterdir()) == {new.directory.parents[1]})
    finally:
        await pool.close()
    assert not config.runtime_dir.exists()


async def test_a_pool_that_goes_leaves_its_kernels_to_the_next(config: PoolConfig) -> None:
    config = adapted(config, minimum=1)
    pool = Pool(config)
    await pool.start()
    kernel = await pool.lease(note="s1", tenant="shop")
    await kernel.execute("x = 20", deadline_s=30)
    await until(lambda: pool.status().ready == 1)
    await pool.close(keep=True)
    assert Path(f"/proc/{kernel.pid}").exists()
    changed = adapted(config, files={"tools.txt": b"new"})
    for following in (config, changed):  # of the same generation, then of another
        pool = Pool(following)
        await pool.start()
        again = pool.adopt("s1")
        assert again is not None
        assert (again.pid, again.tenant) == (kernel.pid, "shop")
        assert output(await again.execute("x + 1", deadline_s=30)) == "21"
        fresh = await pool.lease()
        assert output(await fresh.execute("'x' in globals()", deadline_s=30)) == "False"
        await pool.release(fresh)
        if following is config:
            await pool.close(keep=True)
    await pool.release(again)
    await pool.close()
    assert not config.runtime_dir.exists()
    assert not Path(f"/proc/{kernel.pid}").exists()
