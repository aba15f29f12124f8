"""One kernel in a container of its own, as the pool sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiodocker
from aiodocker.containers import DockerContainer
from tenacity import retry, retry_if_exception, stop_after_delay, wait_exponential

from kernel_pool.container_check import DockerTrouble
from kernel_pool.door import Door
from kernel_pool.leases import Record
from kernel_pool.process import explain
from kernel_pool.template_client import Ended
from kernel_pool.types import Exit, ExitReason, KernelGone, KernelPoolError, Limits

#: How long the daemon may take to kill a container.
_KILL_TIMEOUT_S = 10.0
#: How long it may take to pause one, or to let it go on.
_FREEZE_TIMEOUT_S = 5.0
_NOT_FOUND = 404

_log = logging.getLogger(__name__)


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
    #: What is written down of it.
    record: Record
    #: No folder for the memory watcher: the container's cgroup limits memory.
    proc: None = None
    baseline: int = 0
    memory_full: bool = field(default=False, init=False)
    _intended: Exit | None = field(default=None, init=False)
    _frozen: bool = field(default=False, init=False)
    #: Freezing, thawing and killing take turns: the daemon refuses some of them while another is under way.
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _thawing: asyncio.Task[None] | None = field(default=None, init=False)
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
            self.exited.set_result(self._intended or explain_container(how, state, self.limits))

    def interrupt(self) -> None:
        """Send SIGINT to the kernel and what it runs in its foreground. Raises KernelGone."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        self.door.interrupt()
        if self._frozen:
            self._thawing = asyncio.create_task(self._let_go())

    async def kill(self, exit: Exit) -> None:
        """End the container and wait for it; `exit` says why, unless it was dead before."""
        if not self.exited.done():
            self._intended = self._intended or exit
            try:
                async with asyncio.timeout(_KILL_TIMEOUT_S):
                    await self._kill()
            except DockerTrouble:
                self.door.stop()  # the daemon is gone, the container need not be
        await asyncio.shield(self.exited)

    async def freeze(self) -> None:
        """Take the CPU from all processes of the kernel until `thaw`, `interrupt` or `kill`. Raises KernelGone.

        A daemon that does not answer leaves the kernel as it is: it idles then, and that is all that is lost.
        """
        if self.exited.done():
            raise KernelGone(self.exited.result())
        async with self._turn:
            if self._frozen or self._intended is not None:
                return
            try:
                async with asyncio.timeout(_FREEZE_TIMEOUT_S):
                    await _pause(self.container)
            except DockerTrouble as error:
                _log.warning("the container of kernel %s was not paused: %s", self.id, error)
            self._frozen = True  # maybe: then `thaw` finds out

    async def thaw(self) -> None:
        """Let them go on. Raises KernelGone, or KernelPoolError when the daemon does not do it."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        await self._let_go()

    async def _let_go(self) -> None:
        async with self._turn:
            if not self._frozen:
                return
            try:
                async with asyncio.timeout(_FREEZE_TIMEOUT_S):
                    await _unpause(self.container)
            except DockerTrouble as error:
                raise KernelPoolError(f"Docker does not thaw kernel {self.id}: {error}") from error
            self._frozen = False

    async def _kill(self) -> None:
        """A paused container goes on first: with gVisor the daemon's answer to the kill would wait for that."""
        async with self._turn:
            if self._frozen:
                await _unpause(self.container)
                self._frozen = False
            await self.container.kill()

    def out_of_memory(self) -> bool:
        """False: Docker tells of it by an event."""
        return False

    def note(self, text: str) -> None:
        """Put down on disk who leased the kernel. Raises OSError."""
        self.record.note(text)

    async def let_go(self) -> None:
        """Leave it to a later gateway. `exited` is never done then."""
        if self._settling is not None:
            self._settling.cancel()
            await asyncio.gather(self._settling, return_exceptions=True)
        self.door.close()


@retry(
    retry=retry_if_exception(
        lambda error: isinstance(error, aiodocker.DockerError) and "unable to freeze" in str(error)
    ),
    stop=stop_after_delay(_FREEZE_TIMEOUT_S),
    wait=wait_exponential(0.05, max=1),
    reraise=True,
)
async def _pause(container: DockerContainer) -> None:
    """Pause a container. With version 1 of cgroups runc gives up where processes are busy: then again."""
    await container.pause()


async def _unpause(container: DockerContainer) -> None:
    """Let a container go on; one that is not paused, or gone, is left alone."""
    try:
        await container.unpause()
    except aiodocker.DockerError as error:
        if error.status != _NOT_FOUND and "not paused" not in str(error):
            raise


def out_of_memory(limits: Limits) -> Exit:
    """The end of a kernel whose container held too much."""
    detail = f"the kernel's container ran out of memory; its memory limit is {limits.memory_mb} MiB"
    return Exit(ExitReason.MEMORY, detail)


def explain_container(how: Ended | None, state: Mapping[str, Any], limits: Limits) -> Exit:
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
