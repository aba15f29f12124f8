"""Sandboxed kernels for anything that is built on jupyter_client: Jupyter Server, nbclient, papermill, tests.

A kernelspec asks for them by name; `argv` is not run, for the kernel is forked from a template:

    {"argv": ["omniops"], "display_name": "Python 3 (sandboxed)", "language": "python",
     "metadata": {"kernel_provisioner": {"provisioner_name": "omniops-local", "config": {"memory_mb": 1024}}}}

Kernels of one configuration in one event loop share a template, which ends with the last of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast
from weakref import WeakKeyDictionary

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Float, Int, List, Unicode

from kernel_pool.local import LocalPlace
from kernel_pool.process import KernelProcess
from kernel_pool.sandbox.spec import CHANNELS
from kernel_pool.types import Exit, ExitReason, KernelGone, Limits, PoolConfig
from kernel_pool.watch import watch_memory

_KILLED = Exit(ExitReason.SHUTDOWN, "the kernel was shut down")
#: What `poll` answers for a kernel that has ended; jupyter_client asks only whether it is None.
_ENDED = 1


@dataclass
class _SharedPlace:
    """A place and the kernels that hold on to it."""

    place: LocalPlace
    folder: Path
    users: int
    processes: dict[str, KernelProcess]
    ready: asyncio.Task[None]
    watcher: asyncio.Task[None]


_Key = tuple[Limits, tuple[str, ...], float]


def _start_place(limits: Limits, preload: tuple[str, ...], start_timeout_s: float) -> _SharedPlace:
    folder = Path(tempfile.mkdtemp(prefix="omniops-jupyter-"))
    config = PoolConfig(folder / "run", limits, preload=preload, start_timeout_s=start_timeout_s)
    place, processes = LocalPlace(config), dict[str, KernelProcess]()
    watching = watch_memory(lambda: list(processes.values()), limits.memory_mb, config.watch_interval_s)
    ready, watcher = asyncio.create_task(place.start()), asyncio.create_task(watching)
    return _SharedPlace(place, folder, 0, processes, ready, watcher)


class LocalProvisioner(KernelProvisionerBase):
    """Starts kernels of one kernelspec in sandboxes on this machine."""

    memory_mb = Int(512, config=True, help="Memory of a kernel, MiB.")
    disk_mb = Int(128, config=True, help="Files of a kernel, MiB (in memory).")
    processes = Int(64, config=True, help="Processes and threads of a kernel.")
    start_timeout_s = Float(30.0, config=True, help="Time for template or kernel to start.")
    preload = List(Unicode(), ["numpy", "pandas"], config=True, help="Modules that the template imports.")

    _places: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, _SharedPlace]]] = WeakKeyDictionary()
    _process: KernelProcess | None = None
    _shared: _SharedPlace | None = None

    @property
    def has_process(self) -> bool:
        return self._process is not None

    async def poll(self) -> int | None:
        """None while the kernel lives. Asks the system: a blocking client's loop stands still between its calls."""
        if self._process is None or self._process.exited.done():
            return _ENDED
        return _ENDED if select.select([self._process.pidfd], [], [], 0)[0] else None

    async def wait(self) -> int | None:
        """Wait until all processes of the kernel have ended, and remove what is left of it."""
        if self._process is not None and self._shared is not None:
            await asyncio.shield(self._process.exited)
            self._shared.processes.pop(self._process.id, None)
            await self._shared.place.discard(self._process)
            self._process = None
        return _ENDED

    async def send_signal(self, signum: int) -> None:
        """Send a signal; SIGINT also reaches the programs that a cell waits for."""
        if self._process is None:
            return
        with contextlib.suppress(KernelGone):
            if signum == signal.SIGINT:
                self._process.interrupt()
            elif signum == signal.SIGKILL:
                await self._process.kill(_KILLED)
            else:
                self._process.signal(signum)

    async def kill(self, restart: bool = False) -> None:
        if self._process is not None:
            await self._process.kill(_KILLED)

    async def terminate(self, restart: bool = False) -> None:
        """The same as `kill`: process 1 of a namespace hears no SIGTERM."""
        await self.kill(restart)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Nothing of the caller's environment goes in; `cmd` is what jupyter_client wants to show."""
        return {**kwargs, "cmd": list(self.kernel_spec.argv)}

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Fork a kernel; returns where its channels are. Raises IsolationUnavailable or StartFailed."""
        if self._shared is None:
            self._shared = await self._share_place()
        process = self._process = await self._shared.place.spawn()
        self._shared.processes[process.id] = process
        self.connection_info = _connection_info(process)
        return self.connection_info

    async def cleanup(self, restart: bool = False) -> None:
        """End the kernel if it lives; the template too, when it was the last."""
        await self.kill()
        await self.wait()
        if self._shared is not None and not restart:
            shared, self._shared = self._shared, None
            await self._release_place(shared)

    async def _share_place(self) -> _SharedPlace:
        limits = Limits(memory_mb=self.memory_mb, disk_mb=self.disk_mb, processes=self.processes)
        key = (limits, tuple(self.preload), self.start_timeout_s)
        places = self._places.setdefault(asyncio.get_running_loop(), {})
        shared = places.get(key)
        if shared is None:
            shared = places[key] = _start_place(*key)
        shared.users += 1
        try:
            await asyncio.shield(shared.ready)
        except BaseException:
            await self._release_place(shared)
            raise
        return shared

    async def _release_place(self, shared: _SharedPlace) -> None:
        shared.users -= 1
        if shared.users:
            return
        places = self._places[asyncio.get_running_loop()]
        for key in [key for key, place in places.items() if place is shared]:
            del places[key]
        shared.watcher.cancel()
        await asyncio.wait([shared.watcher])
        await shared.place.close()
        await asyncio.to_thread(shutil.rmtree, shared.folder, ignore_errors=True)


def _connection_info(process: KernelProcess) -> KernelConnectionInfo:
    """As jupyter_client names ipc endpoints, `{ip}-{port}`: numbered links to the channels' sockets."""
    for port, channel in enumerate(CHANNELS, start=1):
        (process.directory / f"channel-{port}").symlink_to(channel)
    ports = {f"{channel}_port": port for port, channel in enumerate(CHANNELS, start=1)}
    info: dict[str, Any] = {
        "transport": "ipc",
        "ip": os.fspath(process.directory / "channel"),
        "key": process.key,  # bytes, as the manager compares it
        "signature_scheme": "hmac-sha256",
        **ports,
    }
    return cast(KernelConnectionInfo, info)
