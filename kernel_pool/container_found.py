"""Containers that an earlier gateway left: found by label, taken over through their door, or asked how they ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiodocker
from aiodocker.containers import DockerContainer

from kernel_pool.container import ContainerKernel, explain_container
from kernel_pool.container_check import DockerTrouble
from kernel_pool.door import Door
from kernel_pool.ended import EndedKernel
from kernel_pool.leases import Record
from kernel_pool.sandbox.contained import NOBODY_CAME
from kernel_pool.types import Exit, ExitReason, Limits

#: Labels of a container: its place, and its kernel.
OWNER = "omniops.runtime"
KERNEL = "omniops.kernel"
#: How long a container may take to find the new gateway's door; it looks four times a second.
_DOOR_S = 10.0


async def containers_of(client: aiodocker.Docker, owner: str) -> dict[str, DockerContainer]:
    """All containers of a place, by their kernel. Raises what the Docker client raises."""
    filters = {"label": [f"{OWNER}={owner}"]}
    found = await client.containers.list(all=True, filters=filters)
    return {container["Labels"].get(KERNEL, container.id): container for container in found}


async def take_over(
    container: DockerContainer | None, record: Record, directory: Path, limits: Limits, grace_s: float
) -> ContainerKernel | EndedKernel:
    """The kernel of `record`: alive, or ended and able to say why."""
    state: Mapping[str, Any] = {}
    if container is not None:
        with contextlib.suppress(*DockerTrouble):
            state = (await container.show())["State"]
    if container is None or not (state.get("Running") or state.get("Paused")):
        return EndedKernel.of(
            record.lease.id, directory, record.lease.uid, await _why(container, state, limits, grace_s)
        )
    door = await _reopened(container, directory, record.lease.uid, paused=bool(state.get("Paused")))
    if door is None:
        lost = Exit(ExitReason.UNHEALTHY, "the kernel's container did not come back to the gateway")
        return EndedKernel.of(record.lease.id, directory, record.lease.uid, lost)
    process = ContainerKernel(
        id=record.lease.id,
        directory=directory,
        key=bytes.fromhex(record.lease.key),
        pid=state["Pid"],
        uid=record.lease.uid or os.getuid(),
        limits=limits,
        exited=asyncio.get_running_loop().create_future(),
        container=container,
        door=door,
        record=record,
    )
    process.watch_end()
    return process


async def _reopened(container: DockerContainer, directory: Path, uid: int | None, *, paused: bool) -> Door | None:
    door = Door(directory / "door")
    try:
        await door.listen(uid if uid is not None and os.getuid() == 0 else os.getgid())
        async with asyncio.timeout(_DOOR_S):
            if paused:
                await container.unpause()
            await door.reopen()
    except DockerTrouble:
        door.close()
        return None
    except BaseException:
        door.close()
        raise
    return door


async def _why(container: DockerContainer | None, state: Mapping[str, Any], limits: Limits, grace_s: float) -> Exit:
    if container is not None:
        with contextlib.suppress(*DockerTrouble):
            if NOBODY_CAME in "".join(await container.log(stdout=True, stderr=True, tail=3)):
                return Exit(
                    ExitReason.CRASH, f"the kernel's container ended: no gateway came back within {grace_s:g} s"
                )
    return explain_container(None, state, limits)
