"""Kernels: forked and sandboxed ones beside stock ipykernel, cold and unconfined; same run, same client."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from benchmarks.figure import Figure, command, quantile
from benchmarks.stock import stock_kernel
from kernel_pool.channels import Channels
from kernel_pool.execution import execute
from kernel_pool.local import LocalPlace
from kernel_pool.pool import Pool
from kernel_pool.types import CellResult, Exit, ExitReason, Limits, PoolConfig

IDS = ("lease_p50_ms", "cell_p50_ms", "fork_ready_p50_ms", "idle_kernel_mb")

_IMPORTS = "import numpy, pandas, pyarrow"
_ROUNDS, _CELLS_A_ROUND = 8, 60
_STARTS, _STOCK_STARTS = 20, 5
_DONE = Exit(ExitReason.SHUTDOWN, "measured")


def run(ids: set[str]) -> list[Figure]:
    """Measure the figures in `ids`. Takes half a minute for all."""
    measures: dict[str, Callable[[], Awaitable[Figure]]] = {
        "lease_p50_ms": _lease,
        "cell_p50_ms": _cell,
        "fork_ready_p50_ms": _fork_ready,
        "idle_kernel_mb": _idle_memory,
    }

    async def all_of_them() -> list[Figure]:
        return [await measures[id]() for id in IDS if id in ids]

    return asyncio.run(all_of_them())


@contextlib.contextmanager
def _config(warm: int) -> Iterator[PoolConfig]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield PoolConfig(runtime_dir=Path(folder) / "r", warm=warm)


@contextlib.asynccontextmanager
async def _pool(warm: int) -> AsyncIterator[Pool]:
    with _config(warm) as config:
        pool = Pool(config)
        await pool.start()
        try:
            yield pool
        finally:
            await pool.close()


async def _run_cell(channels: Channels, code: str) -> CellResult:
    """A cell through the same path as a pooled kernel's, without a process that could be killed."""

    async def nothing(*_: object) -> None:
        pass

    exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    result = await execute(
        channels,
        code,
        deadline_s=60,
        interrupt_grace_s=5,
        limits=Limits(),
        interrupt=nothing,
        kill=nothing,
        exited=exited,
    )
    if result.status != "ok":
        raise RuntimeError(f"{code!r} ended with {result.status}: {result.reason or result.error}")
    return result


async def _time_ms(what: Awaitable[object]) -> float:
    started = time.perf_counter()
    await what
    return (time.perf_counter() - started) * 1000


async def _cell() -> Figure:
    """`1+1`, from the request until reply and idle are there; both kernels in turn, round by round."""
    ours: list[float] = []
    peers: list[float] = []
    async with _pool(1) as pool, stock_kernel() as stock:
        kernel = await pool.lease()
        for channels, times in [(kernel.channels, ours), (stock.channels, peers)] * _ROUNDS:
            for _ in range(10):
                await _run_cell(channels, "1+1")
            times += [await _time_ms(_run_cell(channels, "1+1")) for _ in range(_CELLS_A_ROUND)]
    return _figure("cell_p50_ms", quantile(ours, 0.5), "ms", quantile(peers, 0.5), "stock ipykernel, no sandbox")


async def _fork_ready() -> Figure:
    """From the decision to start a kernel until it has run its first cell, which imports pandas and pyarrow."""
    ours: list[float] = []
    with _config(0) as config:
        place = LocalPlace(config)
        await place.start()
        try:
            for _ in range(_STARTS):
                ours.append(await _start_ms(place))
        finally:
            await place.close()
    peers = [await _cold_start_ms(_IMPORTS) for _ in range(_STOCK_STARTS)]
    name = "stock ipykernel, cold, no sandbox, with the same imports"
    return _figure("fork_ready_p50_ms", quantile(ours, 0.5), "ms", quantile(peers, 0.5), name)


async def _start_ms(place: LocalPlace) -> float:
    started = time.perf_counter()
    process = await place.spawn()
    channels = Channels(process.directory, process.key)
    await channels.open()
    await channels.wait_ready(30)
    await _run_cell(channels, _IMPORTS)
    took = (time.perf_counter() - started) * 1000
    await channels.close()
    await process.kill(_DONE)
    await place.discard(process)
    return took


async def _cold_start_ms(first_cell: str) -> float:
    started = time.perf_counter()
    async with stock_kernel() as stock:
        await _run_cell(stock.channels, first_cell)
        return (time.perf_counter() - started) * 1000


async def _lease() -> Figure:
    """From the wish for a kernel until one is there that has run `1+1`; the stock refills between two leases."""
    ours: list[float] = []
    async with _pool(2) as pool:
        for _ in range(_STARTS):
            while pool.status().ready < 2:  # noqa: ASYNC110  # the pool has no event for it, and nobody waits here
                await asyncio.sleep(0.01)
            started = time.perf_counter()
            kernel = await pool.lease()
            await _run_cell(kernel.channels, "1+1")
            ours.append((time.perf_counter() - started) * 1000)
            await pool.release(kernel)
    peers = [await _cold_start_ms("1+1") for _ in range(_STOCK_STARTS)]
    name = "stock ipykernel, cold, no sandbox"
    return _figure("lease_p50_ms", quantile(ours, 0.5), "ms", quantile(peers, 0.5), name)


async def _idle_memory() -> Figure:
    """Memory of its own (private pages) of an idle kernel that has pandas and pyarrow loaded."""
    async with _pool(1) as pool, stock_kernel() as stock:
        kernel = await pool.lease()
        for channels in (kernel.channels, stock.channels):
            await _run_cell(channels, _IMPORTS)
            await _run_cell(channels, "1+1")
        ours, peer = _private_mb(kernel.pid), _private_mb(stock.pid)
    return _figure("idle_kernel_mb", ours, "MB", peer, "stock ipykernel with the same imports")


def _private_mb(pid: int) -> float:
    rows = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(row[1]) for row in rows if row[0] in ("Private_Clean:", "Private_Dirty:")) / 1024


def _figure(id: str, value: float, unit: str, peer: float, peer_name: str) -> Figure:
    return Figure(id=id, value=value, unit=unit, peer=peer, peer_name=peer_name, command=command(id))
