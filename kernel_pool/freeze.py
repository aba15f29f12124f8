"""Taking the CPU from a kernel, and giving it back, where there is no cgroup that can: by SIGSTOP and SIGCONT.

Every process of the kernel is stopped, found through the kernel's own /proc; until a look finds all of them stopped, a
process may have started another. Signals go to the folders in /proc (pidfd_send_signal(2) takes them): never to a
process that took over a number. A process that stood still before is left so at the end.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Protocol


class Freezer(Protocol):
    """What `KernelProcess` needs; `cgroup_groups.KernelGroup` is another one. All methods block for a moment only."""

    def freeze(self) -> None:
        """Begin; to be called until it is `frozen`."""

    def thaw(self) -> None: ...

    @property
    def frozen(self) -> bool:
        """Whether no process of the kernel runs any more."""


class SignalFreezer:
    """Of the kernel whose /proc is open as `proc`. The folder belongs to the caller."""

    def __init__(self, proc: int) -> None:
        self._proc = proc
        self._stopped: set[str] = set()

    def freeze(self) -> None:
        for pid, state in self._states().items():
            if state not in "Tt":
                self._signal(pid, signal.SIGSTOP)
                self._stopped.add(pid)

    def thaw(self) -> None:
        """Of a kernel that another gateway froze, all processes are continued."""
        states = self._states()
        pids = self._stopped if self._stopped else set(states) if states.get("1", "") == "T" else set()
        # the first process last: it finds its children as it left them
        for pid in sorted(pids, key=int, reverse=True):
            self._signal(pid, signal.SIGCONT)
        self._stopped = set()

    @property
    def frozen(self) -> bool:
        # of a process whose first thread has ended (Z) the state says nothing; it has got the signal
        return all(state in "Tt" or (state in "ZX" and pid in self._stopped) for pid, state in self._states().items())

    def _states(self) -> dict[str, str]:
        """State letter (proc(5), stat) of each process."""
        states = {}
        with contextlib.suppress(OSError):
            for pid in os.listdir(self._proc):
                if pid.isdigit() and (state := self._state(pid)):
                    states[pid] = state
        return states

    def _state(self, pid: str) -> str:
        try:
            with open(os.open(f"{pid}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc), "rb") as file:
                return file.read().rpartition(b")")[2].split()[0].decode()
        except (OSError, IndexError):
            return ""  # it has ended

    def _signal(self, pid: str, number: int) -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            process = os.open(pid, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc)
            try:
                signal.pidfd_send_signal(process, number)
            finally:
                os.close(process)
