"""A kernel's first process as the host sees it: where it is, how to signal it, how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from kernel_pool.cgroup_groups import KernelGroup
from kernel_pool.freeze import Freezer, SignalFreezer
from kernel_pool.leases import Record
from kernel_pool.template_client import Ended, TemplateClient
from kernel_pool.types import Exit, ExitReason, KernelGone, Limits

#: How long after a kernel's end its template may take to tell the exit status.
_STATUS_TIMEOUT_S = 2.0
#: CPU time is used up when nearly the limit was counted: the system enforces it by a coarser clock than it reports.
_CPU_SHARE, _CPU_TICKS_S = 0.98, 0.5
#: How long a freeze may take; processes that the system holds (waiting for a disk) use no CPU meanwhile either.
_FREEZE_TIMEOUT_S = 2.0
_FREEZE_RETRY_S = 0.005


@dataclass
class KernelProcess:
    """One forked, confined, ready kernel. Signals go to a pidfd: never to a process that took over its number."""

    id: str
    directory: Path
    key: bytes = field(repr=False)
    pid: int
    pidfd: int
    #: Open folder: the kernel's own /proc, with its processes and no others.
    proc: int
    uid: int | None
    limits: Limits
    exited: asyncio.Future[Exit]
    #: What it held when it was ready, bytes as the memory watcher counts: nearly all of it shared with its template.
    baseline: int
    #: Its cgroups; without hierarchies where there are none.
    group: KernelGroup
    #: What is written down of it.
    record: Record
    #: Whether the memory watcher last saw it with its memory all but used up.
    memory_full: bool = field(default=False, init=False)
    _freezer: Freezer = field(init=False)
    _frozen: bool = field(default=False, init=False)
    _intended: Exit | None = field(default=None, init=False)
    _settling: asyncio.Task[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._freezer = self.group if self.group.freezes else SignalFreezer(self.proc)

    def watch_end(self, client: TemplateClient) -> None:
        """Resolve `exited` when the process, and with it all processes of the kernel, have ended."""
        loop = asyncio.get_running_loop()
        # with cgroups of version 1 a frozen kernel could not end with its template
        client.closed.add_done_callback(lambda _: self._let_go())

        def ended() -> None:
            loop.remove_reader(self.pidfd)
            self._settling = asyncio.create_task(self._settle(client))

        loop.add_reader(self.pidfd, ended)

    async def _settle(self, client: TemplateClient) -> None:
        how = None if self._intended else await client.ended(self.id, _STATUS_TIMEOUT_S)
        by_memory = self.out_of_memory()
        os.close(self.pidfd)
        os.close(self.proc)
        if not self.exited.done():
            self.exited.set_result(self._intended or self._explain(how, by_memory=by_memory))

    def _explain(self, how: Ended | None, *, by_memory: bool) -> Exit:
        if by_memory and (how is None or how.status == -signal.SIGKILL):
            return out_of_memory(self.limits.memory_mb)
        return explain(how, self.limits, memory_full=self.memory_full)

    def signal(self, number: int) -> None:
        """Send a signal to the kernel's first process. Raises KernelGone."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def interrupt(self) -> None:
        """Send SIGINT to the kernel and what it runs in its foreground, as a terminal would. Raises KernelGone."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, 0)
            os.killpg(self.pid, signal.SIGINT)
        self._let_go()

    async def kill(self, exit: Exit) -> None:
        """End all processes of the kernel and wait for that; `exit` says why, unless it was dead before."""
        if not self.exited.done():
            self._intended = self._intended or exit
            self.signal(signal.SIGKILL)
            # the signal waits for a frozen kernel: nothing of it runs before it ends
            self._let_go()
        await asyncio.shield(self.exited)

    async def freeze(self) -> None:
        """Take the CPU from all processes of the kernel until `thaw`, `interrupt` or `kill`. Raises KernelGone."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        if self._intended is not None:
            return
        self._frozen = True
        deadline = time.monotonic() + _FREEZE_TIMEOUT_S
        while self._frozen and not self.exited.done():
            self._freezer.freeze()
            if self._freezer.frozen or time.monotonic() > deadline:
                return
            await asyncio.sleep(_FREEZE_RETRY_S)

    async def thaw(self) -> None:
        """Let them go on. Raises KernelGone."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        self._let_go()

    def out_of_memory(self) -> bool:
        """Whether Linux had to end a process of the kernel because its cgroup was at its memory limit."""
        return self.group.out_of_memory() > 0

    def found_frozen(self) -> None:
        """A gateway before may have frozen it: let it go on. For one that was attached to."""
        self._frozen = True
        self._let_go()

    def _let_go(self) -> None:
        if self._frozen and not self.exited.done():
            self._frozen = False
            self._freezer.thaw()

    def note(self, text: str) -> None:
        """Put down on disk who leased the kernel. Raises OSError."""
        self.record.note(text)

    def let_go(self) -> None:
        """Leave it to a later gateway. `exited` is never done then."""
        if not self.exited.done() and self._settling is None:
            asyncio.get_running_loop().remove_reader(self.pidfd)
            os.close(self.pidfd)
            os.close(self.proc)


def explain(how: Ended | None, limits: Limits, *, memory_full: bool = False) -> Exit:
    """What a status means, in words. `memory_full`: native code often dies of that, and says nothing."""
    if how is None:
        return Exit(ExitReason.CRASH, "the template process that held the kernel ended, and the kernel with it")
    if how.status >= 0:
        return Exit(ExitReason.CRASH, f"the kernel's process ended by itself with exit status {how.status}")
    number = -how.status
    name = _signal_name(number)
    if number in (signal.SIGKILL, signal.SIGXCPU) and how.cpu_s >= limits.cpu_seconds * _CPU_SHARE - _CPU_TICKS_S:
        return Exit(ExitReason.KILLED, f"the kernel used up its CPU time of {limits.cpu_seconds} s")
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS):
        if memory_full:
            detail = (
                f"the kernel's process crashed with {name} when its memory limit of {limits.memory_mb} MiB was reached"
            )
            return Exit(ExitReason.MEMORY, detail)
        return Exit(ExitReason.CRASH, f"the kernel's process crashed with {name} in native code")
    return Exit(ExitReason.KILLED, f"the kernel's process was ended by {name} from outside the sandbox")


def out_of_memory(memory_mb: int) -> Exit:
    """The end of a kernel of which Linux ended a process for its memory."""
    detail = f"the kernel ran out of memory and was ended by the system; its memory limit is {memory_mb} MiB"
    return Exit(ExitReason.MEMORY, detail)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def pid_of(pidfd: int) -> int:
    """The process id, in this process's own pid namespace, behind a pidfd. Raises ProcessLookupError when it ended."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="utf-8") as file:
        for line in file:
            if line.startswith("Pid:"):
                pid = int(line.split()[1])
                if pid > 0:
                    return pid
    raise ProcessLookupError(f"no process behind pidfd {pidfd}")
