"""What a gateway does with the kernels that one before it left: as they were leased, into the stock, or away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from kernel_pool.channels import Channels
from kernel_pool.kernel import Kernel
from kernel_pool.lease_note import LeaseNote, read_note
from kernel_pool.place import Found, Process
from kernel_pool.sites import Site
from kernel_pool.stock import Connect, Stock
from kernel_pool.types import Exit, ExitReason, KernelPoolError

_LEFT = Exit(ExitReason.SHUTDOWN, "an earlier gateway left it without a session")
_SILENT = Exit(ExitReason.UNHEALTHY, "the kernel could not be reached any more when the gateway came back")
#: Time for a kernel that was in stock to show that it still answers.
_ANSWER_S = 5.0
#: Time for the news of the end of one that cannot be reached.
_NEWS_S = 3.0


async def take_over(stock: Stock, folders: Sequence[str], connect: Connect) -> dict[str, Kernel]:
    """Attach to what lives in the folders of a profile. Returns the leased kernels by their note.

    A kernel that was never leased goes into the stock if new ones would be made from the same; one that was leased by
    somebody without a name cannot be asked for again, and ends. A leased one that has ended comes back ended, so that
    whoever had it learns why. Raises IsolationUnavailable or StartFailed when the place for new kernels does not come
    up.
    """
    found = await stock.sites.take_over(folders)
    kernels = await asyncio.gather(*(_take_in(stock, site, kernel, connect) for site, kernel in found))
    return {note: kernel for entry in kernels if entry is not None for note, kernel in [entry]}


async def _take_in(stock: Stock, site: Site, found: Found, connect: Connect) -> tuple[str, Kernel] | None:
    process, note = found.process, read_note(found.note)
    keep = site is stock.sites.current if note is None else bool(note.note)
    kernel = await _reached(stock, process, connect, leased=note is not None) if keep else None
    if kernel is None and note is not None and note.note:
        # whoever leased it is told how it ended
        await asyncio.wait((process.exited,), timeout=_NEWS_S)
        await process.kill(_SILENT)
        kernel = Kernel(process, Channels(process.directory, process.key), stock.profile, 0.0)
    if kernel is None:
        await process.kill(_LEFT)
        await site.place.discard(process)
        await stock.sites.gone(site)
        return None
    if note is None:
        stock.settle(kernel, site, leased=False)
        return None
    _resume(kernel, note)
    stock.settle(kernel, site, leased=True)
    return note.note, kernel


async def _reached(stock: Stock, process: Process, connect: Connect, *, leased: bool) -> Kernel | None:
    """The kernel, if it lives and can be talked to."""
    if process.exited.done():
        return None
    try:
        async with asyncio.timeout(_ANSWER_S):
            await process.thaw()  # the gateway before may have frozen it
            # one that is leased may be in the middle of a cell, and answer when that has ended
            return await connect(process, stock.profile, not leased)
    except (KernelPoolError, TimeoutError, OSError):
        return None


def _resume(kernel: Kernel, note: LeaseNote) -> None:
    kernel.tenant, kernel.unclaimed = note.tenant, True
    kernel.born -= max(0.0, time.time() - note.born)
