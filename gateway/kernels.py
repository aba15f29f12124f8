"""The pool of kernels as the settings have it: where they run, and what they may use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.operations.counted_pool import Counted, CountedPool
from gateway.profiles import profiles_of
from gateway.settings import Settings
from gateway.transcripts.store import write_atomically
from kernel_pool.choice import RUNTIMES, Choice, choose, refuse_weaker
from kernel_pool.container_config import DockerConfig
from kernel_pool.types import PoolConfig


async def pool_of(
    settings: Settings, folder: Path, files: Mapping[str, bytes], counted: Counted
) -> tuple[CountedPool, str]:
    """The pool, not yet started, and what confines its kernels, in one line for people. `counted`: told every lease.

    The data folder, which is there, remembers what was chosen: the next start takes nothing weaker by itself.

    Raises:
        IsolationUnavailable: what is configured cannot be had, or nothing can; says what is missing.
    """
    choice = await choice_of(settings)
    kept = settings.data_dir / "isolation"
    if settings.pool.provisioner == "auto":
        refuse_weaker(choice, kept.read_text().strip() if kept.exists() else "")
    write_atomically(kept, f"{choice.place}\n".encode())
    pool = CountedPool(_config(settings, folder, files), choice.place_of)
    pool.counted, pool.most_leases = counted, settings.pool.leases
    return pool, str(choice)


async def choice_of(settings: Settings) -> Choice:
    """Where kernels are to run. Raises IsolationUnavailable."""
    wanted = settings.docker.runtime
    runtimes = RUNTIMES if wanted == "auto" else (wanted,)
    pool = settings.pool
    return await choose(pool.provisioner, docker_of(settings), runtimes, uid=pool.uid_first, cgroups=pool.cgroups)


def docker_of(settings: Settings) -> DockerConfig:
    """How kernels get their containers; the runtime is still to be chosen."""
    return DockerConfig(settings.docker.image, host=settings.docker.host)


def _config(settings: Settings, folder: Path, files: Mapping[str, bytes]) -> PoolConfig:
    pool = settings.pool
    return PoolConfig(
        runtime_dir=folder,
        profiles=profiles_of(settings),
        maximum=pool.maximum,
        files=files,
        start_timeout_s=pool.start_timeout_s,
        lease_timeout_s=pool.lease_timeout_s,
        exhaustion=pool.exhaustion,
        tenant_maximum=pool.tenant_maximum,
        refill_starts=pool.refill_starts,
        lease_starts=pool.lease_starts,
        refill_quiet_s=pool.refill_quiet_s,
        refill_patience_s=pool.refill_patience_s,
        demand_half_life_s=pool.demand_half_life_s,
        ready_life_s=pool.ready_life_s,
        life_s=pool.life_s,
        probe_interval_s=pool.probe_interval_s,
        probe_timeout_s=pool.probe_timeout_s,
        probe_failures=pool.probe_failures,
        freeze_after_s=pool.freeze_after_s,
        renew_interval_s=pool.renew_interval_s,
        interrupt_grace_s=settings.cell.interrupt_grace_s,
        orphan_grace_s=pool.orphan_grace_s,
        watch_interval_s=pool.watch_interval_s,
        uid_range=(pool.uid_first, pool.uid_count),
        cgroups=pool.cgroups,
    )
