"""Starting and ending a template: the launcher process, its specification, and the connection to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kernel_pool.runtime_dir import RuntimeDir
from kernel_pool.sandbox.spec import KernelLimits, SandboxSpec
from kernel_pool.seccomp import compile_filter
from kernel_pool.template_client import TemplateClient
from kernel_pool.types import PoolConfig, StartFailed

_PACKAGE_DIR = Path(__file__).parent
#: The package's folder goes last: it holds a types.py that must not stand in for the standard library's.
_LAUNCH = "import sys; sys.path.append(sys.argv[1]); from sandbox.launch import main; main(*sys.argv[2:])"
_STOP_TIMEOUT_S = 5.0


@dataclass
class Template:
    """A running template."""

    launcher: asyncio.subprocess.Process
    client: TemplateClient

    @property
    def alive(self) -> bool:
        return self.launcher.returncode is None and not self.client.closed.done()

    async def stop(self) -> None:
        """End it and all its kernels; returns when no process of them is left."""
        await self.client.close(stop=True)
        await _end(self.launcher)


async def start_template(config: PoolConfig, runtime: RuntimeDir) -> Template:
    """Start a template and wait until it is warm. Raises StartFailed with what it said."""
    launcher = await _launch(config, runtime)
    try:
        client = await _connect(launcher, runtime, config.start_timeout_s)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            launcher.kill()
        await _end(launcher)
        raise
    return Template(launcher, client)


async def _connect(launcher: asyncio.subprocess.Process, runtime: RuntimeDir, timeout_s: float) -> TemplateClient:
    connecting = asyncio.create_task(TemplateClient.connect(runtime.control))
    ending = asyncio.create_task(launcher.wait())
    try:
        done, _ = await asyncio.wait({connecting, ending}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if connecting in done and connecting.exception() is None:
            return connecting.result()
        if done:  # the connection may end a moment before the process
            await asyncio.wait({ending}, timeout=_STOP_TIMEOUT_S)
        what = f"ended with status {launcher.returncode}" if ending.done() else f"was not ready in {timeout_s:g} s"
        raise StartFailed(f"the kernels' template {what}. It said:\n{runtime.log_tail() or '(nothing)'}")
    finally:
        for task in (connecting, ending):
            task.cancel()
        await asyncio.gather(connecting, ending, return_exceptions=True)


async def _launch(config: PoolConfig, runtime: RuntimeDir) -> asyncio.subprocess.Process:
    program = await asyncio.to_thread(compile_filter)
    runtime.control.unlink(missing_ok=True)
    with (
        tempfile.TemporaryFile() as spec,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        runtime.log.open("ab") as log,
    ):
        spec.write(make_spec(config, runtime, program).to_json())
        spec.flush()
        # bound here, listening there: the socket then names the launcher as its owner
        listener.bind(os.fspath(runtime.control))
        runtime.control.chmod(0o600)
        fds = (spec.fileno(), listener.fileno())
        arguments = ("-I", "-S", "-c", _LAUNCH, os.fspath(_PACKAGE_DIR), *map(str, fds))
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={},
            cwd="/",
            pass_fds=fds,
            start_new_session=True,
        )


def make_spec(config: PoolConfig, runtime: RuntimeDir, program: bytes) -> SandboxSpec:
    """What the launcher needs to know. `program`: the compiled seccomp filter."""
    limits = config.limits
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
        preload=config.preload,
        limits=KernelLimits(
            memory_mb=limits.memory_mb,
            disk_mb=limits.disk_mb,
            processes=limits.processes,
            open_files=limits.open_files,
            cpu_seconds=limits.cpu_seconds,
        ),
        seccomp=base64.b64encode(program).decode(),
        orphan_grace_s=config.orphan_grace_s,
    )


async def _end(launcher: asyncio.subprocess.Process) -> None:
    """Wait for the launcher's end; past a time limit, kill it: the template and all below it end with it."""
    try:
        await asyncio.wait_for(launcher.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            launcher.kill()
        await launcher.wait()
