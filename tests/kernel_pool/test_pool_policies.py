"""What the pool decides: stock, refill, exhaustion, quota, room between profiles. Fake places, exact time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fake_place import World, process_of, running, warped

from kernel_pool.types import (
    BadInjection,
    Exit,
    ExitReason,
    PoolConfig,
    PoolExhausted,
    Profile,
    QuotaExceeded,
    StartFailed,
    UnknownProfile,
)


@pytest.fixture
def world() -> World:
    return World()


def config(tmp_path: Path, *profiles: Profile, **more: Any) -> PoolConfig:
    more = {"probe_interval_s": 0.0, **more}
    return PoolConfig(tmp_path / "run", profiles or (Profile(minimum=2, maximum=8),), **more)


@warped
async def test_the_stock_is_filled_to_the_minimum_and_no_further(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path)) as pool:
        await asyncio.sleep(60)
        assert pool.status().ready == 2
        assert pool.status().started == 2


@warped
async def test_refills_are_bounded(world: World, tmp_path: Path) -> None:
    profile = Profile(minimum=6, maximum=8)
    async with running(world, config(tmp_path, profile, refill_starts=2)) as pool:
        await asyncio.sleep(5)
        assert pool.status().ready == 6
    assert world.most_starting == 2


@warped
async def test_a_steady_demand_raises_the_stock_and_its_end_lets_it_fall(world: World, tmp_path: Path) -> None:
    world.start_s = 1.0
    async with running(world, config(tmp_path, refill_starts=4, maximum=64)) as pool:
        await asyncio.sleep(5)
        for _ in range(300):
            await pool.release(await pool.lease())
            await asyncio.sleep(0.5)
        high = pool.status().profiles["agent"]
        assert high.leases_per_s == pytest.approx(2, rel=0.2)
        assert 5 <= high.target <= 8
        assert high.ready >= high.target - 3
        await asyncio.sleep(900)
        low = pool.status().profiles["agent"]
        assert (low.target, low.ready) == (2, 2)


@warped
async def test_a_refill_waits_while_leases_come_but_not_for_ever(world: World, tmp_path: Path) -> None:
    profile = Profile(minimum=30, maximum=30)
    settings = config(tmp_path, profile, refill_quiet_s=0.05, refill_patience_s=2.0, maximum=99, refill_starts=30)
    async with running(world, settings) as pool:
        await asyncio.sleep(10)
        began = world.count
        for _ in range(15):
            await pool.lease()
            await asyncio.sleep(0.04)
        assert world.count == began  # 0.6 s of leases, and nothing beside them
        for _ in range(14):
            await pool.lease()
            await asyncio.sleep(0.2)
        assert world.count > began
        await asyncio.sleep(10)
        assert pool.status().ready == 30


@warped
async def test_a_refill_waits_while_cells_take_the_cores(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    async with running(world, config(tmp_path, refill_patience_s=2.0)) as pool:
        await asyncio.sleep(5)
        kernel = await pool.lease()
        async with kernel.in_use():
            await asyncio.sleep(1.5)
            assert world.count == 2
            await asyncio.sleep(1.5)
            assert world.count == 3


@warped
async def test_a_lease_does_not_wait_behind_refills(world: World, tmp_path: Path) -> None:
    """Two leases at an empty stock, one refill under way: both have a kernel after the time of one start."""
    world.start_s = 1.0
    async with running(world, config(tmp_path, refill_starts=1)) as pool:
        await asyncio.sleep(0.5)
        assert pool.status().starting == 1
        began = asyncio.get_running_loop().time()
        await asyncio.gather(pool.lease(), pool.lease())
        assert asyncio.get_running_loop().time() - began <= 1.01


@warped
async def test_leases_that_find_nothing_are_served_in_order(world: World, tmp_path: Path) -> None:
    served: list[int] = []
    async with running(world, config(tmp_path, Profile(minimum=0), maximum=2, lease_timeout_s=100)) as pool:

        async def use(number: int) -> None:
            kernel = await pool.lease()
            served.append(number)
            await asyncio.sleep(1)
            await pool.release(kernel)

        await asyncio.gather(*(use(number) for number in range(6)))
    assert served == [0, 1, 2, 3, 4, 5]


@warped
async def test_refuse_refuses_at_once_and_fills_up_for_the_next(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, exhaustion="refuse")) as pool:
        began = asyncio.get_running_loop().time()
        with pytest.raises(PoolExhausted, match="no kernel of profile agent is ready"):
            await pool.lease()
        assert asyncio.get_running_loop().time() == began
        await asyncio.sleep(5)
        await pool.lease()


@warped
async def test_wait_waits_for_the_refill_and_starts_nothing_beyond_the_stock(world: World, tmp_path: Path) -> None:
    profile = Profile(minimum=1, maximum=1)
    async with running(world, config(tmp_path, profile, exhaustion="wait", refill_starts=1)) as pool:
        await asyncio.gather(*(pool.lease() for _ in range(5)))
        assert world.most_starting == 1


@warped
async def test_start_starts_several_at_once_up_to_a_bound(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, Profile(minimum=0), lease_starts=3)) as pool:
        await asyncio.gather(*(pool.lease() for _ in range(9)))
    assert world.most_starting == 3


@warped
async def test_a_tenant_has_at_most_its_quota(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, tenant_maximum=2)) as pool:
        first, _ = await pool.lease(tenant="a"), await pool.lease(tenant="a")
        with pytest.raises(QuotaExceeded, match="tenant a has 2 kernels of at most 2"):
            await pool.lease(tenant="a")
        await pool.lease(tenant="b")
        assert dict(pool.status().tenants) == {"a": 2, "b": 1}
        await pool.release(first)
        await pool.release(first)
        await pool.lease(tenant="a")
        with pytest.raises(QuotaExceeded):
            await pool.lease(tenant="a")


@warped
async def test_leases_that_wait_count_and_those_that_failed_do_not(world: World, tmp_path: Path) -> None:
    settings = config(tmp_path, tenant_maximum=1, maximum=1, lease_timeout_s=1)
    async with running(world, settings) as pool:
        other = await pool.lease(tenant="b")
        waiting = asyncio.create_task(pool.lease(tenant="a"))
        await asyncio.sleep(0)
        with pytest.raises(QuotaExceeded):
            await pool.lease(tenant="a")
        with pytest.raises(PoolExhausted):
            await waiting
        await pool.release(other)
        await pool.lease(tenant="a")


@warped
async def test_profiles_have_a_stock_and_a_place_each(world: World, tmp_path: Path) -> None:
    profiles = (Profile("agent", minimum=1), Profile("analyst", minimum=2), Profile("rare", minimum=0))
    async with running(world, config(tmp_path, *profiles)) as pool:
        await asyncio.sleep(2)
        assert {name: status.ready for name, status in pool.status().profiles.items()} == {
            "agent": 1,
            "analyst": 2,
            "rare": 0,
        }
        assert world.open_folders == ["agent.g1", "analyst.g1"]
        assert (await pool.lease()).profile.name == "agent"
        assert (await pool.lease("rare")).profile.name == "rare"
        assert world.open_folders == ["agent.g1", "analyst.g1", "rare.g1"]
        with pytest.raises(UnknownProfile, match="no profile 'other'; there are: agent, analyst, rare"):
            await pool.lease("other")


@warped
async def test_the_stock_of_one_profile_gives_way_to_leases_of_another(world: World, tmp_path: Path) -> None:
    profiles = (Profile("agent", minimum=4), Profile("analyst", minimum=0))
    async with running(world, config(tmp_path, *profiles, maximum=4)) as pool:
        await asyncio.sleep(5)
        assert pool.status().ready == 4
        await asyncio.gather(*(pool.lease("analyst") for _ in range(3)))
        await asyncio.sleep(5)
        status = pool.status()
        assert (status.leased, status.ready) == (3, 1)


@warped
async def test_a_start_that_fails_is_told_and_tried_again(world: World, tmp_path: Path) -> None:
    world.start_error = StartFailed("no memory left")
    async with running(world, config(tmp_path, lease_timeout_s=1)) as pool:
        with pytest.raises(PoolExhausted, match="starting one failed: no memory left"):
            await pool.lease()
        assert pool.status().problem == "no memory left"
        world.start_error = None
        await asyncio.sleep(20)
        assert (pool.status().ready, pool.status().problem) == (2, "")


@warped
async def test_a_place_that_does_not_come_up_leaves_nothing(world: World, tmp_path: Path) -> None:
    world.place_error = StartFailed("no template")
    with pytest.raises(StartFailed, match="no template"):
        async with running(world, config(tmp_path)):
            pass
    assert not (tmp_path / "run").exists()


@warped
async def test_a_lease_that_cannot_be_written_down_is_none(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, tenant_maximum=1)) as pool:
        await asyncio.sleep(5)
        world.note_error = OSError(28, "No space left on device")
        with pytest.raises(StartFailed, match="cannot be written down: No space left"):
            await pool.lease(tenant="a")
        assert (pool.status().leased, dict(pool.status().tenants)) == (0, {})
        world.note_error = None
        assert process_of(await pool.lease(tenant="a")).notes != []


@warped
async def test_a_bad_injection_takes_no_kernel(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path)) as pool:
        await asyncio.sleep(5)
        with pytest.raises(BadInjection):
            await pool.lease(env={"PYTHONPATH": "/x"})
        assert (pool.status().ready, pool.status().leased) == (2, 0)


@warped
async def test_a_death_in_stock_is_replaced_and_a_leased_one_is_told(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path)) as pool:
        await asyncio.sleep(5)
        world.processes[0].die()
        leased = await pool.lease()
        await asyncio.sleep(5)
        assert pool.status().ready == 2
        process_of(leased).die(Exit(ExitReason.MEMORY, "too much"))
        assert (await leased.exited).reason is ExitReason.MEMORY
        await pool.release(leased)
        await asyncio.sleep(0)
        assert pool.status().died == 2
        assert [process.exited.done() for process in world.living["agent.g1"]] == [False, False]
