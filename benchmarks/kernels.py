"""Kernels: forked and sandboxed ones beside stock ipykernel, cold and unconfined; same run, same client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.figure import Figure, quantile
from benchmarks.stock import stock_kernel
from benchmarks.support import cold_start_ms, figure_of, pool_config, run_cell, running_pool, time_ms
from kernel_pool.channels import Channels
from kernel_pool.local import LocalPlace
from kernel_pool.types import Exit, ExitReason

IDS = ("cell_p50_ms", "fork_ready_p50_ms", "idle_kernel_mb")

_IMPORTS = "import numpy, pandas, pyarrow"
_ROUNDS, _CELLS_A_ROUND = 8, 60
_STARTS, _STOCK_STARTS = 20, 5
_DONE = Exit(ExitReason.SHUTDOWN, "measured")


def run(ids: set[str]) -> list[Figure]:
    """Measure the figures in `ids`. Takes half a minute for all."""
    measures: dict[str, Callable[[], Awaitable[Figure]]] = {
        "cell_p50_ms": _cell,
        "fork_ready_p50_ms": _fork_ready,
        "idle_kernel_mb": _idle_memory,
    }

    async def all_of_them() -> list[Figure]:
        return [await measures[id]() for id in IDS if id in ids]

    return asyncio.run(all_of_them())


async def _cell() -> Figure:
    """`1+1`, from the request until reply and idle are there; both kernels in turn, round by round."""
    ours: list[float] = []
    peers: list[float] = []
    async with running_pool(1) as pool, stock_kernel() as stock:
        kernel = await pool.lease()
        for channels, times in [(kernel.channels, ours), (stock.channels, peers)] * _ROUNDS:
            for _ in range(10):
                await run_cell(channels, "1+1")
            times += [await time_ms(run_cell(channels, "1+1")) for _ in range(_CELLS_A_ROUND)]
    return figure_of("cell_p50_ms", quantile(ours, 0.5), "ms", quantile(peers, 0.5), "stock ipykernel, no sandbox")


async def _fork_ready() -> Figure:
    """From the decision to start a kernel until it has run its first cell, which imports pandas and pyarrow."""
    ours: list[float] = []
    with pool_config(0) as config:
        place = LocalPlace(config.place(config.profiles[0]))
        await place.start()
        try:
            for _ in range(_STARTS):
                ours.append(await start_ms(place))
        finally:
            await place.close()
    peers = [await cold_start_ms(_IMPORTS) for _ in range(_STOCK_STARTS)]
    name = "stock ipykernel, cold, no sandbox, with the same imports"
    return figure_of("fork_ready_p50_ms", quantile(ours, 0.5), "ms", quantile(peers, 0.5), name)


async def start_ms(place: LocalPlace) -> float:
    """Start a kernel, run the imports as its first cell, end it; returns the time until the cell's result."""
    started = time.perf_counter()
    process = await place.spawn()
    channels = Channels(process.directory, process.key)
    await channels.open()
    await channels.wait_ready(30)
    await run_cell(channels, _IMPORTS)
    took = (time.perf_counter() - started) * 1000
    await channels.close()
    await process.kill(_DONE)
    await place.discard(process)
    return took


async def _idle_memory() -> Figure:
    """Memory of its own (private pages) of an idle kernel that has pandas and pyarrow loaded."""
    async with running_pool(1) as pool, stock_kernel() as stock:
        kernel = await pool.lease()
        for channels in (kernel.channels, stock.channels):
            await run_cell(channels, _IMPORTS)
            await run_cell(channels, "1+1")
        ours, peer = _private_mb(kernel.pid), _private_mb(stock.pid)
    return figure_of("idle_kernel_mb", ours, "MB", peer, "stock ipykernel with the same imports")


def _private_mb(pid: int) -> float:
    rows = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(row[1]) for row in rows if row[0] in ("Private_Clean:", "Private_Dirty:")) / 1024
