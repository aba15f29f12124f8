"""From a kernel's `Limits` to its cgroups."""

from __future__ import annotations

from kernel_pool.cgroup_groups import KernelGroup, PlaceGroups
from kernel_pool.cgroups import Cgroups, find
from kernel_pool.types import CgroupUse, IsolationUnavailable, Limits, StartFailed

#: What a kernel's cgroup may hold on top of its memory and its files; more than the watcher's own margin.
_MEMORY_MARGIN_MB = 48


def cgroups_for(use: CgroupUse) -> Cgroups:
    """The cgroups that local kernels get. Blocks briefly. Raises IsolationUnavailable when they are required."""
    if use == "off":
        return Cgroups(())
    cgroups = find()
    if use == "require" and cgroups.problem:
        raise IsolationUnavailable(
            f"kernels cannot have the cgroups that are required: {cgroups.problem}. {cgroups.remedy}"
        )
    return cgroups


def make_group(groups: PlaceGroups, kernel: str, limits: Limits) -> KernelGroup:
    """A new kernel's cgroups, with the limits that hold from its start. Blocks briefly. Raises StartFailed."""
    group = groups.make(kernel)
    try:
        group.limit_processes(limits.processes)
        group.limit_cpu(limits.cpus)
    except OSError as error:
        group.remove()
        raise StartFailed(f"the limits of kernel {kernel} cannot be set: {error}") from error
    return group


def join(group: KernelGroup, pid: int) -> None:
    """Put a new kernel's first process into its cgroups. Blocks for up to 20 ms. Raises StartFailed."""
    try:
        group.join(pid)
    except OSError as error:
        raise StartFailed(f"kernel {group.name} cannot be put into its cgroup: {error}") from error


def limit_memory(group: KernelGroup, limits: Limits, baseline: int) -> None:
    """Bound what a ready kernel may hold; it counts nothing that it has from its template until it writes to it.

    More than the memory watcher allows, which counts more finely but only now and then. Raises StartFailed.
    """
    size = baseline + (limits.memory_mb + limits.disk_mb + _MEMORY_MARGIN_MB) * 2**20
    try:
        group.limit_memory(size)
    except OSError as error:
        raise StartFailed(f"the memory of kernel {group.name} cannot be limited: {error}") from error
