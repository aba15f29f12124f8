"""Kernels in containers: one container per kernel, so that whatever a kernel breaks is its own.

The container has no network. Kernel and gateway meet in the kernel's folder, which the container sees as /ipc: the
kernel makes its channel sockets there while only our code runs, then the gateway takes the right to write away, so
that foreign code can put nothing on the host's disk. The memory that a fork would save is not worth a container that
two tenants would share.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiodocker
from aiodocker.containers import DockerContainer
from tenacity import retry, retry_if_exception, stop_after_delay, wait_exponential

from kernel_pool.container import ContainerKernel, out_of_memory
from kernel_pool.container_check import DockerTrouble, address_of, ask, words
from kernel_pool.container_config import DockerConfig, container_config
from kernel_pool.container_found import KERNEL, OWNER, containers_of, take_over
from kernel_pool.door import Door
from kernel_pool.ended import FoundKernel
from kernel_pool.generation import generation
from kernel_pool.leases import Lease, Record
from kernel_pool.place import Found, Process
from kernel_pool.runtime_dir import RuntimeDir
from kernel_pool.seccomp import compile_filter
from kernel_pool.types import Exit, ExitReason, PlaceConfig, StartFailed
from kernel_pool.user_ids import UserIds

_TRIAL = Exit(ExitReason.SHUTDOWN, "the trial is over")
_DAEMON_TIMEOUT_S = 10.0
_RETRY_S = 1.0


class DockerPlace:
    """Starts every kernel in a new container of `DockerConfig.image`."""

    def __init__(self, config: PlaceConfig, docker: DockerConfig) -> None:
        self._config = config
        self._docker = docker
        self._runtime = RuntimeDir(config.runtime_dir)
        self._owner = hashlib.sha256(os.fsencode(config.runtime_dir)).hexdigest()[:16]
        self._client: aiodocker.Docker | None = None
        self._containers: dict[str, DockerContainer] = {}
        self._kernels: dict[str, ContainerKernel] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._uids = UserIds(config.uid_range)
        self._baseline: int | None = None
        self._seccomp = b""

    async def start(self) -> None:
        """Check daemon, runtime and image; find what an earlier gateway left; try and measure a first container.

        Raises IsolationUnavailable with what is missing and the command that brings it, or StartFailed.
        """
        self._seccomp = await asyncio.to_thread(compile_filter, loopback=self._config.profile.kernel == "stock")
        client = self._client = aiodocker.Docker(url=address_of(self._docker))
        try:
            daemon = await ask(self._docker, client)
            if daemon.silence or not self._config.draining:
                daemon.require(self._docker.runtime)
            await asyncio.to_thread(self._runtime.open)
            await self._find_containers(client, self._generation(daemon.image_id))
            self._watcher = asyncio.create_task(self._watch_memory(client))
            if self._baseline is None and not self._config.draining:
                self._baseline = await self._measure_one()
                await asyncio.to_thread(self._runtime.set_baseline, self._baseline)
        except BaseException:
            await self.close()
            raise

    async def _find_containers(self, client: aiodocker.Docker, generation: str) -> None:
        """Keep those that an earlier gateway left if they are ours to go on with; else clear the folder."""
        try:
            self._containers = await containers_of(client, self._owner)
        except DockerTrouble as error:
            raise StartFailed(f"Docker does not tell which containers there are: {words(error)}") from error
        self._baseline = self._runtime.baseline
        # none was leased before the first was measured
        if self._config.draining or (self._runtime.is_of(generation) and self._baseline is not None):
            return
        self._baseline = None
        for kernel in tuple(self._containers):
            await self._remove(kernel, None)
        await asyncio.to_thread(self._runtime.lay_out, self._config.files, generation)

    async def spawn(self, key: bytes | None = None) -> ContainerKernel:
        """Start a container and wait until its kernel serves its channels. Raises StartFailed."""
        if self._client is None:
            raise StartFailed("the pool is closed")
        kernel = secrets.token_hex(6)
        uid = self._uids.take()
        try:
            async with asyncio.timeout(self._config.start_timeout_s):
                return await self._start_kernel(self._client, kernel, uid, key or secrets.token_hex(16).encode())
        except BaseException as error:
            said = await self._log_of(kernel) if isinstance(error, TimeoutError | StartFailed) else ""
            await self._remove(kernel, uid)
            if isinstance(error, TimeoutError):
                raise StartFailed(
                    f"the container of kernel {kernel} was not ready in {self._config.start_timeout_s:g} s. {said}"
                ) from error
            if isinstance(error, StartFailed):
                raise StartFailed(f"{error} {said}") from error
            if isinstance(error, DockerTrouble):
                raise StartFailed(f"Docker could not start kernel {kernel}: {words(error)}") from error
            raise

    async def discard(self, process: Process) -> None:
        """Remove the container and the folder of a kernel that has ended."""
        await self._remove(process.id, process.uid)

    @property
    def generation(self) -> str:
        """Digest of all that a new kernel of this place would be made from. Blocks: the daemon is asked."""
        return self._generation(asyncio.run(ask(self._docker)).image_id)

    def _generation(self, image: str) -> str:
        return generation(self._config, "docker", self._docker.runtime, image)

    async def attach(self) -> Sequence[Found]:
        """Take over the kernels that an earlier gateway left here; those that ended meanwhile, if they were leased."""
        records = await asyncio.to_thread(self._runtime.leases.found)
        for kernel in self._containers.keys() - {record.lease.id for record in records}:
            await self._remove(kernel, None)  # a start that the gateway did not live to finish
        found = [await self._attach_one(record) for record in records]
        return [kernel for kernel in found if kernel is not None]

    async def _attach_one(self, record: Record) -> Found | None:
        lease, config = record.lease, self._config
        directory, container = self._runtime.kernels / lease.id, self._containers.get(lease.id)
        process = await take_over(container, record, directory, config.profile.limits, config.orphan_grace_s)
        if isinstance(process, ContainerKernel):
            self._kernels[lease.id] = process
        elif not lease.note:
            await self._remove(lease.id, None)
            return None
        if lease.uid is not None:
            self._uids.add(lease.uid)
        return FoundKernel(process, lease.note)

    async def leave(self) -> None:
        """Let go of everything without ending a kernel: a later gateway attaches."""
        client, self._client = self._client, None
        if client is None:
            return
        await self._stop_watching()
        for process in self._kernels.values():
            await process.let_go()
        self._kernels.clear()
        self._containers.clear()
        await client.close()
        self._uids.close()
        await asyncio.to_thread(self._runtime.leave)

    async def close(self) -> None:
        """Remove every container and the runtime folder. Safe to call again."""
        client, self._client = self._client, None
        if client is None:
            return
        await self._stop_watching()
        if self._runtime.held:  # else they are another gateway's
            # also those that the daemon was slow to make, for a start that was given up
            with contextlib.suppress(*DockerTrouble):
                self._containers = {**await containers_of(client, self._owner), **self._containers}
        for kernel in tuple(self._containers):
            await self._remove(kernel, None)
        await client.close()
        self._uids.close()
        await asyncio.to_thread(self._runtime.close)

    async def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    async def _measure_one(self) -> int:
        """Bytes of memory that a container has whose kernel is ready: what comes on top is the kernel's own."""
        process = await self.spawn()
        try:
            samples = process.container.stats(stream=True)
            return _memory_of(await anext(samples))
        except (*DockerTrouble, KeyError, StopAsyncIteration) as error:
            raise StartFailed(f"Docker does not tell a container's memory: {words(error)}") from error
        finally:
            await process.kill(_TRIAL)
            await self.discard(process)

    async def _start_kernel(self, client: aiodocker.Docker, kernel: str, uid: int, key: bytes) -> ContainerKernel:
        # an ordinary user can give folders to groups of its own only
        group = uid if os.getuid() == 0 else os.getgid()
        directory = await asyncio.to_thread(self._make_folder, kernel, group)
        door = Door(directory / "door")
        try:
            await door.listen(group)
            container = await self._run(client, kernel, (uid, group), directory)
            await self._open(door, container, key)
            await asyncio.to_thread(directory.chmod, 0o750)
            state = (await container.show())["State"]
            record = await asyncio.to_thread(self._runtime.leases.add, Lease(kernel, key.hex(), uid, 0))
        except BaseException:
            door.close()
            raise
        process = ContainerKernel(
            id=kernel,
            directory=directory,
            key=key,
            pid=state["Pid"],
            uid=uid,
            limits=self._config.profile.limits,
            exited=asyncio.get_running_loop().create_future(),
            container=container,
            door=door,
            record=record,
        )
        process.watch_end()
        self._kernels[kernel] = process
        return process

    async def _run(
        self, client: aiodocker.Docker, kernel: str, user: tuple[int, int], directory: Path
    ) -> DockerContainer:
        document = container_config(
            self._docker,
            self._config.profile.limits,
            user=user,
            ipc=directory,
            files=self._runtime.files,
            labels={OWNER: self._owner, KERNEL: kernel},
            baseline=self._baseline,
            loopback=self._config.profile.kernel == "stock",
        )
        container = await self._create(client, kernel, document)
        await container.start()
        return container

    async def _create(self, client: aiodocker.Docker, kernel: str, document: dict[str, Any]) -> DockerContainer:
        """Create a container; one that comes to be when nobody wants it any more is remembered nevertheless."""
        name = f"omniops-{self._owner[:6]}-{kernel}"
        creating = asyncio.create_task(client.containers.create(document, name=name))
        try:
            await asyncio.wait([creating])
        finally:
            if not creating.done():  # this task was cancelled; the daemon goes on all the same
                await asyncio.wait([creating], timeout=_DAEMON_TIMEOUT_S)
            if not creating.done():
                creating.cancel()
            elif creating.exception() is None:
                self._containers[kernel] = creating.result()
        return creating.result()

    async def _open(self, door: Door, container: DockerContainer, key: bytes) -> None:
        """Tell the container what to start; give up when it ends instead."""
        opening = asyncio.create_task(door.open(self._order(key)))
        ending = asyncio.create_task(container.wait())
        try:
            await asyncio.wait({opening, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                raise StartFailed("the container ended before its kernel was ready.")
            opening.result()
        finally:
            opening.cancel()
            ending.cancel()
            await asyncio.gather(opening, ending, return_exceptions=True)

    def _order(self, key: bytes) -> dict[str, Any]:
        return {
            "op": "start",
            "key": key.hex(),
            "preload": self._config.profile.preload,
            "kernel": self._config.profile.kernel,
            "memory_mb": self._config.profile.limits.memory_mb,
            "seccomp": base64.b64encode(self._seccomp).decode(),
            "orphan_grace_s": self._config.orphan_grace_s,
        }

    def _make_folder(self, kernel: str, group: int) -> Path:
        directory = self._runtime.add_kernel(kernel, None)
        os.chown(directory, -1, group)
        directory.chmod(0o770)
        return directory

    async def _remove(self, kernel: str, uid: int | None) -> None:
        self._kernels.pop(kernel, None)
        container = self._containers.pop(kernel, None)
        if container is not None:
            with contextlib.suppress(*DockerTrouble):
                await _delete(container)
        await asyncio.to_thread(self._runtime.remove_kernel, kernel)
        if uid is not None:
            self._uids.discard(uid)

    async def _watch_memory(self, client: aiodocker.Docker) -> None:
        """End each kernel whose container ran out of memory, even if the process that had to go was another."""
        filters = {"type": ["container"], "event": ["oom"], "label": [f"{OWNER}={self._owner}"]}
        while True:
            events = client.events.subscribe(filters=json.dumps(filters))  # type: ignore[no-untyped-call]
            while (event := await events.get()) is not None:
                kernel = self._kernels.get(event["Actor"]["Attributes"].get(KERNEL, ""))
                if kernel is not None:
                    await kernel.kill(out_of_memory(self._config.profile.limits))
            # the daemon is gone; when it comes back there are new kernels to watch
            with contextlib.suppress(*DockerTrouble):
                await client.events.stop()  # type: ignore[no-untyped-call]
            await asyncio.sleep(_RETRY_S)

    async def _log_of(self, kernel: str) -> str:
        """What a container said that did not come up."""
        container = self._containers.get(kernel)
        if container is None:
            return ""
        try:
            lines = await container.log(stdout=True, stderr=True, tail=30)
        except DockerTrouble:
            return ""
        return f"It said:\n{''.join(lines).strip()}" if lines else ""


@retry(
    retry=retry_if_exception(lambda error: isinstance(error, aiodocker.DockerError) and error.status != 404),
    stop=stop_after_delay(_DAEMON_TIMEOUT_S),
    wait=wait_exponential(0.05, max=1),
    reraise=True,
)
async def _delete(container: DockerContainer) -> None:
    """End and remove a container. The daemon refuses that for one that it is still starting: then again."""
    await container.delete(force=True, v=True)


def _memory_of(sample: dict[str, Any]) -> int:
    """Bytes of memory in a sample of a container's statistics, without files that can be let go of."""
    memory = sample["memory_stats"]
    details = memory["stats"]
    # version 1 of cgroups, or 2
    names = ("total_inactive_file", "total_active_file")
    files = sum(details.get(name, details.get(name.removeprefix("total_"), 0)) for name in names)
    return int(memory["usage"]) - int(files)
