"""Probes, lives, freezing, generations, and what a later gateway takes over. Fake places, exact time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fake_place import World, fake_pool, process_of, running, warped

from kernel_pool.types import ExitReason, PoolConfig, Profile, StartFailed


@pytest.fixture
def world() -> World:
    return World()


def config(tmp_path: Path, *profiles: Profile, **more: Any) -> PoolConfig:
    quiet = {"probe_interval_s": 0.0, "ready_life_s": 0.0, "life_s": 0.0, "freeze_after_s": 0.0}
    return PoolConfig(tmp_path / "run", profiles or (Profile(minimum=2, maximum=8),), **(quiet | more))


# -- probes --


@warped
async def test_a_ready_kernel_that_does_not_answer_is_replaced(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, probe_interval_s=10, probe_timeout_s=5)) as pool:
        await asyncio.sleep(5)
        mute = world.processes[0]
        mute.answers = False
        await asyncio.sleep(30)
        assert mute.exited.done()
        assert pool.status().ready == 2


@warped
async def test_a_leased_kernel_is_ended_by_the_third_missing_answer_and_says_so(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, probe_interval_s=10, probe_timeout_s=5)) as pool:
        kernel = await pool.lease()
        process_of(kernel).answers = False
        await asyncio.sleep(31)
        assert kernel.silent == 2
        assert not kernel.exited.done()
        exit = await kernel.exited
        assert exit.reason is ExitReason.UNHEALTHY
        assert exit.detail == "the idle kernel did not answer 3 probes in a row within 5 s"
        await pool.release(kernel)


@warped
async def test_an_answer_makes_up_for_those_that_were_missing(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, probe_interval_s=10, probe_timeout_s=5)) as pool:
        kernel = await pool.lease()
        for _ in range(3):
            process_of(kernel).answers = False
            await asyncio.sleep(20)
            process_of(kernel).answers = True
            await asyncio.sleep(27)
        assert not kernel.exited.done()


@warped
async def test_a_kernel_that_works_is_not_probed(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, probe_interval_s=10, probe_timeout_s=5)) as pool:
        kernel = await pool.lease()
        process_of(kernel).answers = False
        async with kernel.in_use():
            await asyncio.sleep(300)
        assert kernel.silent == 0
        assert not kernel.exited.done()


# -- lives --


@warped
async def test_a_kernel_that_was_ready_for_too_long_is_replaced(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, ready_life_s=100)) as pool:
        await asyncio.sleep(50)
        before = set(world.processes)
        await asyncio.sleep(60)
        assert pool.status().ready == 2
        assert not before & set(world.processes)
        assert pool.status().died == 0


@warped
async def test_a_leased_kernel_of_the_greatest_age_ends_between_two_cells(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, life_s=100)) as pool:
        kernel = await pool.lease()
        async with kernel.in_use():
            await asyncio.sleep(200)
            assert not kernel.exited.done()
        exit = await kernel.exited
        assert (exit.reason, exit.detail) == (
            ExitReason.LIFE,
            "the kernel reached its greatest age of 100 s (pool.life_s)",
        )
        await pool.release(kernel)


# -- freezing --


@warped
async def test_an_idle_kernel_is_frozen_and_thaws_when_it_is_used(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, freeze_after_s=60, probe_interval_s=10)) as pool:
        kernel = await pool.lease()
        await asyncio.sleep(30)
        async with kernel.in_use():
            await asyncio.sleep(100)
            assert not process_of(kernel).frozen
        await asyncio.sleep(59)
        assert not process_of(kernel).frozen
        await asyncio.sleep(10)
        assert process_of(kernel).frozen
        assert pool.status().profiles["agent"].frozen == 1
        await asyncio.sleep(1000)  # no probe ends it
        assert not kernel.exited.done()
        async with kernel.in_use():
            assert not process_of(kernel).frozen
        assert pool.status().profiles["agent"].frozen == 0


@warped
async def test_the_stock_is_not_frozen(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, freeze_after_s=60)):
        await asyncio.sleep(1000)
        assert [process.frozen for process in world.processes] == [False, False]


@warped
async def test_a_use_that_comes_while_it_is_being_frozen_finds_it_thawed(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path)) as pool:
        kernel = await pool.lease()
        process = process_of(kernel)
        freeze = process.freeze

        async def slow() -> None:
            await asyncio.sleep(1)
            await freeze()

        process.freeze = slow  # type: ignore[method-assign]
        freezing = asyncio.create_task(kernel.freeze())
        await asyncio.sleep(0.5)
        async with kernel.in_use():
            assert freezing.done()
            assert not process.frozen
            await kernel.freeze()
            assert not process.frozen


# -- generations --


@warped
async def test_nothing_happens_while_the_generation_is_the_same(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path)) as pool:
        await asyncio.sleep(5)
        before = world.processes
        assert await pool.renew() == ()
        assert world.processes == before


@warped
async def test_a_new_generation_takes_over_and_the_old_one_drains(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path)) as pool:
        old = await pool.lease(note="s")
        await asyncio.sleep(5)
        world.generation = "g2"
        assert await pool.renew() == ("agent",)
        assert world.open_folders == ["agent.g1", "agent.g2"]
        assert not old.exited.done()
        new = await pool.lease()
        assert new.directory.name == "agent.g2"
        await asyncio.sleep(5)
        status = pool.status().profiles["agent"]
        assert (status.ready, status.draining, status.generation) == (2, 1, "g2")
        assert [process.directory.name for process in world.processes].count("agent.g1") == 1
        await pool.release(old)
        assert world.open_folders == ["agent.g2"]
        assert not (tmp_path / "run" / "agent.g1").exists()


@warped
async def test_leases_go_on_while_the_generation_changes(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, exhaustion="refuse")) as pool:
        await asyncio.sleep(5)
        world.generation, world.start_s = "g2", 5.0
        renewing = asyncio.create_task(pool.renew())
        await asyncio.sleep(2)
        assert (await pool.lease()).directory.name == "agent.g1"
        await renewing
        assert (await pool.lease()).directory.name == "agent.g2"


@warped
async def test_a_generation_that_does_not_come_up_changes_nothing(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path)) as pool:
        await asyncio.sleep(5)
        world.generation = "g2"
        world.start_error = StartFailed("broken image")
        with pytest.raises(StartFailed, match="broken image"):
            await pool.renew()
        assert world.open_folders == ["agent.g1"]
        assert (await pool.lease()).directory.name == "agent.g1"
        world.start_error = None
        assert await pool.renew() == ("agent",)


@warped
async def test_other_files_are_another_generation(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path)) as pool:
        await asyncio.sleep(5)
        assert await pool.renew(files={"tools.json": b"{}"}) == ("agent",)
        assert (await pool.lease()).directory.name == "agent.g1tools."


@warped
async def test_back_and_forth_between_two_generations(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path)) as pool:
        first = await pool.lease()
        await asyncio.sleep(5)
        for generation in ("g2", "g1"):
            world.generation = generation
            assert await pool.renew() == ("agent",)
        await asyncio.sleep(5)
        assert world.open_folders == ["agent.g1", "agent.g1.2"]
        await pool.release(first)
        assert world.open_folders == ["agent.g1.2"]


@warped
async def test_the_pool_looks_for_new_generations_by_itself(world: World, tmp_path: Path) -> None:
    async with running(world, config(tmp_path, renew_interval_s=30)) as pool:
        await asyncio.sleep(5)
        world.generation, world.place_error = "g2", StartFailed("no space")
        await asyncio.sleep(31)
        assert pool.status().problem == "a newer generation did not come up: no space"
        world.place_error = None
        await asyncio.sleep(35)
        assert pool.status().profiles["agent"].generation == "g2"
        assert pool.status().problem == ""


# -- what a later gateway takes over --


async def crashed(world: World, config: PoolConfig, *notes: str, tenant: str = "t") -> None:
    """A gateway that leased kernels with these notes, had two in stock, and is gone without a word."""
    pool = fake_pool(world, config)
    await pool.start()
    for note in notes:
        await pool.lease(note=note, tenant=tenant)
    await asyncio.sleep(10)
    await pool.close(keep=True)


@warped
async def test_leased_kernels_come_back_by_their_note_and_the_stock_is_stock(world: World, tmp_path: Path) -> None:
    await crashed(world, config(tmp_path), "s1", "s2")
    assert len(world.processes) == 4
    async with running(world, config(tmp_path, tenant_maximum=2)) as pool:
        assert sorted(pool.adopted) == ["s1", "s2"]
        assert pool.status().ready == 2
        assert dict(pool.status().tenants) == {"t": 2}
        kernel = pool.adopt("s1")
        assert kernel is not None
        assert (kernel.tenant, pool.adopt("s1"), pool.adopt("s3")) == ("t", None, None)
        await pool.release(kernel)
        assert dict(pool.status().tenants) == {"t": 1}
        assert world.count == 4  # nothing had to be started


@warped
async def test_a_kernel_that_was_leased_without_a_name_is_never_leased_again(world: World, tmp_path: Path) -> None:
    await crashed(world, config(tmp_path), "")
    used = world.processes[0]
    async with running(world, config(tmp_path)) as pool:
        assert used.exited.done()
        assert pool.adopted == {}


@warped
async def test_a_note_that_nobody_here_wrote_is_a_lease(world: World, tmp_path: Path) -> None:
    await crashed(world, config(tmp_path))
    strange = world.processes[0]
    strange.notes.append("not ours")
    async with running(world, config(tmp_path)):
        assert strange.exited.done()


@warped
async def test_another_generation_keeps_what_is_leased_and_ends_the_rest(world: World, tmp_path: Path) -> None:
    await crashed(world, config(tmp_path), "s1")
    world.generation = "g2"
    async with running(world, config(tmp_path)) as pool:
        assert world.open_folders == ["agent.g1", "agent.g2"]
        kernel = pool.adopt("s1")
        assert kernel is not None
        await asyncio.sleep(5)
        assert [process.directory.name for process in world.processes] == ["agent.g1", "agent.g2", "agent.g2"]
        await pool.release(kernel)
        assert world.open_folders == ["agent.g2"]


@warped
async def test_an_empty_folder_of_another_generation_is_cleared(world: World, tmp_path: Path) -> None:
    await crashed(world, config(tmp_path))
    world.generation = "g2"
    async with running(world, config(tmp_path)):
        assert world.open_folders == ["agent.g2"]
        assert not (tmp_path / "run" / "agent.g1").exists()


@warped
async def test_a_profile_that_is_gone_keeps_its_sessions_and_takes_no_leases(world: World, tmp_path: Path) -> None:
    old = (Profile("agent"), Profile("old", minimum=1))
    await crashed(world, config(tmp_path, *old), "s1")
    pool = fake_pool(world, config(tmp_path, *old))
    await pool.start()
    await pool.lease("old", note="s2")
    await pool.close(keep=True)
    async with running(world, config(tmp_path, Profile("agent"))) as pool:
        kernel = pool.adopt("s2")
        assert kernel is not None
        await asyncio.sleep(5)
        assert pool.status().profiles["old"].ready == 0
        await pool.release(kernel)
        assert world.open_folders == ["agent.g1"]


@warped
async def test_a_kernel_that_was_frozen_goes_on(world: World, tmp_path: Path) -> None:
    await crashed(world, config(tmp_path), "s1")
    (process,) = [process for process in world.processes if process.notes]
    process.frozen = True
    async with running(world, config(tmp_path)) as pool:
        assert not process.frozen
        kernel = pool.adopt("s1")
        assert kernel is not None
        async with kernel.in_use():
            assert not process.frozen


@warped
async def test_a_stock_kernel_that_does_not_answer_any_more_is_replaced(world: World, tmp_path: Path) -> None:
    await crashed(world, config(tmp_path))
    world.processes[0].answers = False
    async with running(world, config(tmp_path)) as pool:
        assert pool.status().ready == 1
        await asyncio.sleep(5)
        assert pool.status().ready == 2


@warped
async def test_a_kernel_that_nobody_has_claimed_yet_is_left_alone(world: World, tmp_path: Path) -> None:
    """It may be in the middle of a cell, which the gateway is about to go on with."""
    await crashed(world, config(tmp_path), "s1")
    (process,) = [process for process in world.processes if process.notes]
    process.answers = False
    async with running(world, config(tmp_path, freeze_after_s=10, probe_interval_s=10, life_s=10)) as pool:
        await asyncio.sleep(1000)
        assert not process.exited.done()
        assert not process.frozen
        assert pool.adopt("s1") is not None
        await process.exited


@warped
async def test_the_age_of_a_kernel_counts_over_gateways(world: World, tmp_path: Path) -> None:
    await crashed(world, config(tmp_path), "s1")
    (process,) = [process for process in world.processes if process.notes]
    process.notes.append(process.notes[-1].replace('"born":', '"born":1000.0,"was":'))
    async with running(world, config(tmp_path, life_s=86_400)) as pool:
        kernel = pool.adopt("s1")
        assert kernel is not None
        assert (await kernel.exited).reason is ExitReason.LIFE
        await pool.release(kernel)
