"""Which kind of sandbox the kernels of this machine get: as told, or the strongest that can be had.

Strongest first: containers under gVisor, containers under runc, sandboxes of our own. What somebody set up or named
and that does not work is an error, never a reason to take something weaker; what nobody set up is said and left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from kernel_pool.container_config import DockerConfig, Runtime
from kernel_pool.isolation import probe
from kernel_pool.kernel_limits import cgroups_for
from kernel_pool.local import LocalPlace
from kernel_pool.place import Place
from kernel_pool.types import CgroupUse, IsolationUnavailable, PlaceConfig

if TYPE_CHECKING:
    from kernel_pool.container_check import Daemon

Provisioner = Literal["auto", "local", "docker"]

#: All runtimes, the strongest first.
RUNTIMES: tuple[Runtime, ...] = ("runsc", "runc")
_CONTAINER: dict[Runtime, str] = {
    "runc": "containers (runc): no network, read-only root, no capabilities, seccomp allow-list, cgroup limits",
    "runsc": "containers (gVisor): a kernel of its own, no network, read-only root, no capabilities, cgroup limits",
}
#: Every kind of place, the strongest first.
PLACES = (*(f"docker {runtime}" for runtime in RUNTIMES), "local")
_DOCTOR = "`omniops doctor` tries every part"


@dataclass(frozen=True)
class Choice:
    """What was chosen."""

    place_of: Callable[[PlaceConfig], Place]
    #: "docker runsc", "docker runc" or "local".
    place: str
    #: What confines a kernel there.
    summary: str
    #: Why nothing stronger, and the command that changes it; "" where nothing is stronger, or it was not asked for.
    stronger: str = ""

    def __str__(self) -> str:
        return f"{self.summary}. Nothing stronger: {self.stronger}" if self.stronger else self.summary


async def choose(
    provisioner: Provisioner,
    docker: DockerConfig,
    runtimes: tuple[Runtime, ...] = RUNTIMES,
    *,
    uid: int = 700_000,
    cgroups: CgroupUse = "auto",
) -> Choice:
    """Look at what there is and choose.

    `runtimes`: those that containers may have, the strongest first; whoever names one alone wants containers, and
    nothing else will do. `docker.runtime` does not count. `uid`: as root, a user id that kernels may have. `cgroups`:
    for local kernels. Quick where
    there is no Docker; a first container is not started here, but by `Place.start`.

    Raises:
        IsolationUnavailable: what was asked for, or is broken, or that nothing works; with the command that mends it.
    """
    if provisioner == "local":
        return await _local(uid, cgroups)
    daemon = await _look(docker)
    refused: list[str] = []
    for runtime in runtimes:
        problem = daemon.problem(runtime)
        if problem is None:
            return _containers(docker, runtime, refused)
        if provisioner == "auto" and (problem.broken or len(runtimes) == 1):
            raise IsolationUnavailable(
                f"kernels would run in containers, but {problem} "
                f'Or do without containers: pool.provisioner = "local". {_DOCTOR}.'
            )
        if str(problem) not in refused:
            refused.append(str(problem))
    if provisioner == "docker":
        raise IsolationUnavailable(f"{' '.join(refused)} {_DOCTOR}.")
    try:
        return await _local(uid, cgroups, " ".join(refused))
    except IsolationUnavailable as error:
        raise IsolationUnavailable(f"{error} Containers cannot be had either: {' '.join(refused)}") from error


def refuse_weaker(choice: Choice, before: str) -> None:
    """Raise IsolationUnavailable when `choice` is weaker than `before`, the place that was chosen last time."""
    if before in PLACES and PLACES.index(choice.place) > PLACES.index(before):
        raise IsolationUnavailable(
            f"kernels ran in {before!r} last time, and only {choice.place!r} can be had now: {choice.stronger} "
            f'If the weaker one is to do from now on: pool.provisioner = "{choice.place.split()[0]}". {_DOCTOR}.'
        )


async def with_runtime(docker: DockerConfig, runtimes: tuple[Runtime, ...]) -> DockerConfig:
    """`docker` with the first of `runtimes` that can be had. Raises IsolationUnavailable."""
    daemon = await _look(docker)
    refused = []
    for runtime in runtimes:
        problem = daemon.problem(runtime)
        if problem is None:
            return replace(docker, runtime=runtime)
        refused.append(str(problem))
    raise IsolationUnavailable(f"{' '.join(dict.fromkeys(refused))} {_DOCTOR}.")


async def _look(docker: DockerConfig) -> Daemon:
    # the Docker client takes a while to import: not where it is of no use
    from kernel_pool.container_check import ask, nobody_there

    return nobody_there(docker) or await ask(docker)


def _containers(docker: DockerConfig, runtime: Runtime, refused: list[str]) -> Choice:
    from kernel_pool.docker import DockerPlace

    place_of = partial(DockerPlace, docker=replace(docker, runtime=runtime))
    return Choice(place_of, f"docker {runtime}", _CONTAINER[runtime], " ".join(refused))


async def _local(uid: int, cgroups: CgroupUse, stronger: str = "") -> Choice:
    report = await asyncio.to_thread(probe, uid)
    report.require()
    groups = await asyncio.to_thread(cgroups_for, cgroups)
    report = replace(report, cgroups=groups.summary())
    return Choice(LocalPlace, "local", report.summary(), stronger)
