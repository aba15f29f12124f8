"""What limits cost: a start with cgroups beside one without, and what a frozen kernel still uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.figure import Figure, quantile
from benchmarks.kernels import start_ms
from benchmarks.support import figure_of, pool_config, running_pool, time_ms
from kernel_pool.local import LocalPlace

IDS = ("fork_with_cgroups_p50_ms", "freeze_p50_ms", "frozen_cpu_ms_per_s")

_STARTS, _FREEZES, _LOOK_S = 20, 50, 3
_BUSY = "while True: pass"


def run(ids: set[str]) -> list[Figure]:
    """Measure the figures in `ids`. Takes half a minute for all."""
    measures: dict[str, Callable[[], Awaitable[Figure]]] = {
        "fork_with_cgroups_p50_ms": _fork,
        "freeze_p50_ms": _freeze,
        "frozen_cpu_ms_per_s": _frozen_cpu,
    }

    async def all_of_them() -> list[Figure]:
        return [await measures[id]() for id in IDS if id in ids]

    return asyncio.run(all_of_them())


async def _fork() -> Figure:
    """As `fork_ready_p50_ms`; with cgroups and without in turn. Where there are none to be had, it says so."""
    times: dict[str, list[float]] = {"require": [], "off": []}
    async with contextlib.AsyncExitStack() as stack:
        places = {}
        for use in ("require", "off"):
            config = stack.enter_context(pool_config(0))
            place = LocalPlace(replace(config.place(config.profiles[0]), cgroups=use))
            await place.start()
            stack.push_async_callback(place.close)
            places[use] = place
        for _ in range(_STARTS):
            for use, place in places.items():
                times[use].append(await start_ms(place))
    ours, peer = (quantile(times[use], 0.5) for use in ("require", "off"))
    return figure_of("fork_with_cgroups_p50_ms", ours, "ms", peer, "the same without cgroups")


async def _freeze() -> Figure:
    """From the wish until no process of an idle kernel runs any more."""
    freezes, thaws = [], []
    async with running_pool(1) as pool:
        kernel = await pool.lease()
        for _ in range(_FREEZES):
            freezes.append(await time_ms(kernel.process.freeze()))
            thaws.append(await time_ms(kernel.process.thaw()))
    return figure_of("freeze_p50_ms", quantile(freezes, 0.5), "ms", quantile(thaws, 0.5), "to thaw it")


async def _frozen_cpu() -> Figure:
    """CPU time that a kernel in the middle of a busy cell uses when it is frozen."""
    async with running_pool(1) as pool:
        kernel = await pool.lease()
        cell = asyncio.create_task(kernel.execute(_BUSY, deadline_s=60))
        await asyncio.sleep(_LOOK_S)
        peer = await _cpu_ms_per_s(kernel.pid)
        await kernel.process.freeze()
        ours = await _cpu_ms_per_s(kernel.pid)
        await kernel.interrupt()
        await cell
    return figure_of("frozen_cpu_ms_per_s", ours, "ms", peer, "the same kernel when it is not frozen")


async def _cpu_ms_per_s(pid: int) -> float:
    before = _cpu_ms(pid)
    await asyncio.sleep(_LOOK_S)
    return (_cpu_ms(pid) - before) / _LOOK_S


def _cpu_ms(pid: int) -> float:
    """CPU time of a process (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) * 1000 / os.sysconf("SC_CLK_TCK")
