"""The memory watcher: what all processes of a kernel hold together, which no resource limit bounds.

RLIMIT_DATA stops one process that asks for too much, with a MemoryError that the cell sees. It does not count shared
memory, nor what the system itself holds for a process (page tables, sockets' queues), and counts each process for
itself; for these the watcher looks from outside and the kernel is killed.

What a kernel shares with its template (copy-on-write) is counted up to the template's own size and no further, so
that a process cannot hide memory by letting go of what it inherited. proc(5) names the fields.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kernel_pool.place import Process
from kernel_pool.process import out_of_memory
from kernel_pool.types import Exit, ExitReason

_MIB = 1024 * 1024
_KIB = 1024
#: Counted for every socket: what its queue can hold at most, which cannot be read from outside (socket(7), wmem_max).
_SOCKET_BYTES = 416 * _KIB
#: Memory of one process that counts, and the page tables for it.
_RESIDENT = ("RssAnon:", "RssShmem:", "VmSwap:", "VmPTE:")
#: By how much a kernel may be over before it is killed: MemoryError is the better end, so that limit comes first.
_MARGIN_MB = 24


@dataclass(frozen=True)
class MemoryUse:
    """Of one kernel at one moment, in bytes; what it had when it was ready does not count."""

    used: int
    limit: int
    processes: int

    @property
    def over(self) -> bool:
        return self.used > self.limit + _MARGIN_MB * _MIB

    @property
    def full(self) -> bool:
        """Whether little is left."""
        return self.used > 0.9 * self.limit

    def explain(self) -> str:
        """For the session that lost its kernel."""
        many = f"{self.processes} processes" if self.processes != 1 else "one process"
        return f"the kernel held {self.used // _MIB} MiB in {many}; its memory limit is {self.limit // _MIB} MiB"


async def watch_memory(living: Callable[[], Sequence[Process]], memory_mb: int, interval_s: float) -> None:
    """Look at all kernels that `living` names again and again, and kill those that hold too much. Never returns."""
    killing: set[asyncio.Task[None]] = set()
    while True:
        await asyncio.sleep(interval_s)
        processes = [process for process in living() if not process.exited.done()]
        # looked at through copies: a kernel that ends meanwhile closes its own
        folders = [(process, os.dup(proc)) for process in processes if (proc := process.proc) is not None]
        try:
            looks = await asyncio.to_thread(_measure_all, folders, memory_mb)
        finally:
            for _, proc in folders:
                os.close(proc)
        for (process, _), (use, lost_one) in zip(folders, looks, strict=True):
            process.memory_full = use.full
            # Linux may have ended one process of many; a kernel that lost one that way is not what its session thinks
            exit = out_of_memory(memory_mb) if lost_one else None
            if use.over or exit:
                exit = exit or Exit(ExitReason.MEMORY, use.explain())
                task = asyncio.create_task(process.kill(exit))
                killing.add(task)
                task.add_done_callback(killing.discard)


def _measure_all(folders: list[tuple[Process, int]], memory_mb: int) -> list[tuple[MemoryUse, bool]]:
    """Of each kernel what it holds, and whether Linux ended a process of it for its memory."""
    return [(measure(proc, memory_mb, process.baseline), process.out_of_memory()) for process, proc in folders]


def measure(proc: int, memory_mb: int, baseline: int) -> MemoryUse:
    """Look at the kernel whose /proc is open as `proc`. `baseline`: bytes that it held when it was ready.

    Cheap when there is nothing to see: the exact figure is asked for only when resident sizes, which count shared
    pages several times, are above the limit. What cannot be read counts in full.
    """
    limit = memory_mb * _MIB
    upper = {pid: _fields(proc, f"{pid}/status", _RESIDENT) or 0 for pid in _pids(proc)}
    queues = _sockets(proc) * _SOCKET_BYTES
    use = MemoryUse(max(0, sum(upper.values()) + queues - baseline), limit, len(upper))
    if not use.over:
        return use
    exact = queues
    for pid, most in upper.items():
        proportional = _fields(proc, f"{pid}/smaps_rollup", ("Pss_Anon:", "Pss_Shmem:", "SwapPss:"))
        exact += most if proportional is None else proportional + (_fields(proc, f"{pid}/status", ("VmPTE:",)) or 0)
    return MemoryUse(max(0, exact - baseline), limit, len(upper))


def baseline_bytes(proc: int) -> int:
    """What a kernel that has just started holds by the same count."""
    return (_fields(proc, "1/status", _RESIDENT) or 0) + _sockets(proc) * _SOCKET_BYTES


def _sockets(proc: int) -> int:
    """Sockets of all kinds in the kernel's network namespace, those without a descriptor included."""
    try:
        with open(os.open("1/net/sockstat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc), encoding="utf-8") as file:
            return int(file.readline().split()[2])
    except (OSError, IndexError, ValueError):
        return 0  # the kernel has ended


def _pids(proc: int) -> list[str]:
    try:
        return [name for name in os.listdir(proc) if name.isdigit()]
    except OSError:
        return []  # the kernel has ended


def _fields(proc: int, path: str, names: tuple[str, ...]) -> int | None:
    """Sum of fields in kB, as bytes; None when the file cannot be read, 0 when the process has ended."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except OSError:
        return None
    with open(fd, encoding="utf-8", errors="replace") as file:
        try:
            return sum(int(line.split()[1]) for line in file if line.startswith(names)) * _KIB
        except ProcessLookupError:
            return 0
        except OSError:
            return None
