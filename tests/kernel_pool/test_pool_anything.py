"""Whatever happens in whatever order: no kernel has two users, limits hold, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from random import Random

from fake_place import World, process_of, running, warped
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_pool.kernel import Kernel
from kernel_pool.pool import Pool
from kernel_pool.types import KernelPoolError, PoolConfig, Profile, StartFailed

PROFILES = (
    Profile("agent", minimum=2, maximum=4),
    Profile("analyst", minimum=1, maximum=2),
    Profile("rare", minimum=0),
)
MAXIMUM, QUOTA = 8, 4


class Users:
    """Takes and returns kernels, cuts leases short, breaks things; all of it drawn from one seed."""

    def __init__(self, world: World, pool: Pool, random: Random) -> None:
        self.world, self.pool, self.random = world, pool, random
        self.held: dict[str, tuple[str, Kernel]] = {}
        self.seen: set[str] = set()
        self.tasks: list[asyncio.Task[None]] = []

    async def lease(self) -> None:
        tenant = self.random.choice("abc")
        profile = self.random.choice(PROFILES).name
        try:
            kernel = await self.pool.lease(profile, tenant=tenant, note=str(len(self.seen)))
        except KernelPoolError:
            return
        assert kernel.id not in self.seen
        assert kernel.profile.name == profile
        self.seen.add(kernel.id)
        self.held[kernel.id] = (tenant, kernel)

    async def step(self, what: str) -> None:
        match what:
            case "lease":
                self.tasks.append(asyncio.create_task(self.lease()))
                await asyncio.sleep(0)
            case "cancel" if self.tasks:
                self.random.choice(self.tasks).cancel()
            case "release" if self.held:
                _, kernel = self.held.pop(self.random.choice(sorted(self.held)))
                await self.pool.release(kernel)
            case "use" if self.held:
                _, kernel = self.held[self.random.choice(sorted(self.held))]
                if not kernel.exited.done():
                    async with kernel.in_use():
                        assert not process_of(kernel).frozen
            case "die" if self.world.processes:
                self.random.choice(self.world.processes).die()
            case "mute" if self.world.processes:
                self.random.choice(self.world.processes).answers = False
            case "renew":
                self.world.generation = f"g{self.random.randrange(3)}"
                with contextlib.suppress(KernelPoolError):
                    await self.pool.renew()
            case "fail":
                self.world.start_error = StartFailed("today nothing starts")
            case "heal":
                self.world.start_error = self.world.note_error = None
            case "full":
                self.world.note_error = OSError(28, "No space left on device")
            case "wait":
                await asyncio.sleep(self.random.choice([0.01, 0.2, 5, 100]))

    def check(self) -> None:
        status = self.pool.status()
        assert status.ready + status.leased + status.starting <= MAXIMUM
        for tenant in "abc":
            held = sum(1 for owner, _ in self.held.values() if owner == tenant)
            assert held <= status.tenants.get(tenant, 0) <= QUOTA


STEPS = ("lease", "lease", "lease", "cancel", "release", "use", "die", "mute", "renew", "fail", "heal", "full", "wait")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=60), st.integers(0, 1000))
def test_whatever_happens(steps: list[str], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _live(Path(folder), steps, seed)


@warped
async def _live(folder: Path, steps: list[str], seed: int) -> None:
    world = World()
    config = PoolConfig(
        folder / "run",
        PROFILES,
        maximum=MAXIMUM,
        tenant_maximum=QUOTA,
        lease_timeout_s=20,
        probe_interval_s=10,
        ready_life_s=200,
        life_s=500,
        freeze_after_s=30,
        upkeep_interval_s=5,
    )
    async with running(world, config) as pool:
        users = Users(world, pool, Random(seed))
        for what in steps:
            await users.step(what)
            users.check()
        world.start_error = world.note_error = None
        await asyncio.gather(*users.tasks, return_exceptions=True)
        for _, kernel in users.held.values():
            await pool.release(kernel)
        users.held.clear()
        await asyncio.sleep(700)
        status = pool.status()
        assert (status.leased, status.waiting, status.tenants) == (0, 0, {})
        assert status.profiles["agent"].ready == 2
        assert status.profiles["analyst"].ready == 1
        assert len(world.processes) == status.ready
        assert sum(len(folder) for folder in world.living.values()) == status.ready
        assert all(status.draining == 0 for status in status.profiles.values())
