"""The gateway is killed, its kernels are not: the next gateway goes on with them as if nothing had happened.

Where is said by KERNEL_TEST_PLACES (local, runc, runsc). Every test leaves nothing behind, and looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attack import output
from doomed_pool import CELL, SESSION, configured, place_of
from places import PLACES_OF_USE

from kernel_pool.kernel import Kernel
from kernel_pool.place import Place
from kernel_pool.pool import Pool
from kernel_pool.types import CellResult, ExitReason, KernelGone, PlaceConfig

TESTS = Path(__file__).parent
PROJECT = TESTS.parent.parent
STEPS = "import time\nfor i in range(30):\n    print(i, flush=True)\n    time.sleep(0.05)"
ALL_STEPS = "".join(f"{i}\n" for i in range(30))


@dataclass
class World:
    """Where kernels live in a test, and the gateways that come and go there."""

    folder: Path
    place: str
    host: str
    image: str

    @property
    def place_of(self) -> Callable[[PlaceConfig], Place]:
        return place_of(self.place, self.host, self.image)

    async def kill_one(
        self, code: str, until: Callable[[dict[str, Any]], bool], *, wait_s: float = 0.0, grace_s: float = 120
    ) -> list[dict[str, Any]]:
        """Start a gateway that runs `code`, and kill it `wait_s` after `until` is true of what it said."""
        command = [sys.executable, TESTS / "doomed_pool.py", self.folder, self.place, self.host, self.image]
        gateway = await asyncio.create_subprocess_exec(
            *map(os.fspath, [*command, str(grace_s), code]),
            stdout=subprocess.PIPE,
            limit=2**24,
            env={**os.environ, "PYTHONPATH": os.fspath(PROJECT)},
        )
        said: list[dict[str, Any]] = []
        assert gateway.stdout is not None
        try:
            async with asyncio.timeout(120):
                while not said or not until(said[-1]):
                    line = await gateway.stdout.readline()
                    assert line, f"the gateway ended by itself: {said}"
                    said.append(json.loads(line))
                await asyncio.sleep(wait_s)
        finally:
            gateway.kill()
            await gateway.wait()
        return said

    @contextlib.asynccontextmanager
    async def gateway(self, *, grace_s: float = 120, **changes: Any) -> AsyncIterator[Pool]:
        pool = Pool(configured(self.folder, grace_s, **changes), self.place_of)
        await pool.start()
        try:
            yield pool
        finally:
            await pool.close()


@pytest.fixture(params=PLACES_OF_USE)
def world(request: pytest.FixtureRequest, runtime_dir: Path) -> Iterator[World]:
    if request.param == "local":
        world = World(runtime_dir, "local", "", "")
    else:
        host, image = request.getfixturevalue("docker_host"), request.getfixturevalue("sandbox_image")
        world = World(runtime_dir, request.param, host, image)
    before = descriptors()
    yield world
    assert not runtime_dir.exists()
    assert processes_of(runtime_dir) == []
    assert descriptors() <= before
    if world.host:
        mounts = "{{range .Mounts}}{{.Source}} {{end}}"
        command = ["docker", "--host", world.host, "ps", "--all", "--quiet"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        shown = [
            subprocess.run(
                ["docker", "--host", world.host, "inspect", "--format", mounts, one],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
            for one in found
        ]
        assert not [sources for sources in shown if os.fspath(runtime_dir) in sources]


def text_of(result: CellResult) -> str:
    return "".join(output["text"] for output in result.outputs)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def processes_of(folder: Path) -> list[int]:
    """Processes that have files of the folder open, a template's log for example."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                links = [os.readlink(link) for link in (entry / "fd").iterdir()]
                if any(link.startswith(os.fspath(folder)) for link in links):
                    found.append(int(entry.name))
    return found


def adopted(pool: Pool) -> Kernel:
    assert pool.status().tenants == {"tenant": 1}
    kernel = pool.adopt(SESSION)
    assert kernel is not None
    return kernel


@pytest.mark.parametrize(
    ("until", "wait_s"), [("output", 0), ("output", 0.5), ("result", 0.2)], ids=["begun", "between", "replied"]
)
async def test_a_gateway_killed_in_the_middle_of_a_cell(world: World, until: str, wait_s: float) -> None:
    await world.kill_one(STEPS, lambda said: until in said, wait_s=wait_s)
    async with world.gateway() as pool:
        kernel = adopted(pool)
        result = await kernel.resume(CELL, deadline_s=60)
        assert (result.status, result.reason, text_of(result)) == ("ok", "", ALL_STEPS)
        assert output(await kernel.execute("x + 1", deadline_s=30)) == "42"


async def test_killed_before_the_first_output(world: World) -> None:
    code = "import time\ntime.sleep(3)\n" + STEPS
    await world.kill_one(code, lambda said: "lease" in said, wait_s=1.5)
    async with world.gateway() as pool:
        result = await adopted(pool).resume(CELL, deadline_s=60)
        assert (result.status, text_of(result)) == ("ok", ALL_STEPS)


async def test_killed_in_the_middle_of_much_output(world: World) -> None:
    code = "for i in range(50): print(str(i % 10) * 100_000, flush=True)"
    await world.kill_one(code, lambda said: "output" in said)
    async with world.gateway() as pool:
        result = await adopted(pool).resume(CELL, deadline_s=60)
        assert text_of(result) == "".join(str(i % 10) * 100_000 + "\n" for i in range(50))
        assert (result.status, result.dropped_bytes) == ("ok", 0)


async def test_killed_twice(world: World) -> None:
    await world.kill_one(STEPS, lambda said: "output" in said)
    await world.kill_one("", lambda said: "output" in said)
    async with world.gateway() as pool:
        kernel = adopted(pool)
        result = await kernel.resume(CELL, deadline_s=60)
        assert (result.status, text_of(result)) == ("ok", ALL_STEPS)
        assert output(await kernel.execute("x + 1", deadline_s=30)) == "42"


async def test_the_deadline_is_held(world: World) -> None:
    await world.kill_one("print('on')\nwhile True: pass", lambda said: "output" in said)
    async with world.gateway() as pool:
        kernel = adopted(pool)
        result = await kernel.resume(CELL, deadline_s=0.5, allowed_s=30)
        assert (result.status, result.reason) == (
            "interrupted",
            "the cell ran longer than its 30 s and was interrupted",
        )
        assert output(await kernel.execute("x + 1", deadline_s=30)) == "42"


async def test_a_death_in_the_gap_is_told_with_its_reason(world: World) -> None:
    code = "print('on')\nimport time; time.sleep(1)\nimport os; os._exit(3)"
    await world.kill_one(code, lambda said: "output" in said)
    await asyncio.sleep(3)
    async with world.gateway() as pool:
        kernel = adopted(pool)
        exit = await asyncio.wait_for(asyncio.shield(kernel.exited), 30)
        assert exit.reason is ExitReason.CRASH
        assert exit.detail == "the kernel's process ended by itself with exit status 3"
        with pytest.raises(KernelGone):
            await kernel.resume(CELL, deadline_s=10)
        await pool.release(kernel)
        # and a new one is to be had
        fresh = await pool.lease()
        assert output(await fresh.execute("1 + 1", deadline_s=30)) == "2"


async def test_nobody_comes_back(world: World) -> None:
    said = await world.kill_one("while True: pass", lambda said: "lease" in said, wait_s=1, grace_s=1)
    pid = said[0]["pid"]
    async with asyncio.timeout(60):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.1)
    async with world.gateway(grace_s=1) as pool:
        kernel = adopted(pool)
        assert (await asyncio.wait_for(asyncio.shield(kernel.exited), 30)).reason is ExitReason.CRASH
        assert "no gateway" in kernel.exited.result().detail
        await pool.release(kernel)
        assert output(await (await pool.lease()).execute("1 + 1", deadline_s=30)) == "2"


async def test_a_session_that_nobody_claims_ends(world: World) -> None:
    await world.kill_one(STEPS, lambda said: "output" in said)
    async with world.gateway() as pool:
        (kernel,) = pool.adopted.values()
        await pool.release(kernel)
        assert pool.status().leased == 0


async def test_another_generation_drains(world: World) -> None:
    await world.kill_one(STEPS, lambda said: "output" in said)
    async with world.gateway(files={"new": b"file"}) as pool:
        kernel = adopted(pool)
        result = await kernel.resume(CELL, deadline_s=60)
        assert (result.status, text_of(result)) == ("ok", ALL_STEPS)
        assert len(list(world.folder.iterdir())) == 2
        fresh = await pool.lease()
        code = "open('/opt/omniops/files/new').read()"
        assert output(await fresh.execute(code, deadline_s=30)) == "'file'"
        assert (await kernel.execute(code, deadline_s=30)).status == "error"
        await pool.release(kernel)
        assert len(list(world.folder.iterdir())) == 1


async def test_a_graceful_stop_can_leave_kernels(world: World) -> None:
    pool = Pool(configured(world.folder, 120), world.place_of)
    await pool.start()
    kernel = await pool.lease(note=SESSION, tenant="tenant")
    await kernel.execute("x = 41", deadline_s=30)
    await pool.close(keep=True)
    async with world.gateway() as pool:
        assert output(await adopted(pool).execute("x + 1", deadline_s=30)) == "42"
