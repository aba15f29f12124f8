"""Sandboxed kernels for anything that is built on jupyter_client: Jupyter Server, jupyter console, nbclient, papermill.

A kernelspec asks for them by name; `argv` is not run, for the kernel is forked from a template or comes in a
container (`omniops kernelspec install` writes such kernelspecs):

    {"argv": ["omniops"], "display_name": "Python 3 (sandboxed)", "language": "python",
     "metadata": {"kernel_provisioner": {"provisioner_name": "omniops-local", "config": {"memory_mb": 1024}}}}

`omniops-docker` takes `image`, `runtime` and `host` as well. Kernels of one configuration in one process share
a template, or a measured container's figures (`keeper`). The interface: jupyter_client.provisioning.provisioner_base.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Enum, Float, Int, List, Unicode

from kernel_pool.adopted import AdoptedProcess, adopt
from kernel_pool.choice import RUNTIMES, with_runtime
from kernel_pool.container_config import DockerConfig, Runtime
from kernel_pool.keeper import Keeper, Kind, Shared, keeper
from kernel_pool.place import Process
from kernel_pool.sandbox.spec import CHANNELS
from kernel_pool.types import Exit, ExitReason, KernelGone, KernelKind, Limits, Profile

_KILLED = Exit(ExitReason.SHUTDOWN, "the kernel was shut down")
#: What `poll` answers for a kernel that has ended; jupyter_client asks only whether it is None.
_ENDED = 1


class SandboxProvisioner(KernelProvisionerBase):
    """What the provisioners have in common: one kernel, in a place that others may share."""

    profile = Unicode("agent", config=True, help="What the kernel is called in lists and logs.")
    kernel = Enum(["forked", "stock"], "forked", config=True, help="Forked from a template, or ipykernel as it comes.")
    memory_mb = Int(512, config=True, help="Memory of a kernel, MiB.")
    disk_mb = Int(128, config=True, help="Files of a kernel, MiB (in memory).")
    processes = Int(64, config=True, help="Processes and threads of a kernel.")
    open_files = Int(1024, config=True, help="Open files of one process.")
    cpu_seconds = Int(3600, config=True, help="CPU time of each process of a kernel over its life.")
    cpus = Float(1.0, config=True, help="Cores that a kernel may use at a time; held by cgroups and in containers.")
    start_timeout_s = Float(30.0, config=True, help="Time for template or kernel to start.")
    preload = List(
        Unicode(), ["numpy", "pandas"], config=True, help="Modules that are imported before a kernel starts."
    )

    _keeper: Keeper | None = None
    _shared: Shared | None = None
    _process: Process | AdoptedProcess | None = None
    _key: bytes | None = None
    _links: Path | None = None
    #: Whether the kernel was asked to end.
    _asked = False

    async def _docker(self) -> DockerConfig | None:
        """How the kernel gets its container; None: a sandbox of this machine."""
        raise NotImplementedError

    @property
    def has_process(self) -> bool:
        return self._process is not None

    async def poll(self) -> int | None:
        """None while the kernel lives."""
        return None if self._process is not None and not self._process.exited.done() else _ENDED

    async def wait(self) -> int | None:
        """Wait until all processes of the kernel have ended, and remove what is left of it."""
        if self._process is not None:
            assert self._keeper is not None
            await self._keeper.do(_reap(self._process, self._shared))
            self._process = None
        return _ENDED

    async def send_signal(self, signum: int) -> None:
        """Send a signal; SIGINT also reaches the programs that a cell waits for. A kernel that has ended hears none.

        SIGTERM ends the kernel, for the first process of a namespace would not hear it; SIGSTOP and SIGCONT take its
        CPU and give it back.
        """
        if self._process is not None and signum != 0:
            assert self._keeper is not None
            await self._keeper.do(_signal(self._process, signum))

    async def kill(self, restart: bool = False) -> None:
        if self._process is not None:
            assert self._keeper is not None
            await self._keeper.do(self._process.kill(_KILLED))

    async def terminate(self, restart: bool = False) -> None:
        """The same as `kill`: process 1 of a namespace hears no SIGTERM."""
        await self.kill(restart)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Nothing of the caller's environment goes in; `cmd` is what jupyter_client wants to show."""
        return {**kwargs, "cmd": list(self.kernel_spec.argv)}

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start a kernel; returns where its channels are: after a restart at the same place, with the same key.

        Raises IsolationUnavailable or StartFailed.
        """
        self._keeper = keeper()
        if self._shared is None:
            self._shared = await self._keeper.do(self._keeper.share(await self._kind()))
        self._asked = False
        process = await self._keeper.do(_spawn(self._shared, self._key, self._say_end))
        self._process, self._key = process, process.key
        if self._links is None:
            self._links = self._shared.folder / process.id
        self.connection_info = _connection_info(process, self._links)
        return self.connection_info

    async def post_launch(self, **kwargs: Any) -> None:
        """The manager has written its connection file, which is not to outlive it."""
        if self._shared is not None and (file := str(getattr(self.parent, "connection_file", ""))):
            self._shared.janitor.mind(file)

    async def shutdown_requested(self, restart: bool = False) -> None:
        self._asked = True

    async def cleanup(self, restart: bool = False) -> None:
        """End the kernel if it lives; its place too, when it was the last and does not start again."""
        if isinstance(self._process, AdoptedProcess):
            return
        await self.kill()
        await self.wait()
        if self._shared is not None and not restart:
            assert self._keeper is not None
            shared, self._shared, self._links, self._key = self._shared, None, None, None
            await self._keeper.do(self._keeper.release(shared))

    def get_stable_start_time(self, recommended: float = 10.0) -> float:
        """How long a kernel must live before its start counts as one: a template may have to start as well."""
        return max(recommended, self.start_timeout_s)

    async def get_provisioner_info(self) -> dict[str, Any]:
        """What another process needs to find this kernel: plain JSON but for the key, which is bytes as Jupyter's."""
        info = await super().get_provisioner_info()
        info["pid"] = self._process.pid if self._process is not None else None
        return info

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        """Take over a kernel that another process started. It stays the other's: with that process it ends.

        Raises KernelGone when there is none any more.
        """
        await super().load_provisioner_info(provisioner_info)
        self._keeper = keeper()
        self._process = await self._keeper.do(adopt(provisioner_info["pid"], self.connection_info))

    def _say_end(self, exited: asyncio.Future[Exit]) -> None:
        """A client sees only that its kernel is gone; why is told here."""
        if not self._asked and exited.result() is not _KILLED:
            self.log.warning("kernel %s has ended: %s", self.kernel_id, exited.result().detail)

    async def _kind(self) -> Kind:
        limits = Limits(
            memory_mb=self.memory_mb,
            disk_mb=self.disk_mb,
            processes=self.processes,
            open_files=self.open_files,
            cpu_seconds=self.cpu_seconds,
            cpus=self.cpus,
        )
        profile = Profile(
            self.profile,
            self.kernel_spec.display_name,
            kernel=cast(KernelKind, self.kernel),
            preload=tuple(self.preload),
            limits=limits,
            minimum=0,
        )
        return Kind(profile, await self._docker(), self.start_timeout_s)


class LocalProvisioner(SandboxProvisioner):
    """`omniops-local`: kernels in sandboxes on this machine, as root or as an ordinary user."""

    async def _docker(self) -> None:
        return None


class DockerProvisioner(SandboxProvisioner):
    """`omniops-docker`: kernels in containers."""

    image = Unicode(DockerConfig.image, config=True, help="The sandbox image; docker/build-image makes it.")
    runtime = Enum(["auto", *RUNTIMES], "auto", config=True, help="runsc: gVisor. auto: that where Docker has it.")
    host = Unicode(None, allow_none=True, config=True, help="The daemon's address. None: DOCKER_HOST, or as usual.")

    async def _docker(self) -> DockerConfig:
        config = DockerConfig(self.image, host=self.host or None)
        wanted = RUNTIMES if self.runtime == "auto" else (cast(Runtime, self.runtime),)
        assert self._keeper is not None
        return await self._keeper.do(with_runtime(config, wanted))


async def _spawn(shared: Shared, key: bytes | None, ended: Callable[[asyncio.Future[Exit]], None]) -> Process:
    process = await shared.place.spawn(key)
    process.exited.add_done_callback(ended)
    shared.processes[process.id] = process
    return process


async def _reap(process: Process | AdoptedProcess, shared: Shared | None) -> None:
    await asyncio.shield(process.exited)
    if shared is not None and not isinstance(process, AdoptedProcess):
        shared.processes.pop(process.id, None)
        await shared.place.discard(process)


async def _signal(process: Process | AdoptedProcess, signum: int) -> None:
    with contextlib.suppress(KernelGone):
        match signum:
            case signal.SIGINT:
                process.interrupt()
            case signal.SIGKILL | signal.SIGTERM:
                await process.kill(_KILLED)
            case signal.SIGSTOP:
                await process.freeze()
            case signal.SIGCONT:
                await process.thaw()


def _connection_info(process: Process, links: Path) -> KernelConnectionInfo:
    """As jupyter_client names ipc endpoints, `{ip}-{port}`: numbered links to the channels' sockets.

    The links stay where they are when a kernel takes the place of another, so that clients find the new one.
    """
    links.mkdir(mode=0o700, exist_ok=True)
    for port, channel in enumerate(CHANNELS, start=1):
        link = links / f"c-{port}"
        link.unlink(missing_ok=True)
        link.symlink_to(process.directory / channel)
    ports = {f"{channel}_port": port for port, channel in enumerate(CHANNELS, start=1)}
    info: dict[str, Any] = {
        "transport": "ipc",
        "ip": os.fspath(links / "c"),
        "key": process.key,  # bytes, as the manager compares it
        "signature_scheme": "hmac-sha256",
        **ports,
    }
    return cast(KernelConnectionInfo, info)
