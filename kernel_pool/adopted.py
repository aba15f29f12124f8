"""A kernel that another process started and looks after, for a provisioner that was told where to find it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, field
from typing import Any, cast

from jupyter_client.asynchronous.client import AsyncKernelClient

from kernel_pool.types import Exit, ExitReason, KernelGone

_ENDED = Exit(ExitReason.KILLED, "the kernel ended; who started it knows how")
_NONE = Exit(ExitReason.KILLED, "there is no such kernel any more")
_REPLY_TIMEOUT_S = 5.0


@dataclass
class AdoptedProcess:
    """Known by its first process alone: a pidfd that turns readable at its end."""

    pid: int
    pidfd: int
    connection_info: dict[str, Any] = field(repr=False)
    exited: asyncio.Future[Exit]
    _intended: Exit | None = None
    _interrupts: set[asyncio.Task[None]] = field(default_factory=set)

    def watch_end(self) -> None:
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.exited.set_result(self._intended or _ENDED)

        loop.add_reader(self.pidfd, ended)

    def interrupt(self) -> None:
        """By message: the signal is for whoever started the kernel to send."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        task = asyncio.create_task(_request_interrupt(self.connection_info))
        self._interrupts.add(task)
        task.add_done_callback(self._interrupts.discard)

    async def kill(self, exit: Exit) -> None:
        """End the kernel and wait for it. Raises PermissionError where it belongs to another user."""
        if not self.exited.done():
            self._intended = self._intended or exit
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        await asyncio.shield(self.exited)

    async def freeze(self) -> None:
        """Not for a kernel of somebody else's."""

    async def thaw(self) -> None:
        """Not for a kernel of somebody else's."""


async def adopt(pid: int, connection_info: Any) -> AdoptedProcess:
    """Find a kernel by its first process; its sockets show that it is still the same. Raises KernelGone."""
    try:
        pidfd = os.pidfd_open(pid)
        os.stat(f"{connection_info['ip']}-{connection_info['shell_port']}")
    except OSError:
        raise KernelGone(_NONE) from None
    found = AdoptedProcess(
        pid, pidfd, cast("dict[str, Any]", connection_info), asyncio.get_running_loop().create_future()
    )
    found.watch_end()
    return found


async def _request_interrupt(connection_info: dict[str, Any]) -> None:
    client = AsyncKernelClient()
    client.load_connection_info(cast(Any, connection_info))
    client.start_channels(shell=False, iopub=False, stdin=False, hb=False)
    try:
        client.control_channel.send(client.session.msg("interrupt_request", {}))
        with contextlib.suppress(Exception):  # no answer: nothing more can be done from here
            await client.get_control_msg(timeout=_REPLY_TIMEOUT_S)
    finally:
        client.stop_channels()
