"""One kernel, from the moment that it is ready until it is gone: what the pool hands out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path

from kernel_pool.channels import Channels, Request
from kernel_pool.execution import execute, resume
from kernel_pool.outputs import Earlier, Overflow, Sink
from kernel_pool.place import Process
from kernel_pool.stdin import Ask
from kernel_pool.types import CellResult, Exit, KernelGone, KernelPoolError, Profile


class Kernel:
    """One isolated kernel, for one lease."""

    def __init__(self, process: Process, channels: Channels, profile: Profile, interrupt_grace_s: float) -> None:
        self.id = process.id
        self.directory: Path = process.directory
        #: Where this kernel, and no other, looks for its broker; the gateway makes the socket.
        self.broker_path: Path = process.directory / "broker.sock"
        self.pid = process.pid
        #: Done when all processes of the kernel have ended.
        self.exited: asyncio.Future[Exit] = process.exited
        self.channels = channels
        self.process = process
        self.profile = profile
        #: Whose lease it is; "" for nobody's in particular.
        self.tenant = ""
        #: When it became ready and when it was last used (loop time).
        self.born = self.used = asyncio.get_running_loop().time()
        #: Probes in a row that it did not answer.
        self.silent = 0
        self.frozen = False
        #: An earlier gateway leased it, and nobody has adopted it yet: it may be in the middle of a cell.
        self.unclaimed = False
        self._users = 0
        self._thawing = asyncio.Lock()
        self._interrupt_grace_s = interrupt_grace_s

    @property
    def busy(self) -> bool:
        """Somebody uses it at this moment: it runs a cell, or is about to."""
        return self._users > 0

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """Hold the kernel thawed and out of the pool's upkeep for as long as the block runs. Raises KernelGone."""
        await self.hold()
        try:
            yield
        finally:
            self.let_go()

    async def hold(self) -> None:
        """As `in_use`, until `let_go`. Raises KernelGone, and holds nothing then."""
        self._users += 1
        try:
            await self._thaw()
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        """The end of one `hold`."""
        self._users -= 1
        self.used = asyncio.get_running_loop().time()

    async def execute(
        self,
        code: str,
        *,
        deadline_s: float,
        on_output: Sink | None = None,
        user_expressions: Mapping[str, str] | None = None,
        cell_id: str = "",
        msg_id: str | None = None,
        silent: bool = False,
        ask: Ask | None = None,
        request: Request | None = None,
        overflow: Overflow | None = None,
    ) -> CellResult:
        """Run a cell; see `execution.execute`. Raises KernelGone when the kernel ended before the cell began."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        async with self.in_use():
            return await execute(
                self.channels,
                code,
                deadline_s=deadline_s,
                interrupt_grace_s=self._interrupt_grace_s,
                limits=self.profile.limits,
                interrupt=self.interrupt,
                kill=self.kill,
                exited=self.exited,
                on_output=on_output,
                user_expressions=user_expressions,
                cell_id=cell_id,
                msg_id=msg_id,
                silent=silent,
                ask=ask,
                request=request,
                overflow=overflow,
            )

    async def resume(
        self,
        msg_id: str,
        *,
        deadline_s: float,
        on_output: Sink | None = None,
        allowed_s: float | None = None,
        started: datetime | None = None,
        overflow: Overflow | None = None,
        earlier: Earlier | None = None,
    ) -> CellResult:
        """Go on with a cell that an earlier gateway sent as `msg_id`; see `execution.resume`.

        Raises CellUnknown, or KernelGone when the kernel has ended.
        """
        if self.exited.done():
            raise KernelGone(self.exited.result())
        async with self.in_use():
            return await resume(
                self.channels,
                msg_id,
                deadline_s=deadline_s,
                interrupt_grace_s=self._interrupt_grace_s,
                limits=self.profile.limits,
                interrupt=self.interrupt,
                kill=self.kill,
                exited=self.exited,
                on_output=on_output,
                allowed_s=allowed_s,
                started=started,
                keeps=self.profile.kernel == "forked",
                overflow=overflow,
                earlier=earlier,
            )

    async def interrupt(self) -> None:
        """Stop the running cell: by message, and by signal if the kernel does not confirm it. Raises KernelGone."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        async with self.in_use():
            if not await self.channels.interrupt():
                with contextlib.suppress(KernelGone):
                    self.process.interrupt()

    async def kill(self, exit: Exit) -> None:
        """End the kernel and all its processes, and wait for it; `exit` says why."""
        await self.process.kill(exit)

    async def probe(self, timeout_s: float) -> bool:
        """Whether its service thread answers in time. Counts the silence in `silent`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.channels.request("control", "kernel_info_request", {})
        except (TimeoutError, KernelPoolError):
            self.silent += 1
            return False
        self.silent = 0
        return True

    async def freeze(self) -> None:
        """Take the CPU from it until it is used. Nothing happens where it is in use. Raises KernelGone."""
        async with self._thawing:
            if self.frozen or self.busy:
                return
            self.frozen = True
            await self.process.freeze()

    async def _thaw(self) -> None:
        if not self.frozen and not self._thawing.locked():
            return
        async with self._thawing:
            if self.frozen:
                await self.process.thaw()
                self.frozen = False
