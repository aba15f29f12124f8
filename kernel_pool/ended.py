"""What a place finds of an earlier gateway: kernels that live, and those that ended while nobody looked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from kernel_pool.place import Process
from kernel_pool.types import Exit, KernelGone


@dataclass(frozen=True)
class FoundKernel:
    """See `place.Found`."""

    process: Process
    note: str


@dataclass
class EndedKernel:
    """A kernel that has ended; it is there to say why. See `place.Process`."""

    id: str
    directory: Path
    key: bytes = field(repr=False)
    uid: int | None
    exited: asyncio.Future[Exit]
    pid: int = 0
    proc: None = None
    baseline: int = 0
    memory_full: bool = False

    @classmethod
    def of(cls, kernel: str, directory: Path, uid: int | None, exit: Exit) -> EndedKernel:
        exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        exited.set_result(exit)
        return cls(kernel, directory, b"", uid, exited)

    def interrupt(self) -> None:
        raise KernelGone(self.exited.result())

    async def kill(self, exit: Exit) -> None:
        """Nothing is left to end."""

    async def freeze(self) -> None:
        raise KernelGone(self.exited.result())

    async def thaw(self) -> None:
        raise KernelGone(self.exited.result())

    def out_of_memory(self) -> bool:
        return False

    def note(self, text: str) -> None:
        raise KernelGone(self.exited.result())
