"""Cells that attack, and what must be true after them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kernel_pool.pool import Kernel, Pool
from kernel_pool.types import CellResult, ExitReason, Limits

MIB = 1024 * 1024

#: A secret in the environment of the process that runs the pool.
SECRET_NAME = "KERNEL_TEST_CREDENTIAL"

#: Small enough to be filled quickly, large enough for pandas.
LIMITS = Limits(
    memory_mb=192,
    disk_mb=16,
    processes=32,
    open_files=256,
    output_bytes=MIB,
    output_flood_bytes=4 * MIB,
)

#: A file that all kernels may read.
SHARED = "shared.txt"

#: What attacks need to call the system past Python: `call(name, *arguments)` gives the errno's name, or the result.
PRELUDE = """
import ctypes, errno, os, sys
_libc = ctypes.CDLL(None, use_errno=True)

def attempt(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def call(name, *arguments):
    ctypes.set_errno(0)
    result = getattr(_libc, name)(*arguments)
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result

def syscall(number, *arguments):
    return call("syscall", ctypes.c_long(number), *arguments)
"""


def output(result: CellResult) -> str:
    """All text that a cell printed or returned."""
    texts = []
    for item in result.outputs:
        texts.append(item.get("text") or item.get("data", {}).get("text/plain") or "")
    return "".join(texts).strip()


def error(result: CellResult) -> str:
    """The error that a cell ended with, as `Name: text`."""
    assert result.error is not None, (result.status, result.reason, output(result))
    return f"{result.error.name}: {result.error.value}"


def killed_for_memory(result: CellResult) -> bool:
    assert result.status == "dead", (result.status, result.error, output(result))
    assert result.state_lost
    assert result.exit is not None
    assert result.exit.reason is ExitReason.MEMORY
    assert f"its memory limit is {LIMITS.memory_mb} MiB" in result.exit.detail
    return True


def held_back(arena: Arena, result: CellResult) -> bool:
    """Killed; or refused by gVisor, where what a process may map is limited as a whole."""
    if arena.gvisor and result.error is not None:
        return error(result) == "OSError: [Errno 12] Cannot allocate memory"
    return killed_for_memory(result)


@dataclass
class Arena:
    """A pool, and a sibling kernel with state that no attack may touch."""

    pool: Pool
    sibling: Kernel
    #: "local", "runc" or "runsc".
    place: str = "local"
    #: For probes, which leave nothing behind; a container for each would take minutes.
    _prober: Kernel | None = field(default=None, init=False)

    @property
    def contained(self) -> bool:
        """In a container, which has more to show than a local sandbox; none of it is the host's."""
        return self.place != "local"

    @property
    def gvisor(self) -> bool:
        """Behind a kernel of its own, which may allow what then means nothing outside."""
        return self.place == "runsc"

    async def prepare(self) -> None:
        await self.sibling.execute("state = 'untouched'", deadline_s=30)

    @asynccontextmanager
    async def attacker(self) -> AsyncIterator[Kernel]:
        """A kernel for one attack. After it the sibling still has its state, and the pool still leases."""
        kernel = await self.pool.lease()
        try:
            await kernel.execute(PRELUDE, deadline_s=30)
            yield kernel
        finally:
            await self.pool.release(kernel)
        await self.check_unharmed()

    async def check_unharmed(self) -> None:
        result = await self.sibling.execute("print(state, sum(range(1000)))", deadline_s=30)
        assert (result.status, output(result)) == ("ok", "untouched 499500")
        if self.contained:
            return  # the next attacker's lease shows the same, and a container more for each attack takes seconds
        fresh = await self.pool.lease()
        result = await fresh.execute("'state' in globals()", deadline_s=30)
        await self.pool.release(fresh)
        assert (result.status, output(result)) == ("ok", "False")

    async def probe(self, code: str, deadline_s: float = 30) -> CellResult:
        """Run `code`, which neither changes nor leaves anything, in a kernel that all probes of a module share."""
        if self._prober is None or self._prober.exited.done():
            if self._prober is not None:
                await self.pool.release(self._prober)
            self._prober = await self.pool.lease()
            await self._prober.execute(PRELUDE, deadline_s=30)
        result = await self._prober.execute(code, deadline_s=deadline_s)
        sibling = await self.sibling.execute("print(state)", deadline_s=30)
        assert output(sibling) == "untouched"
        return result

    async def attack(self, code: str, deadline_s: float = 30) -> CellResult:
        """Run `code` in a kernel of its own, then check that nobody else was harmed."""
        async with self.attacker() as kernel:
            return await kernel.execute(code, deadline_s=deadline_s)
