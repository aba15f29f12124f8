"""The limit on one process's private memory, set so that the cell that runs into it fails and its kernel does not.

A cell that catches MemoryError, or keeps what it filled memory with in a variable, would leave the kernel no byte to
answer with, and the messaging library ends the process when it gets none. So cells run under the soft limit, and
between cells the kernel has a small reserve up to the hard one. The next cell gets a little of it too, enough to
let go of something.
"""

from __future__ import annotations

import resource
from types import TracebackType
from typing import Any

_MIB = 1024 * 1024
_RESERVE_MB = 12
#: What a cell gets at least, until the reserve is used up.
_STEP_MB = 2
#: Where the address space is limited, libraries that a cell loads count; this much of them is free.
_LIBRARIES_MB = 64


def data_bytes() -> int:
    """Bytes of this process that RLIMIT_DATA counts (`data` in proc(5) statm: pages, the stack included).

    0 with gVisor, which neither counts them nor keeps to that limit.
    """
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[5]) * resource.getpagesize()


def _address_bytes() -> int:
    """Bytes that RLIMIT_AS counts."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def settle_memory_limit(memory_mb: int) -> None:
    """Limit private memory to what the started kernel has now and `memory_mb` on top.

    Called when the kernel's own threads run, so that a cell can use what the limit says and gets MemoryError beyond.
    """
    guard = _Guard(memory_mb)
    guard.relax()
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    shell.events.register("pre_execute", guard.tighten)
    shell.events.register("post_execute", guard.relax)
    shell.set_custom_exc((MemoryError,), guard.explain)


class _Guard:
    def __init__(self, memory_mb: int) -> None:
        self._memory_mb = memory_mb
        if data_bytes():
            self._kind, self._used, spare_mb = resource.RLIMIT_DATA, data_bytes, 0
        else:
            self._kind, self._used, spare_mb = resource.RLIMIT_AS, _address_bytes, _LIBRARIES_MB
        self._soft = self._used() + (memory_mb + spare_mb) * _MIB
        self._hard = self._soft + _RESERVE_MB * _MIB

    def tighten(self) -> None:
        """Before a cell."""
        soft = max(self._soft, self._used() + _STEP_MB * _MIB)
        self._set(min(soft, self._hard))

    def relax(self) -> None:
        """After a cell: the kernel has to answer."""
        self._set(self._hard)

    def explain(
        self,
        shell: Any,
        kind: type[BaseException],
        error: BaseException,
        traceback: TracebackType | None,
        tb_offset: int | None = None,
    ) -> None:
        """Show a MemoryError of a cell, in words."""
        self.relax()
        if not error.args:
            error.args = (f"the kernel's memory limit of {self._memory_mb} MiB is reached",)
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)

    def _set(self, soft: int) -> None:
        try:
            resource.setrlimit(self._kind, (soft, self._hard))
        except (OSError, ValueError):
            self._hard = resource.getrlimit(self._kind)[1]  # a cell has lowered it for itself
