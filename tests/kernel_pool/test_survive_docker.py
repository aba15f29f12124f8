"""Containers and their daemon are killed: sessions are told, the pool heals."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attack import LIMITS, output
from docker_daemon import PROJECT, OwnDaemon
from places import CONTAINERS
from pools import in_containers, pool_config

from kernel_pool.container_config import DockerConfig
from kernel_pool.kernel import Kernel
from kernel_pool.pool import Pool
from kernel_pool.types import CellResult, ExitReason

CONFIG = PROJECT / "docker" / "daemon.json"

pytestmark = pytest.mark.timeout(600)


async def run_until(kernel: Kernel, code: str) -> asyncio.Task[CellResult]:
    """A cell that has begun to say something."""
    begun = asyncio.Event()
    running = asyncio.create_task(kernel.execute(code, deadline_s=120, on_output=lambda _: begun.set()))
    await asyncio.wait_for(begun.wait(), 30)
    return running


@pytest.mark.parametrize("runtime", CONTAINERS)
async def test_a_container_killed_from_outside(
    runtime: Any, docker_host: str, sandbox_image: str, runtime_dir: Path
) -> None:
    place = in_containers(DockerConfig(image=sandbox_image, runtime=runtime, host=docker_host))
    pool = Pool(pool_config(runtime_dir, limits=LIMITS), place)
    await pool.start()
    try:
        kernel, other = await pool.lease(), await pool.lease()
        running = await run_until(kernel, "print('on', flush=True)\nimport time; time.sleep(100)")
        command = ["docker", "--host", docker_host, "kill"]
        named = subprocess.run(
            ["docker", "--host", docker_host, "ps", "--quiet", "--filter", f"label=omniops.kernel={kernel.id}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        await asyncio.to_thread(subprocess.run, [*command, *named], check=True, capture_output=True)
        result = await asyncio.wait_for(running, 60)
        assert (result.status, result.state_lost, result.outputs[0]["text"]) == ("dead", True, "on\n")
        assert result.exit is not None
        assert result.exit.reason is ExitReason.KILLED
        assert "container was ended from outside (exit status 137)" in result.reason
        assert output(await other.execute("1 + 1", deadline_s=30)) == "2"
        await pool.release(kernel)
        assert output(await (await pool.lease()).execute("1 + 1", deadline_s=30)) == "2"
    finally:
        await pool.close()
    assert not runtime_dir.exists()


@pytest.fixture
def daemon(docker_host: str, sandbox_image: str) -> Iterator[OwnDaemon]:
    """A daemon that may be killed, with the image."""
    daemon = OwnDaemon.start(CONFIG)
    try:
        saving = subprocess.Popen(["docker", "--host", docker_host, "save", sandbox_image], stdout=subprocess.PIPE)
        loading = ["docker", "--host", daemon.address, "load"]
        subprocess.run(loading, stdin=saving.stdout, check=True, capture_output=True)
        assert saving.wait() == 0
        yield daemon
    finally:
        daemon.end()


async def test_the_daemon_is_killed_and_comes_back(daemon: OwnDaemon, sandbox_image: str, runtime_dir: Path) -> None:
    place = in_containers(DockerConfig(image=sandbox_image, runtime="runc", host=daemon.address))
    pool = Pool(pool_config(runtime_dir, limits=LIMITS), place)
    await pool.start()
    try:
        kernel = await pool.lease()
        running = await run_until(kernel, "x = 41\nprint('on', flush=True)\nimport time; time.sleep(100)")
        await asyncio.to_thread(daemon.kill)
        # its containers go on, and so do their sessions
        await asyncio.sleep(1)
        assert not running.done()
        await kernel.interrupt()
        assert (await asyncio.wait_for(running, 30)).status == "interrupted"
        assert output(await kernel.execute("x + 1", deadline_s=30)) == "42"
        running = await run_until(kernel, "print('on', flush=True)\nimport time; time.sleep(100)")
        # a daemon that starts ends the containers that it finds running
        await asyncio.to_thread(daemon.run, CONFIG)
        result = await asyncio.wait_for(running, 60)
        assert (result.status, result.state_lost, result.outputs[0]["text"]) == ("dead", True, "on\n")
        assert "container" in result.reason
        await pool.release(kernel)
        fresh = await pool.lease()
        assert output(await fresh.execute("1 + 1", deadline_s=30)) == "2"
    finally:
        await pool.close()
    assert not runtime_dir.exists()
    command = ["docker", "--host", daemon.address, "ps", "--all", "--quiet"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
