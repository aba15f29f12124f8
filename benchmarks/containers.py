"""Kernels in containers: a lease from stock beside the start that it hides, and that beside `docker run` alone.

Wants a Docker daemon (DOCKER_HOST, or the usual one) and the image that `docker/build-image` makes, by its own name
or that in OMNIOPS_DOCKER__IMAGE.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from benchmarks.figure import Figure, quantile
from benchmarks.support import figure_of, run_cell
from kernel_pool.container_config import DockerConfig, Runtime
from kernel_pool.docker import DockerPlace
from kernel_pool.pool import Pool
from kernel_pool.types import IsolationUnavailable, PoolConfig, Profile

_RUNTIMES: tuple[Runtime, ...] = ("runc", "runsc")
IDS = tuple(f"{what}_{runtime}_p50_ms" for runtime in _RUNTIMES for what in ("lease", "cold"))

_LEASES, _STOCK, _COLD, _FLOOR = 24, 4, 3, 5


def run(ids: set[str]) -> list[Figure]:
    """Measure the figures in `ids`. Takes two minutes for all. What there is no Docker for is left out, with a word."""

    async def all_of_them() -> list[Figure]:
        figures: list[Figure] = []
        for runtime in _RUNTIMES:
            if any(f"_{runtime}_" in id for id in ids):
                try:
                    figures += await _measure(runtime)
                except IsolationUnavailable as error:
                    print(f"{runtime}: {error}", file=sys.stderr)
        return figures

    return asyncio.run(all_of_them())


async def _measure(runtime: Runtime) -> list[Figure]:
    docker = DockerConfig(os.environ.get("OMNIOPS_DOCKER__IMAGE", "omniops-sandbox"), runtime)
    async with _pool(docker, 0) as pool:
        cold = [await _lease_ms(pool) for _ in range(_COLD)]
    async with _pool(docker, _STOCK) as pool:
        leases = []
        for _ in range(_LEASES // _STOCK):
            while pool.status().ready < _STOCK:  # noqa: ASYNC110  # the pool has no event for it, and nobody waits here
                await asyncio.sleep(0.05)
            leases += [await _lease_ms(pool) for _ in range(_STOCK)]
    floor = [await _docker_run_ms(docker) for _ in range(_FLOOR)]
    start = quantile(cold, 0.5)
    return [
        figure_of(f"lease_{runtime}_p50_ms", quantile(leases, 0.5), "ms", start, "the same without a stock"),
        figure_of(f"cold_{runtime}_p50_ms", start, "ms", quantile(floor, 0.5), f"docker run --runtime {runtime} true"),
    ]


@asynccontextmanager
async def _pool(docker: DockerConfig, stock: int) -> AsyncIterator[Pool]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        profile = Profile(minimum=stock, maximum=stock)
        config = PoolConfig(Path(folder) / "r", (profile,), start_timeout_s=120, lease_timeout_s=120)
        pool = Pool(config, partial(DockerPlace, docker=docker))
        await pool.start()
        try:
            yield pool
        finally:
            await pool.close()


async def _lease_ms(pool: Pool) -> float:
    """Of a lease with its note; that the kernel works is seen to afterwards."""
    started = time.perf_counter()
    kernel = await pool.lease(tenant="shop", note="session")
    took = (time.perf_counter() - started) * 1000
    await run_cell(kernel.channels, "1+1")
    await pool.release(kernel)
    return took


async def _docker_run_ms(docker: DockerConfig) -> float:
    options = ("--rm", "--network", "none", "--runtime", docker.runtime, "--entrypoint", "/bin/true")
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec("docker", "run", *options, docker.image)
    if await process.wait():
        raise RuntimeError(f"docker run {' '.join(options)} {docker.image} failed")
    return (time.perf_counter() - started) * 1000
