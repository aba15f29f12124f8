"""Starting and ending a template: the launcher process, its specification, and the connection to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_pool.runtime_dir import RuntimeDir, template_owner
from kernel_pool.sandbox.spec import KernelLimits, SandboxSpec
from kernel_pool.seccomp import compile_filter
from kernel_pool.template_client import TemplateClient
from kernel_pool.types import PlaceConfig, StartFailed

_PACKAGE_DIR = Path(__file__).parent
#: The package's folder goes last: it holds a types.py that must not stand in for the standard library's.
_LAUNCH = "import sys; sys.path.append(sys.argv[1]); from sandbox.launch import main; main(*sys.argv[2:])"
_STOP_TIMEOUT_S = 5.0


class Launcher:
    """The launcher's process: a child of this process, or one that a gateway before left."""

    def __init__(self, pidfd: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self._pidfd = pidfd
        self._child = child
        #: Done when it has ended, and all below it are about to.
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(pidfd, self._end)

    @property
    def status(self) -> int | None:
        """Exit status of a child that has ended."""
        return self._child.returncode if self._child is not None else None

    def kill(self) -> None:
        """The template and all its kernels end with it."""
        if not self.gone.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def end(self) -> None:
        """Wait for its end; past a time limit, kill it."""
        await asyncio.wait((self.gone,), timeout=_STOP_TIMEOUT_S)
        self.kill()
        await self.gone

    def let_go(self) -> None:
        """Leave it alone. Safe to call again."""
        if not self.gone.done():
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self.gone.cancel()

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._child is not None:
            self._child.wait()
        self.gone.set_result(None)


@dataclass
class Template:
    """A running template."""

    launcher: Launcher
    client: TemplateClient

    @property
    def alive(self) -> bool:
        return not self.launcher.gone.done() and not self.client.closed.done()

    async def stop(self) -> None:
        """End it and all its kernels; returns when no process of them is left."""
        await self.client.close(stop=True)
        await self.launcher.end()

    async def let_go(self) -> None:
        """Leave it, and its kernels, to a later gateway."""
        await self.client.close(stop=False)
        self.launcher.let_go()


async def start_template(config: PlaceConfig, runtime: RuntimeDir, cgroups: Sequence[Path] = ()) -> Template:
    """Start a template and wait until it is warm; it removes the `cgroups` when it ends.

    Raises StartFailed with what it said.
    """
    launcher = await _launch(config, runtime, cgroups)
    try:
        client = await _connect(launcher, runtime, config.start_timeout_s)
    except BaseException:
        launcher.kill()
        await launcher.end()
        raise
    return Template(launcher, client)


async def find_template(config: PlaceConfig, runtime: RuntimeDir) -> Template | None:
    """The template that a gateway before left and that still lives in this folder, if there is one."""
    pidfd = await asyncio.to_thread(template_owner, runtime.control)
    if pidfd is None:
        return None
    launcher = Launcher(pidfd)
    try:
        async with asyncio.timeout(config.start_timeout_s):
            client = await TemplateClient.connect(runtime.control)
    except (TimeoutError, StartFailed, OSError):
        launcher.let_go()
        return None
    return Template(launcher, client)


async def _connect(launcher: Launcher, runtime: RuntimeDir, timeout_s: float) -> TemplateClient:
    connecting = asyncio.create_task(TemplateClient.connect(runtime.control))
    try:
        await asyncio.wait((connecting, launcher.gone), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done() and connecting.exception() is None:
            return connecting.result()
        if connecting.done():  # the connection may end a moment before the process
            await asyncio.wait({launcher.gone}, timeout=_STOP_TIMEOUT_S)
        gone = launcher.gone.done()
        what = f"ended with status {launcher.status}" if gone else f"was not ready in {timeout_s:g} s"
        raise StartFailed(f"the kernels' template {what}. It said:\n{runtime.log_tail() or '(nothing)'}")
    finally:
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)


async def _launch(config: PlaceConfig, runtime: RuntimeDir, cgroups: Sequence[Path]) -> Launcher:
    program = await asyncio.to_thread(compile_filter, loopback=config.profile.kernel == "stock")
    child = await asyncio.to_thread(_start, runtime, make_spec(config, runtime, program, cgroups).to_json())
    return Launcher(os.pidfd_open(child.pid), child)


def _start(runtime: RuntimeDir, specification: bytes) -> subprocess.Popen[bytes]:
    """Not by asyncio: what it starts it ends when its event loop goes, and this is to outlive the gateway."""
    runtime.control.unlink(missing_ok=True)
    with (
        tempfile.TemporaryFile() as spec,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        runtime.log.open("ab") as log,
    ):
        spec.write(specification)
        spec.flush()
        # bound here, listening there: the socket then names the launcher as its owner
        listener.bind(os.fspath(runtime.control))
        runtime.control.chmod(0o600)
        fds = (spec.fileno(), listener.fileno())
        arguments = ("-I", "-S", "-c", _LAUNCH, os.fspath(_PACKAGE_DIR), *map(str, fds))
        return subprocess.Popen(  # noqa: S603 our own interpreter and code
            (sys.executable, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={},
            cwd="/",
            pass_fds=fds,
            start_new_session=True,
        )


def make_spec(config: PlaceConfig, runtime: RuntimeDir, program: bytes, cgroups: Sequence[Path] = ()) -> SandboxSpec:
    """What the launcher needs to know. `program`: the compiled seccomp filter."""
    limits = config.profile.limits
    paths = sysconfig.get_paths()
    packages = dict.fromkeys(os.path.realpath(paths[name]) for name in ("purelib", "platlib"))
    return SandboxSpec(
        rootless=os.getuid() != 0,
        root=os.fspath(runtime.root),
        kernels=os.fspath(runtime.kernels),
        sandbox=os.fspath(_PACKAGE_DIR / "sandbox"),
        files=os.fspath(runtime.files),
        packages=tuple(path for path in packages if os.path.isdir(path)),
        python=os.path.realpath(sys.executable),
        prefix=os.path.realpath(sys.base_prefix),
        preload=config.profile.preload,
        limits=KernelLimits(
            memory_mb=limits.memory_mb,
            disk_mb=limits.disk_mb,
            processes=limits.processes,
            # descriptors that kernels have under way in messages count for the gateway's user as well, see unix(7)
            open_files=min(limits.open_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2),
            cpu_seconds=limits.cpu_seconds,
        ),
        seccomp=base64.b64encode(program).decode(),
        orphan_grace_s=config.orphan_grace_s,
        cgroups=tuple(map(os.fspath, cgroups)),
        kernel=config.profile.kernel,
    )
