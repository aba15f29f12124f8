"""The seam between the pool and where its kernels live: on this machine, in containers, on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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

    def out_of_memory(self) -> bool:
        """Whether Linux had to end a process of the kernel because its cgroup was at its memory limit."""

    async def freeze(self) -> None:
        """Take the CPU from all processes of the kernel until `thaw`. Safe to call again. Raises KernelGone."""

    async def thaw(self) -> None:
        """Let them go on. Safe to call again. Raises KernelGone."""

    def note(self, text: str) -> None:
        """Put down on disk who leased the kernel; a later gateway's `Place.attach` reads it. Blocks for one write."""


class Found(Protocol):
    """A kernel that outlived the gateway before, or ended meanwhile: then it is `exited`, and says why."""

    @property
    def process(self) -> Process: ...

    @property
    def note(self) -> str:
        """What that gateway put down; "" for a kernel that was never leased."""


class Place(Protocol):
    """Where kernels live. The pool knows no more of it than this."""

    @property
    def generation(self) -> str:
        """Digest of all that a new kernel of this place would be made from: image or code, preloads, files, limits.

        Known before `start`, and the same for equal configurations in whatever folder: the pool asks a place that it
        never starts, and names the folder after it. May block (files are read, a daemon is asked): call it in a thread.
        """

    async def start(self) -> None:
        """Get ready to spawn. Kernels that outlived a gateway and can be attached to are left alone.

        With `PlaceConfig.draining` nothing is made ready: the place is for what lives there.

        Raises IsolationUnavailable or StartFailed.
        """

    async def attach(self) -> Sequence[Found]:
        """Take over the kernels that an earlier gateway left here. Once, after `start`.

        Those that live, and of those that have ended the ones that were leased.
        """

    async def spawn(self, key: bytes | None = None) -> Process:
        """Start one isolated kernel and wait until its channels are served. Raises StartFailed.

        `key` signs its messages, 32 bytes of hexadecimal digits; a new one unless the kernel succeeds another.
        """

    async def discard(self, process: Process) -> None:
        """Remove what a kernel that has ended left behind."""

    async def leave(self) -> None:
        """Let go of everything without ending a kernel: a later gateway attaches. Then `close` does nothing."""

    async def close(self) -> None:
        """End everything and leave nothing behind. Safe to call again."""
