"""What a kernel's processes have used of the CPU, as the machine counts it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

#: Long enough for a kernel that runs to be seen running: CPU time is counted in ticks of 10 ms.
LOOK_S = 0.3


def descendants(pid: int) -> list[int]:
    """A process and all that it and its children started, as this process sees their ids."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            children.setdefault(int(_stat(int(name))[1]), []).append(int(name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def _stat(pid: int) -> list[str]:
    """Fields of proc(5)'s stat from the third on. Raises OSError when it has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def lives(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def cpu_ticks(pid: int) -> int:
    """CPU time of a process and all below it, in clock ticks (proc(5), stat)."""
    total = 0
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            total += sum(map(int, _stat(each)[11:13]))
    return total


async def ticks_used(pid: int) -> int:
    """What it uses in `LOOK_S`."""
    before = cpu_ticks(pid)
    await asyncio.sleep(LOOK_S)
    return cpu_ticks(pid) - before


async def until_busy(pid: int, processes: int = 1) -> None:
    """Wait until so many processes are there and they use CPU time."""
    while not await ticks_used(pid) or len(descendants(pid)) < processes:
        pass
