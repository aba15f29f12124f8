"""The seam between the pool and where its kernels live: on this machine, in containers, on a cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from kernel_pool.types import Exit


class Process(Protocol):
    """One isolated kernel, as the pool handles it."""

    #: The memory watcher last saw it with its memory all but used up.
    memory_full: bool

    @property
    def id(self) -> str: ...

    @property
    def directory(self) -> Path:
        """Holds the kernel's channel sockets; its broker listens there."""

    @property
    def key(self) -> bytes:
        """Signs the messages."""

    @property
    def pid(self) -> int:
        """Its first process on this machine."""

    @property
    def uid(self) -> int | None:
        """The system user that it runs as, if it has one of its own."""

    @property
    def exited(self) -> asyncio.Future[Exit]:
        """Done when all processes of the kernel have ended."""

    @property
    def proc(self) -> int | None:
        """Open folder with the kernel's processes, for the memory watcher; None where the place limits memory."""

    @property
    def baseline(self) -> int:
        """Bytes of memory that do not count."""

    def interrupt(self) -> None:
        """SIGINT to the kernel and what it runs in its foreground. Raises KernelGone."""

    async def kill(self, exit: Exit) -> None:
        """End all processes of the kernel and wait for it; `exit` says why, unless it was dead before."""


class Place(Protocol):
    """Where kernels live. The pool knows no more of it than this."""

    async def start(self) -> None:
        """Get ready to spawn. Raises IsolationUnavailable or StartFailed."""

    async def spawn(self) -> Process:
        """Start one isolated kernel and wait until its channels are served. Raises StartFailed."""

    async def discard(self, process: Process) -> None:
        """Remove what a kernel that has ended left behind."""

    async def close(self) -> None:
        """End everything and leave nothing behind. Safe to call again."""
