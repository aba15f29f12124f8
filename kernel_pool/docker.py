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
from pathlib import Path
from typing import Any

import aiodocker
from aiodocker.containers import DockerContainer
from tenacity import retry, retry_if_exception, stop_after_delay, wait_exponential

from kernel_pool.container import ContainerKernel, DockerTrouble, out_of_memory
from kernel_pool.container_config import DockerConfig, container_config
from kernel_pool.container_image import LABEL, sandbox_digest
from kernel_pool.door import Door
from kernel_pool.place import Process
from kernel_pool.runtime_dir import RuntimeDir
from kernel_pool.seccomp import compile_filter
from kernel_pool.types import Exit, ExitReason, IsolationUnavailable, PoolConfig, StartFailed

_OWNER = "omniops.runtime"
_KERNEL = "omniops.kernel"
_INSTALL = "docker/setup-debian installs what is needed on Debian; docker/build-image makes the image."
_TRIAL = Exit(ExitReason.SHUTDOWN, "the trial is over")
_DAEMON_TIMEOUT_S = 10.0
_RETRY_S = 1.0
_USUAL_ADDRESS = "unix:///var/run/docker.sock"


class DockerPlace:
    """Starts every kernel in a new container of `DockerConfig.image`."""

    def __init__(self, config: PoolConfig, docker: DockerConfig) -> None:
        self._config = config
        self._docker = docker
        self._address = docker.host or os.environ.get("DOCKER_HOST") or _USUAL_ADDRESS
        self._runtime = RuntimeDir(config.runtime_dir)
        self._owner = hashlib.sha256(os.fsencode(config.runtime_dir)).hexdigest()[:16]
        self._client: aiodocker.Docker | None = None
        self._containers: dict[str, DockerContainer] = {}
        self._kernels: dict[str, ContainerKernel] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._uids: set[int] = set()
        self._baseline: int | None = None
        self._seccomp = b""

    async def start(self) -> None:
        """Check daemon, runtime and image, remove what a crashed gateway left; try and measure a first container.

        Raises IsolationUnavailable with what is missing and the command that brings it, or StartFailed.
        """
        self._seccomp = await asyncio.to_thread(compile_filter)
        client = self._client = aiodocker.Docker(url=self._address)
        try:
            await self._check(client)
            await self._remove_leftovers(client)
            await asyncio.to_thread(self._runtime.open, self._config.files)
            self._watcher = asyncio.create_task(self._watch_memory(client))
            self._baseline = await self._measure_one()
        except BaseException:
            await self.close()
            raise

    async def spawn(self) -> ContainerKernel:
        """Start a container and wait until its kernel serves its channels. Raises StartFailed."""
        if self._client is None:
            raise StartFailed("the pool is closed")
        kernel = secrets.token_hex(6)
        uid = self._take_uid()
        try:
            async with asyncio.timeout(self._config.start_timeout_s):
                return await self._start_kernel(self._client, kernel, uid)
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
                raise StartFailed(f"Docker could not start kernel {kernel}: {_words(error)}") from error
            raise

    async def discard(self, process: Process) -> None:
        """Remove the container and the folder of a kernel that has ended."""
        await self._remove(process.id, process.uid)

    async def close(self) -> None:
        """Remove every container and the runtime folder. Safe to call again."""
        client, self._client = self._client, None
        if client is None:
            return
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        for kernel in tuple(self._containers):
            await self._remove(kernel, None)
        await client.close()
        await asyncio.to_thread(self._runtime.close)

    async def _measure_one(self) -> int:
        """Bytes of memory that a container has whose kernel is ready: what comes on top is the kernel's own."""
        process = await self.spawn()
        try:
            samples = process.container.stats(stream=True)
            return _memory_of(await anext(samples))
        except (*DockerTrouble, KeyError, StopAsyncIteration) as error:
            raise StartFailed(f"Docker does not tell a container's memory: {_words(error)}") from error
        finally:
            await process.kill(_TRIAL)
            await self.discard(process)

    async def _start_kernel(self, client: aiodocker.Docker, kernel: str, uid: int) -> ContainerKernel:
        # an ordinary user can give folders to groups of its own only
        group = uid if os.getuid() == 0 else os.getgid()
        directory = await asyncio.to_thread(self._make_folder, kernel, group)
        door = Door(directory / "door")
        try:
            await door.listen(group)
            key = secrets.token_bytes(32)
            container = await self._run(client, kernel, (uid, group), directory)
            await self._open(door, container, key)
            await asyncio.to_thread(directory.chmod, 0o750)
            state = (await container.show())["State"]
        except BaseException:
            door.close()
            raise
        process = ContainerKernel(
            id=kernel,
            directory=directory,
            key=key,
            pid=state["Pid"],
            uid=uid,
            limits=self._config.limits,
            exited=asyncio.get_running_loop().create_future(),
            container=container,
            door=door,
        )
        process.watch_end()
        self._kernels[kernel] = process
        return process

    async def _run(
        self, client: aiodocker.Docker, kernel: str, user: tuple[int, int], directory: Path
    ) -> DockerContainer:
        document = container_config(
            self._docker,
            self._config.limits,
            user=user,
            ipc=directory,
            files=self._runtime.files,
            labels={_OWNER: self._owner, _KERNEL: kernel},
            baseline=self._baseline,
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
            "preload": self._config.preload,
            "memory_mb": self._config.limits.memory_mb,
            "seccomp": base64.b64encode(self._seccomp).decode(),
            "orphan_grace_s": self._config.orphan_grace_s,
        }

    def _make_folder(self, kernel: str, group: int) -> Path:
        directory = self._runtime.add_kernel(kernel, None)
        os.chown(directory, -1, group)
        directory.chmod(0o770)
        return directory

    def _take_uid(self) -> int:
        """A user id that no other kernel of this pool has; at random, for other pools draw from the same range."""
        first, size = self._config.uid_range
        if len(self._uids) >= size:
            raise StartFailed(f"all {size} user ids for kernels are in use; raise uid_count")
        while (uid := first + secrets.randbelow(size)) in self._uids:
            pass
        self._uids.add(uid)
        return uid

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
        filters = {"type": ["container"], "event": ["oom"], "label": [f"{_OWNER}={self._owner}"]}
        while True:
            events = client.events.subscribe(filters=json.dumps(filters))  # type: ignore[no-untyped-call]
            while (event := await events.get()) is not None:
                kernel = self._kernels.get(event["Actor"]["Attributes"].get(_KERNEL, ""))
                if kernel is not None:
                    await kernel.kill(out_of_memory(self._config.limits))
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

    async def _remove_leftovers(self, client: aiodocker.Docker) -> None:
        """Containers of a gateway that had this runtime folder and crashed."""
        filters = {"label": [f"{_OWNER}={self._owner}"]}
        for container in await client.containers.list(all=True, filters=filters):
            with contextlib.suppress(*DockerTrouble):
                await container.delete(force=True, v=True)

    async def _check(self, client: aiodocker.Docker) -> None:
        """Raise IsolationUnavailable unless daemon, runtime and image are what the sandbox needs."""
        try:
            async with asyncio.timeout(_DAEMON_TIMEOUT_S):
                info = await client.system.info()
        except DockerTrouble as error:
            raise IsolationUnavailable(
                f"no Docker daemon answers at {self._address} ({_words(error)}). {_INSTALL}"
            ) from error
        if self._docker.runtime not in info.get("Runtimes", {}):
            raise IsolationUnavailable(f"Docker has no runtime {self._docker.runtime!r}. {_INSTALL}")
        if not any("seccomp" in option for option in info.get("SecurityOptions") or ()):
            raise IsolationUnavailable(
                "this Docker daemon has no seccomp. Use a kernel that has CONFIG_SECCOMP_FILTER."
            )
        for limit in ("MemoryLimit", "PidsLimit", "CpuCfsQuota"):
            if not info.get(limit):
                raise IsolationUnavailable(f"this Docker daemon cannot set {limit}. Mount the machine's cgroups.")
        await self._check_image(client)

    async def _check_image(self, client: aiodocker.Docker) -> None:
        name = self._docker.image
        try:
            image = await client.images.inspect(name)
        except DockerTrouble as error:
            raise IsolationUnavailable(
                f"there is no image {name!r} ({_words(error)}). Make it: docker/build-image"
            ) from error
        found = (image["Config"].get("Labels") or {}).get(LABEL)
        if found != sandbox_digest():
            raise IsolationUnavailable(
                f"image {name!r} holds other code than this gateway ({found}, not {sandbox_digest()}). "
                f"Make it anew: docker/build-image --tag {name}"
            )


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


def _words(error: BaseException) -> str:
    return str(getattr(error, "message", "") or error or type(error).__name__)
