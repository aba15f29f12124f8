"""The pool: leases from stock, one after the other and many at once, and a burst without any stock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.figure import Figure, quantile
from benchmarks.stock import stock_kernel
from benchmarks.support import cold_start_ms, figure_of, run_cell, running_pool
from kernel_pool.kernel import Kernel
from kernel_pool.pool import Pool

IDS = ("lease_p50_ms", "lease_p99_ms", "lease_50_p99_ms", "first_result_p50_ms", "burst_100_s")

_COLD = "stock ipykernel, cold, no sandbox"
_GROUP = (
    "import pandas as pd\n"
    "d = pd.DataFrame({'a': range(1000), 'b': [i % 7 for i in range(1000)]})\n"
    "d.groupby('b').a.sum()"
)
_LEASES, _STOCK = 300, 8
_AT_ONCE, _ROUNDS = 50, 6
_RESULTS, _COLD_STARTS = 30, 5
_BURST, _BURST_PEER, _PEERS_AT_ONCE = 100, 24, 8


def run(ids: set[str]) -> list[Figure]:
    """Measure the figures in `ids`. Takes a minute for all."""
    groups: list[tuple[set[str], Callable[[], Awaitable[list[Figure]]]]] = [
        ({"lease_p50_ms", "lease_p99_ms", "lease_50_p99_ms", "first_result_p50_ms"}, _leases),
        ({"burst_100_s"}, _burst),
    ]

    async def all_of_them() -> list[Figure]:
        return [figure for known, measure in groups if known & ids for figure in await measure() if figure.id in ids]

    return asyncio.run(all_of_them())


async def _leases() -> list[Figure]:
    """A lease is over when the kernel is the caller's and the note of that is on the disk."""
    single, results = await _one_after_the_other()
    at_once = await _many_at_once()
    cold = [await cold_start_ms("None") for _ in range(_COLD_STARTS)]
    first = [await cold_start_ms("1+1") for _ in range(_COLD_STARTS)]
    peer, all_at_once = quantile(cold, 0.5), await _cold_at_once()
    name = f"{_COLD}; {_AT_ONCE} of them {_PEERS_AT_ONCE} at a time, reckoned from {_BURST_PEER}"
    return [
        figure_of("lease_p50_ms", quantile(single, 0.5), "ms", peer, _COLD),
        figure_of("lease_p99_ms", quantile(single, 0.99), "ms", quantile(cold, 0.99), _COLD),
        figure_of("lease_50_p99_ms", quantile(at_once, 0.99), "ms", all_at_once, name),
        figure_of("first_result_p50_ms", quantile(results, 0.5), "ms", quantile(first, 0.5), _COLD),
    ]


async def _one_after_the_other() -> tuple[list[float], list[float]]:
    """Milliseconds of leases, and of leases with the result of `1+1`; the stock refills beside them."""
    leases: list[float] = []
    results: list[float] = []
    async with running_pool(_STOCK) as pool:
        for number in range(_LEASES):
            await _filled(pool, _STOCK // 2)
            started = time.perf_counter()
            kernel = await pool.lease(note=f"session-{number}", tenant="shop")
            leases.append((time.perf_counter() - started) * 1000)
            if number % (_LEASES // _RESULTS) == 0:
                await run_cell(kernel.channels, "1+1")
                results.append((time.perf_counter() - started) * 1000)
            await pool.release(kernel)
    return leases, results


async def _many_at_once() -> list[float]:
    """Milliseconds from the moment at which all are asked for until each is there."""
    times: list[float] = []
    async with running_pool(_AT_ONCE, maximum=2 * _AT_ONCE, refill_starts=2) as pool:
        for _ in range(_ROUNDS):
            await _filled(pool, _AT_ONCE)
            started = time.perf_counter()

            async def lease(number: int, started: float = started) -> Kernel:
                kernel = await pool.lease(note=f"session-{number}", tenant="shop")
                times.append((time.perf_counter() - started) * 1000)
                return kernel

            kernels = await asyncio.gather(*(lease(number) for number in range(_AT_ONCE)))
            await asyncio.gather(*map(pool.release, kernels))
    return times


async def _burst() -> list[Figure]:
    """Seconds until 100 kernels, none of them in stock, have each run pandas and a group-by, all alive at once."""
    async with running_pool(0, maximum=_BURST, lease_timeout_s=300.0) as pool:
        started = time.perf_counter()

        async def use() -> Kernel:
            kernel = await pool.lease()
            await run_cell(kernel.channels, _GROUP)
            return kernel

        kernels = await asyncio.gather(*(use() for _ in range(_BURST)))
        took = time.perf_counter() - started
        if any(kernel.exited.done() for kernel in kernels):
            raise RuntimeError("a kernel of the burst died")
    peer = await _stock_at_once(_GROUP) * _BURST / _BURST_PEER
    name = f"stock ipykernel, no sandbox, {_PEERS_AT_ONCE} at a time; reckoned from {_BURST_PEER} of them"
    return [figure_of("burst_100_s", took, "s", peer, name)]


async def _cold_at_once() -> float:
    return await _stock_at_once("None") * 1000 * _AT_ONCE / _BURST_PEER


async def _stock_at_once(code: str) -> float:
    """Seconds until `_BURST_PEER` stock kernels have run `code`, a few at a time."""
    slots = asyncio.Semaphore(_PEERS_AT_ONCE)

    async def use() -> None:
        async with slots, stock_kernel() as stock:
            await run_cell(stock.channels, code)

    started = time.perf_counter()
    await asyncio.gather(*(use() for _ in range(_BURST_PEER)))
    return time.perf_counter() - started


async def _filled(pool: Pool, ready: int) -> None:
    while pool.status().ready < ready:  # noqa: ASYNC110  # the pool has no event for it, and nobody waits here
        await asyncio.sleep(0.01)
