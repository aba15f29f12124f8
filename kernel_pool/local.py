"""Kernels on this machine: one template in its sandbox, and the kernels that it forks.

`LocalPlace` is the `Place` of a machine without containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kernel_pool.cgroup_groups import KernelGroup, PlaceGroups
from kernel_pool.ended import EndedKernel, FoundKernel
from kernel_pool.generation import generation, installed
from kernel_pool.isolation import IsolationReport, probe
from kernel_pool.kernel_limits import cgroups_for, join, limit_memory, make_group
from kernel_pool.launcher import Template, find_template, start_template
from kernel_pool.leases import Lease, Record
from kernel_pool.place import Found, Process
from kernel_pool.process import KernelProcess, explain, pid_of
from kernel_pool.runtime_dir import RuntimeDir, end_template
from kernel_pool.template_client import Packets, TemplateClient
from kernel_pool.types import Exit, ExitReason, PlaceConfig, StartFailed
from kernel_pool.user_ids import UserIds
from kernel_pool.watch import baseline_bytes

_log = logging.getLogger(__name__)

#: Of a living kernel: pidfd and /proc.
_DESCRIPTORS = 2


class LocalPlace:
    """A template on this machine, started again when it was lost."""

    def __init__(self, config: PlaceConfig) -> None:
        self._config = config
        self._runtime = RuntimeDir(config.runtime_dir)
        self._template: Template | None = None
        self._groups: PlaceGroups | None = None
        self._turn = asyncio.Lock()
        self._uids = UserIds(config.uid_range)
        self._processes: dict[str, KernelProcess] = {}
        self._open = False
        self.isolation: IsolationReport | None = None

    async def start(self) -> None:
        """Check the machine, go on with the template that an earlier gateway left or bring a new one up.

        Raises IsolationUnavailable, or StartFailed with what the template said.
        """
        if not self._config.draining:
            self.isolation = await asyncio.to_thread(probe, self._config.uid_range[0])
            self.isolation.require()
        _raise_file_limit()
        cgroups = await asyncio.to_thread(cgroups_for, self._config.cgroups)
        if self.isolation is not None:
            self.isolation = replace(self.isolation, cgroups=cgroups.summary())
        await asyncio.to_thread(self._runtime.open)
        self._open = True
        try:
            self._groups = PlaceGroups(cgroups, self._config.runtime_dir)
            self._template = await self._find_template()
            living = self._template.client.living if self._template else {}
            await asyncio.to_thread(self._groups.open, tuple(living))
            if not self._config.draining:
                await self._warm_template()
        except BaseException:
            await self.close()
            raise

    async def _find_template(self) -> Template | None:
        """What lives here, if it is ours to go on with; else the folder is cleared."""
        generation = "" if self._config.draining else await asyncio.to_thread(lambda: self.generation)
        if self._config.draining or self._runtime.is_of(generation):
            template = await find_template(self._config, self._runtime)
            if template is not None:
                return template
        await asyncio.to_thread(end_template, self._runtime.control)
        await asyncio.to_thread(self._runtime.lay_out, self._config.files, generation)
        return None

    @property
    def generation(self) -> str:
        """Digest of all that a new kernel of this place would be made from. Blocks: files are read."""
        return generation(self._config, "local", installed())

    async def attach(self) -> Sequence[Found]:
        """Take over the kernels that an earlier gateway left here; those that ended meanwhile, if they were leased."""
        records = await asyncio.to_thread(self._runtime.leases.found)
        client = self._template.client if self._template is not None else None
        found: list[Found] = []
        for record in records:
            lease = record.lease
            if client is not None and len(client.living.get(lease.id, ())) == _DESCRIPTORS:
                process: Process = self._take_over(client, record)
            elif lease.note:
                how = client.ended_before.get(lease.id) if client is not None else None
                exit = explain(how, self._config.profile.limits) if how else _ended_alone(self._config.orphan_grace_s)
                process = EndedKernel.of(lease.id, self._runtime.kernels / lease.id, lease.uid, exit)
            else:
                await asyncio.to_thread(self._runtime.remove_kernel, lease.id)
                continue
            self._uids.add(lease.uid or -1)
            found.append(FoundKernel(process, lease.note))
        if client is not None:
            for kernel in tuple(client.living):  # a start that the gateway did not live to finish
                await self._end_unknown(client, kernel)
        return found

    def _take_over(self, client: TemplateClient, record: Record) -> KernelProcess:
        assert self._groups is not None
        lease = record.lease
        pidfd, proc = client.take(lease.id)
        try:
            pid = pid_of(pidfd)
        except ProcessLookupError:
            pid = 0  # ended since: its pidfd says so at once
        process = KernelProcess(
            id=lease.id,
            directory=self._runtime.kernels / lease.id,
            key=bytes.fromhex(lease.key),
            pid=pid,
            pidfd=pidfd,
            proc=proc,
            uid=lease.uid,
            limits=self._config.profile.limits,
            exited=asyncio.get_running_loop().create_future(),
            baseline=lease.baseline,
            group=self._groups.of(lease.id) or KernelGroup(lease.id, ()),
            record=record,
        )
        process.found_frozen()
        process.watch_end(client)
        self._keep(process)
        return process

    async def _end_unknown(self, client: TemplateClient, kernel: str) -> None:
        fds = client.take(kernel)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fds[0], signal.SIGKILL)
        for fd in fds:
            os.close(fd)
        await client.ended(kernel, self._config.start_timeout_s)
        await asyncio.to_thread(self._remove_group, kernel)
        await asyncio.to_thread(self._runtime.remove_kernel, kernel)

    def _keep(self, process: KernelProcess) -> None:
        self._processes[process.id] = process
        process.exited.add_done_callback(lambda _: self._processes.pop(process.id, None))

    async def leave(self) -> None:
        """Let go of everything without ending a kernel: a later gateway attaches."""
        self._open = False
        async with self._turn:
            for process in tuple(self._processes.values()):
                process.let_go()
            self._processes.clear()
            if self._template is not None:
                await self._template.let_go()
                self._template = None
            self._groups = None
            self._uids.close()
            self._runtime.leave()

    async def close(self) -> None:
        """End the template and with it every kernel, then remove the runtime folder."""
        self._open = False
        async with self._turn:
            if self._template is not None:
                if self._groups is not None:
                    await asyncio.to_thread(self._groups.thaw)
                await self._template.stop()
                self._template = None
            if self._groups is not None:
                await asyncio.to_thread(self._groups.close)
                self._groups = None
            await asyncio.to_thread(self._runtime.close)
            self._uids.close()

    async def spawn(self, key: bytes | None = None) -> KernelProcess:
        """Fork a kernel into a sandbox of its own and wait until it serves its channels. Raises StartFailed."""
        client = (await self._warm_template()).client
        kernel, key = secrets.token_hex(6), key or secrets.token_hex(16).encode()
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
        await asyncio.to_thread(self._remove_group, process.id)
        self._uids.discard(process.uid or -1)

    def _remove_group(self, kernel: str) -> None:
        group = self._groups.of(kernel) if self._groups is not None else None
        if group is not None and not group.remove():
            _log.warning("the cgroup of kernel %s still holds processes; it is removed when the place closes", kernel)

    async def _warm_template(self) -> Template:
        """The running template; a new one when it was lost."""
        async with self._turn:
            if not self._open:
                raise StartFailed("the pool is closed")
            if self._template is not None and not self._template.alive:
                await self._template.stop()
                self._template = None
            if self._template is None:
                self._template = await start_template(
                    self._config, self._runtime, self._groups.folders if self._groups else ()
                )
            return self._template

    def _forget(self, kernel: str, uid: int | None) -> None:
        self._runtime.remove_kernel(kernel)
        self._uids.discard(uid or -1)

    def _take_uid(self) -> int | None:
        """As root, a user id that no living kernel has."""
        return self._uids.take() if os.getuid() == 0 else None

    async def _fork(
        self, client: TemplateClient, kernel: str, uid: int | None, key: bytes, directory: Path
    ) -> KernelProcess:
        assert self._groups is not None
        limits = self._config.profile.limits
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.send(key)
        status = Packets(ours)
        proc = pidfd = -1
        joining: asyncio.Task[None] | None = None
        making = asyncio.create_task(asyncio.to_thread(make_group, self._groups, kernel, limits))
        try:
            with theirs:
                pidfd = await client.fork(kernel, uid, theirs)
            group, pid = await making, pid_of(pidfd)
            # takes milliseconds, in which the kernel shuts itself in and starts: foreign code it runs only when ready
            joining = asyncio.create_task(asyncio.to_thread(join, group, pid))
            (proc,) = await _report(status, kernel, "proc")
            await _report(status, kernel, "ready")
            await joining
            baseline = baseline_bytes(proc)
            await asyncio.to_thread(limit_memory, group, limits, baseline)
            process = KernelProcess(
                id=kernel,
                directory=directory,
                key=key,
                pid=pid,
                pidfd=pidfd,
                proc=proc,
                uid=uid,
                limits=limits,
                exited=asyncio.get_running_loop().create_future(),
                baseline=baseline,
                group=group,
                record=await asyncio.to_thread(self._runtime.leases.add, Lease(kernel, key.hex(), uid, baseline)),
            )
            client.keep(kernel, proc)
        except BaseException:
            if pidfd >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            for fd in (pidfd, proc):
                if fd >= 0:
                    os.close(fd)
            await asyncio.wait([task for task in (making, joining) if task])
            await asyncio.to_thread(self._remove_group, kernel)
            raise
        finally:
            status.close()
        process.watch_end(client)
        self._keep(process)
        return process


def _ended_alone(grace_s: float) -> Exit:
    """For a kernel of which nobody can tell any more how it ended."""
    return Exit(
        ExitReason.CRASH,
        f"the kernel ended while no gateway was there, with the template process that held it; without a gateway that "
        f"is after {grace_s:g} s",
    )


def _raise_file_limit() -> None:
    """Let this process, and the template after it, have more files open than kernels may.

    As an ordinary user all have one allowance of descriptors that are on their way through sockets, and what is
    allowed is each process's limit on files (unix(7), ETOOMANYREFS): a kernel with the same limit could use it up,
    and no other kernel could be started.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _report(status: Packets, kernel: str, expected: str) -> list[int]:
    """Wait for a new kernel's next report; returns the descriptors that came with it. Raises StartFailed."""
    received = await status.receive()
    if received is None:
        raise StartFailed(f"kernel {kernel} ended before it was ready")
    message, fds = received
    if message["op"] != expected:
        for fd in fds:
            os.close(fd)
        raise StartFailed(f"kernel {kernel} could not start: {message.get('error', message['op'])}")
    return fds
