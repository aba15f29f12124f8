"""One kernel in a container of its own, as the pool sees it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiodocker
from aiodocker.containers import DockerContainer
from aiohttp import ClientError

from kernel_pool.door import Door
from kernel_pool.process import explain
from kernel_pool.template_client import Ended
from kernel_pool.types import Exit, ExitReason, KernelGone, Limits

#: What the Docker client raises when the daemon refuses, is gone, or does not answer.
DockerTrouble = (aiodocker.DockerError, ClientError, OSError, TimeoutError)


#: How long the daemon may take to kill a container.
_KILL_TIMEOUT_S = 10.0


@dataclass
class ContainerKernel:
    """A ready kernel. The container's runtime holds all its limits; the pool's memory watcher has no part in it."""

    id: str
    directory: Path
    key: bytes = field(repr=False)
    #: Of the container's first process on this machine (with gVisor: of the sandbox).
    pid: int
    uid: int
    limits: Limits
    exited: asyncio.Future[Exit]
    container: DockerContainer
    door: Door
    #: No folder for the memory watcher: the container's cgroup limits memory.
    proc: None = None
    baseline: int = 0
    memory_full: bool = field(default=False, init=False)
    _intended: Exit | None = field(default=None, init=False)
    _settling: asyncio.Task[None] | None = field(default=None, init=False)

    def watch_end(self) -> None:
        """Resolve `exited` when the container has ended."""
        self._settling = asyncio.create_task(self._settle())

    async def _settle(self) -> None:
        report = await self.door.ended()
        self.door.close()
        state: dict[str, Any] = {}
        with contextlib.suppress(*DockerTrouble):
            await self.container.wait()
            state = (await self.container.show())["State"]
        if not self.exited.done():
            how = Ended(report.status, report.cpu_s) if report else None
            self.exited.set_result(self._intended or _explain(how, state, self.limits))

    def interrupt(self) -> None:
        """Send SIGINT to the kernel and what it runs in its foreground. Raises KernelGone."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        self.door.interrupt()

    async def kill(self, exit: Exit) -> None:
        """End the container and wait for it; `exit` says why, unless it was dead before."""
        if not self.exited.done():
            self._intended = self._intended or exit
            try:
                async with asyncio.timeout(_KILL_TIMEOUT_S):
                    await self.container.kill()
            except DockerTrouble:
                self.door.stop()  # the daemon is gone, the container need not be
        await asyncio.shield(self.exited)


def out_of_memory(limits: Limits) -> Exit:
    """The end of a kernel whose container held too much."""
    detail = f"the kernel's container ran out of memory; its memory limit is {limits.memory_mb} MiB"
    return Exit(ExitReason.MEMORY, detail)


def _explain(how: Ended | None, state: dict[str, Any], limits: Limits) -> Exit:
    """What an end means, in words."""
    by_signal = how is None or how.status == -9
    if state.get("OOMKilled") and by_signal:
        return out_of_memory(limits)
    if how is not None:
        return explain(how, limits)
    if state:
        code = state.get("ExitCode")
        return Exit(ExitReason.KILLED, f"the kernel's container was ended from outside (exit status {code})")
    return Exit(ExitReason.KILLED, "the kernel's container is gone, and Docker cannot tell how it ended")
