"""What several benchmarks of kernels need: pools, cells, a stock kernel's cold start."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure, command
from benchmarks.stock import stock_kernel
from kernel_pool.channels import Channels
from kernel_pool.execution import execute
from kernel_pool.pool import Pool
from kernel_pool.types import CellResult, Exit, Limits, PoolConfig, Profile


@contextlib.contextmanager
def pool_config(warm: int, **more: Any) -> Iterator[PoolConfig]:
    """A pool in a folder of its own: the usual profile, `warm` kernels in stock."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield PoolConfig(runtime_dir=Path(folder) / "r", profiles=(Profile(minimum=warm, maximum=warm),), **more)


@contextlib.asynccontextmanager
async def running_pool(warm: int, **more: Any) -> AsyncIterator[Pool]:
    with pool_config(warm, **more) as config:
        pool = Pool(config)
        await pool.start()
        try:
            yield pool
        finally:
            await pool.close()


async def run_cell(channels: Channels, code: str) -> CellResult:
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


async def time_ms(what: Awaitable[object]) -> float:
    """Milliseconds until it is done."""
    started = time.perf_counter()
    await what
    return (time.perf_counter() - started) * 1000


async def cold_start_ms(first_cell: str) -> float:
    """A stock kernel, from the decision to start it until it has run its first cell."""
    started = time.perf_counter()
    async with stock_kernel() as stock:
        await run_cell(stock.channels, first_cell)
        return (time.perf_counter() - started) * 1000


def figure_of(id: str, value: float, unit: str, peer: float, peer_name: str) -> Figure:
    """With its command."""
    return Figure(id=id, value=value, unit=unit, peer=peer, peer_name=peer_name, command=command(id))
