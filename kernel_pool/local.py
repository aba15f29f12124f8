"""Kernels on this machine: one template in its sandbox, and the kernels that it forks.

`LocalPlace` is the `Place` of a machine without containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from itertools import count
from pathlib import Path

from kernel_pool.isolation import IsolationReport, probe
from kernel_pool.launcher import Template, start_template
from kernel_pool.place import Process
from kernel_pool.process import KernelProcess, pid_of
from kernel_pool.runtime_dir import RuntimeDir
from kernel_pool.template_client import Packets, TemplateClient
from kernel_pool.types import PoolConfig, StartFailed
from kernel_pool.watch import baseline_bytes


class LocalPlace:
    """A template on this machine, started again when it was lost."""

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._runtime = RuntimeDir(config.runtime_dir)
        self._template: Template | None = None
        self._turn = asyncio.Lock()
        self._uids = count()
        self._used_uids: set[int] = set()
        self._open = False
        self.isolation: IsolationReport | None = None

    async def start(self) -> None:
        """Check the machine, clear what a crashed gateway left, bring the template up.

        Raises IsolationUnavailable, or StartFailed with what the template said.
        """
        self.isolation = await asyncio.to_thread(probe, self._config.uid_range[0])
        self.isolation.require()
        await asyncio.to_thread(self._runtime.open, self._config.files)
        self._open = True
        try:
            await self._warm_template()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the template and with it every kernel, then remove the runtime folder."""
        self._open = False
        async with self._turn:
            if self._template is not None:
                await self._template.stop()
                self._template = None
            await asyncio.to_thread(self._runtime.close)

    async def spawn(self) -> KernelProcess:
        """Fork a kernel into a sandbox of its own and wait until it serves its channels. Raises StartFailed."""
        client = (await self._warm_template()).client
        kernel, key = secrets.token_hex(6), secrets.token_hex(16).encode()
        uid = self._take_uid()
        directory = self._runtime.add_kernel(kernel, uid)
        process: KernelProcess | None = None
        try:
            async with asyncio.timeout(self._config.start_timeout_s):
                process = await self._fork(client, kernel, uid, key, directory)
                return process
        except BaseException as error:
            if process is None:
                self._forget(kernel, uid)
            if isinstance(error, TimeoutError):
                raise StartFailed(f"kernel {kernel} was not ready in {self._config.start_timeout_s} s") from error
            raise

    async def discard(self, process: Process) -> None:
        """Remove the folder and free the user of a kernel that has ended."""
        await asyncio.to_thread(self._runtime.remove_kernel, process.id)
        self._used_uids.discard(process.uid or -1)

    async def _warm_template(self) -> Template:
        """The running template; a new one when it was lost."""
        async with self._turn:
            if not self._open:
                raise StartFailed("the pool is closed")
            if self._template is not None and not self._template.alive:
                await self._template.stop()
                self._template = None
            if self._template is None:
                self._template = await start_template(self._config, self._runtime)
            return self._template

    def _forget(self, kernel: str, uid: int | None) -> None:
        self._runtime.remove_kernel(kernel)
        self._used_uids.discard(uid or -1)

    def _take_uid(self) -> int | None:
        """As root, a user id that no living kernel has."""
        if os.getuid() != 0:
            return None
        first, size = self._config.uid_range
        for _ in range(size):
            uid = first + next(self._uids) % size
            if uid not in self._used_uids:
                self._used_uids.add(uid)
                return uid
        raise StartFailed(f"all {size} user ids for kernels are in use; raise uid_count")

    async def _fork(
        self, client: TemplateClient, kernel: str, uid: int | None, key: bytes, directory: Path
    ) -> KernelProcess:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.send(key)
        status = Packets(ours)
        proc = pidfd = -1
        try:
            with theirs:
                pidfd = await client.fork(kernel, uid, theirs)
            (proc,) = await _report(status, kernel, "confined")
            await _report(status, kernel, "ready")
            process = KernelProcess(
                id=kernel,
                directory=directory,
                key=key,
                pid=pid_of(pidfd),
                pidfd=pidfd,
                proc=proc,
                uid=uid,
                limits=self._config.limits,
                exited=asyncio.get_running_loop().create_future(),
                baseline=baseline_bytes(proc),
            )
        except BaseException:
            if pidfd >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            for fd in (pidfd, proc):
                if fd >= 0:
                    os.close(fd)
            raise
        finally:
            status.close()
        process.watch_end(client)
        return process


async def _report(status: Packets, kernel: str, expected: str) -> list[int]:
    """Wait for a new kernel's next report; returns the descriptors that came with it. Raises StartFailed."""
    received = await status.receive()
    if received is None:
        raise StartFailed(f"kernel {kernel} ended before it was {expected}")
    message, fds = received
    if message["op"] != expected:
        for fd in fds:
            os.close(fd)
        raise StartFailed(f"kernel {kernel} could not start: {message.get('error', message['op'])}")
    return fds
