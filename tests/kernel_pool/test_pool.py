"""Leases, stock, limits of the pool, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from attack import LIMITS, error, output
from pools import adapted

from kernel_pool.folders import place_folder
from kernel_pool.local import LocalPlace
from kernel_pool.pool import Pool
from kernel_pool.types import ExitReason, KernelGone, PoolConfig, PoolExhausted, StartFailed

#: A gateway that is killed: it starts a pool at argv[1], leases a kernel, and tells processes that must not stay.
CRASHING_GATEWAY = """
import asyncio, os, sys
from pathlib import Path
from kernel_pool.pool import Pool
from kernel_pool.types import PoolConfig, Profile

async def main():
    pool = Pool(PoolConfig(Path(sys.argv[1]), (Profile(preload=(), minimum=1),), orphan_grace_s=float(sys.argv[2])))
    await pool.start()
    kernel = await pool.lease()
    await kernel.execute("import subprocess; subprocess.Popen(['sleep', '1000'])", deadline_s=30)
    parent = int(open(f"/proc/{kernel.pid}/stat").read().split(") ")[1].split()[1])
    print(kernel.pid, parent, flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def crash_a_gateway(runtime_dir: Path, orphan_grace_s: float) -> list[int]:
    """Pidfds of the kernel and the template that a killed gateway left."""
    command = [sys.executable, "-c", CRASHING_GATEWAY, os.fspath(runtime_dir), str(orphan_grace_s)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=90)
    assert done.returncode == -9
    return [os.pidfd_open(int(pid)) for pid in done.stdout.split()]


def ended(pidfds: list[int], timeout_s: float = 30) -> bool:
    """Wait for the end of all; closes them."""
    try:
        return all(select.select([pidfd], [], [], timeout_s)[0] for pidfd in pidfds)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def open_descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue
    return found


async def test_a_leased_kernel_runs_cells_and_keeps_state(pool: Pool) -> None:
    kernel = await pool.lease()
    await kernel.execute("x = 20", deadline_s=30)
    assert output(await kernel.execute("x + 1", deadline_s=30)) == "21"


async def test_a_lease_is_for_one_use(pool: Pool) -> None:
    first = await pool.lease()
    await first.execute("left = 'behind'", deadline_s=30)
    await pool.release(first)
    second = await pool.lease()
    assert second.id != first.id
    assert output(await second.execute("'left' in globals()", deadline_s=30)) == "False"


async def test_a_released_kernel_is_gone_with_its_folder(pool: Pool) -> None:
    kernel = await pool.lease()
    await pool.release(kernel)
    assert kernel.exited.result().reason is ExitReason.SHUTDOWN
    assert not kernel.directory.exists()
    with pytest.raises(KernelGone, match="session was ended"):
        await kernel.execute("1", deadline_s=30)
    await pool.release(kernel)


async def test_the_stock_is_refilled_after_a_lease(config: PoolConfig) -> None:
    pool = Pool(adapted(config, minimum=1))
    await pool.start()
    try:
        leased = [await pool.lease() for _ in range(3)]
        while not pool.status().ready:
            await asyncio.sleep(0.01)
        status = pool.status()
        assert (status.leased, status.started, status.died) == (3, 4, 0)
        assert len({kernel.id for kernel in leased}) == 3
    finally:
        await pool.close()


async def test_a_kernel_that_dies_in_stock_is_replaced(config: PoolConfig) -> None:
    pool = Pool(adapted(config, minimum=1))
    await pool.start()
    try:
        while not pool.status().ready:
            await asyncio.sleep(0.01)
        (victim,) = pool._stocks["agent"].ready
        os.kill(victim.pid, 9)
        await victim.exited
        kernel = await pool.lease()
        assert kernel.id != victim.id
        assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"
        assert pool.status().died == 1
    finally:
        await pool.close()


async def test_no_more_kernels_than_the_maximum(config: PoolConfig) -> None:
    pool = Pool(adapted(config, maximum=1, lease_timeout_s=0.2))
    await pool.start()
    try:
        kernel = await pool.lease()
        with pytest.raises(PoolExhausted, match=r"1 of at most 1 are in use\. End sessions or raise it"):
            await pool.lease()
        await pool.release(kernel)
    finally:
        await pool.close()


async def test_who_waits_gets_the_kernel_that_a_release_makes_room_for(config: PoolConfig) -> None:
    pool = Pool(adapted(config, maximum=1))
    await pool.start()
    try:
        first = await pool.lease()
        waiting = asyncio.create_task(pool.lease())
        await asyncio.sleep(0)
        await pool.release(first)
        second = await waiting
        assert output(await second.execute("1 + 1", deadline_s=30)) == "2"
    finally:
        await pool.close()


async def test_a_cancelled_lease_takes_no_kernel_away(config: PoolConfig) -> None:
    pool = Pool(adapted(config, maximum=1))
    await pool.start()
    try:
        leases = [asyncio.create_task(pool.lease()) for _ in range(2)]
        await asyncio.sleep(0)
        leases[0].cancel()
        kernel = await leases[1]
        assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"
        assert pool.status().leased == 1
    finally:
        await pool.close()


async def test_close_leaves_no_process_folder_or_descriptor(config: PoolConfig) -> None:
    before = open_descriptors()
    pool = Pool(adapted(config, minimum=1))
    await pool.start()
    busy, idle = await pool.lease(), await pool.lease()
    running = asyncio.create_task(busy.execute("import time; time.sleep(1000)", deadline_s=1000))
    await asyncio.sleep(0.1)
    with open(f"/proc/{busy.pid}/stat") as stat:
        template = int(stat.read().split(") ")[1].split()[1])
    pidfds = [os.pidfd_open(pid) for pid in (busy.pid, idle.pid, template)]
    await pool.close()
    assert ended(pidfds)
    result = await running
    assert (result.status, result.state_lost) == ("dead", True)
    assert busy.exited.result().detail == "the gateway was stopped"
    assert not config.runtime_dir.exists()
    # the interpreter's own pool of threads may have been made meanwhile, and nothing else
    assert {entry for entry in open_descriptors() - before if "anon_inode:[eventpoll]" not in entry} == set()
    await pool.close()


async def test_lease_of_a_closed_pool_says_so(pool: Pool) -> None:
    await pool.close()
    with pytest.raises(PoolExhausted, match="not running"):
        await pool.lease()


async def test_close_tells_those_who_wait(config: PoolConfig) -> None:
    pool = Pool(adapted(config, maximum=1))
    await pool.start()
    await pool.lease()
    waiting = asyncio.create_task(pool.lease())
    await asyncio.sleep(0)
    await pool.close()
    with pytest.raises(PoolExhausted, match="closed"):
        await waiting


async def test_a_start_ends_and_removes_what_a_killed_gateway_left(config: PoolConfig) -> None:
    left = await asyncio.to_thread(crash_a_gateway, config.runtime_dir, 1000)
    assert any(config.runtime_dir.glob("*/kernels/*/shell"))
    pool = Pool(config)
    await pool.start()
    try:
        assert await asyncio.to_thread(ended, left)
        assert list(config.runtime_dir.glob("*/kernels/*")) == []
        kernel = await pool.lease()
        assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"
    finally:
        await pool.close()


async def test_kernels_of_a_killed_gateway_end_by_themselves(config: PoolConfig) -> None:
    left = await asyncio.to_thread(crash_a_gateway, config.runtime_dir, 0.2)
    assert await asyncio.to_thread(ended, left)


async def test_a_lost_template_ends_its_kernels_and_is_replaced(pool: Pool) -> None:
    kernel = await pool.lease()
    with open(f"/proc/{kernel.pid}/stat") as stat:
        template = int(stat.read().split(") ")[1].split()[1])
    os.kill(template, 9)
    exit = await kernel.exited
    assert exit.reason is ExitReason.CRASH
    assert exit.detail == "the template process that held the kernel ended, and the kernel with it"
    await pool.release(kernel)
    second = await pool.lease()
    assert output(await second.execute("1 + 1", deadline_s=30)) == "2"


async def test_a_runtime_folder_belongs_to_one_pool(config: PoolConfig, pool: Pool) -> None:
    with pytest.raises(StartFailed, match="in use by another gateway"):
        await Pool(config).start()
    kernel = await pool.lease()
    assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"


async def test_a_runtime_folder_that_others_can_enter_is_refused(config: PoolConfig) -> None:
    config.runtime_dir.mkdir(mode=0o755)
    with pytest.raises(StartFailed, match="mode 0700"):
        await Pool(config).start()
    assert config.runtime_dir.exists()


async def test_a_runtime_folder_that_is_a_link_is_refused(config: PoolConfig, tmp_path: Path) -> None:
    config.runtime_dir.symlink_to(tmp_path)
    with pytest.raises(StartFailed, match="cannot be used"):
        await Pool(config).start()


async def test_a_runtime_folder_too_long_for_sockets_is_refused(config: PoolConfig) -> None:
    with pytest.raises(StartFailed, match="Set runtime_dir to a shorter path"):
        await Pool(adapted(config, runtime_dir=config.runtime_dir / ("long" * 20))).start()


async def test_a_socket_in_the_runtime_folder_that_is_not_a_templates_is_no_obstacle(config: PoolConfig) -> None:
    place = config.place(config.profiles[0])
    folder = config.runtime_dir / place_folder("agent", LocalPlace(place).generation)
    folder.mkdir(mode=0o700, parents=True)
    config.runtime_dir.chmod(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(os.fspath(folder / "template.sock"))
    pool = Pool(config)
    await pool.start()
    await pool.close()


async def test_a_preload_that_is_not_there_is_named(config: PoolConfig) -> None:
    with pytest.raises(StartFailed, match="No module named 'no_such_module'"):
        await Pool(adapted(config, preload=("no_such_module",))).start()
    assert not config.runtime_dir.exists()


async def test_preloaded_modules_are_there(config: PoolConfig) -> None:
    pool = Pool(adapted(config, preload=("pandas", "pyarrow"), limits=replace(LIMITS, memory_mb=256)))
    await pool.start()
    try:
        kernel = await pool.lease()
        result = await kernel.execute("import sys; 'pandas' in sys.modules", deadline_s=30)
        assert output(result) == "True"
        code = "import pandas; pandas.DataFrame({'a': [1, 2]}).to_parquet('x'); int(pandas.read_parquet('x').a.sum())"
        assert output(await kernel.execute(code, deadline_s=30)) == "3"
    finally:
        await pool.close()


async def test_files_given_to_the_pool_are_readable_in_every_kernel(config: PoolConfig) -> None:
    pool = Pool(adapted(config, files={"tools.txt": b"hammer"}))
    await pool.start()
    try:
        kernel = await pool.lease()
        result = await kernel.execute("print(open('/opt/omniops/files/tools.txt').read())", deadline_s=30)
        assert output(result) == "hammer"
        result = await kernel.execute("open('/opt/omniops/files/tools.txt', 'w')", deadline_s=30)
        assert "Read-only file system" in error(result) or "Permission denied" in error(result)
    finally:
        await pool.close()


async def test_a_file_name_that_leads_out_of_the_folder_is_refused(config: PoolConfig) -> None:
    with pytest.raises(StartFailed, match="not a plain name"):
        await Pool(adapted(config, files={"../x": b""})).start()
    assert not config.runtime_dir.exists()


async def test_each_kernel_has_a_user_of_its_own_where_the_system_lets_it(pool: Pool, config: PoolConfig) -> None:
    kernels = [await pool.lease() for _ in range(2)]
    users = [os.stat(f"/proc/{kernel.pid}").st_uid for kernel in kernels]
    if os.getuid() == 0:
        assert users[0] != users[1]
        assert min(users) >= config.uid_range[0]
    else:
        assert users == [os.getuid()] * 2
    for kernel in kernels:
        folder = kernel.directory.stat()
        assert (folder.st_uid, folder.st_mode & 0o777) == (users[kernels.index(kernel)], 0o700)


async def test_two_pools_side_by_side(pool: Pool, config: PoolConfig) -> None:
    other = Pool(adapted(config, runtime_dir=config.runtime_dir.with_name("other")))
    await other.start()
    try:
        for one in (pool, other):
            kernel = await one.lease()
            assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"
    finally:
        await other.close()


async def test_many_kernels_at_once_are_all_told_apart(config: PoolConfig) -> None:
    pool = Pool(adapted(config, minimum=2, maximum=12))
    await pool.start()
    try:
        kernels = await asyncio.gather(*(pool.lease() for _ in range(12)))
        code = "import random, os, uuid; print(random.random(), os.urandom(4).hex(), uuid.uuid4())"
        results = await asyncio.gather(*(kernel.execute(code, deadline_s=30) for kernel in kernels))
        assert len({output(result) for result in results}) == 12
        assert pool.status().leased == 12
    finally:
        await pool.close()
