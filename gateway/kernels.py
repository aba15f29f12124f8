"""The pool of kernels as the settings have it: where they run, and what they may use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from gateway.settings import Settings
from kernel_pool.container_config import DockerConfig
from kernel_pool.docker import DockerPlace
from kernel_pool.isolation import probe
from kernel_pool.pool import Pool
from kernel_pool.types import Limits, PoolConfig

_CONTAINER = {
    "runc": "containers (runc): no network, read-only root, no capabilities, seccomp allow-list, cgroup limits",
    "runsc": "containers (gVisor): a kernel of its own, no network, read-only root, no capabilities, cgroup limits",
}


async def pool_of(settings: Settings, folder: Path, files: Mapping[str, bytes]) -> tuple[Pool, str]:
    """The pool, not yet started, and what confines its kernels, in one line for people.

    What is configured and does not work here is an error, never a silent change to something weaker.

    Raises:
        IsolationUnavailable: local sandboxes cannot be had; says what is missing. Containers are checked at the start.
    """
    config = _config(settings, folder, files)
    if settings.pool.provisioner == "docker":
        docker = settings.docker
        place = DockerPlace(config, DockerConfig(docker.image, docker.runtime, docker.host, docker.cpus))
        return Pool(config, place), _CONTAINER[docker.runtime]
    report = await asyncio.to_thread(probe, settings.pool.uid_first)
    report.require()
    return Pool(config), report.summary()


def _config(settings: Settings, folder: Path, files: Mapping[str, bytes]) -> PoolConfig:
    pool, cell = settings.pool, settings.cell
    limits = Limits(
        memory_mb=pool.memory_mb,
        disk_mb=pool.disk_mb,
        processes=pool.processes,
        open_files=pool.open_files,
        cpu_seconds=pool.cpu_seconds,
        output_bytes=cell.output_mb * 2**20,
        output_flood_bytes=cell.output_flood_mb * 2**20,
    )
    return PoolConfig(
        runtime_dir=folder,
        limits=limits,
        warm=pool.warm,
        maximum=pool.maximum,
        preload=pool.preload,
        files=files,
        start_timeout_s=pool.start_timeout_s,
        lease_timeout_s=pool.lease_timeout_s,
        interrupt_grace_s=cell.interrupt_grace_s,
        orphan_grace_s=pool.orphan_grace_s,
        watch_interval_s=pool.watch_interval_s,
        uid_range=(pool.uid_first, pool.uid_count),
    )
