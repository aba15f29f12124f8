"""Forked kernels without a sandbox: the same kernel, channels and execution, minus isolation."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_pool.channels import Channels, Incoming, Listener
from kernel_pool.execution import execute
from kernel_pool.outputs import Overflow
from kernel_pool.types import CellResult, Exit, ExitReason, Limits

ROOT = Path(__file__).parents[3]


class PlainTemplate:
    """A process that forks kernels on request."""

    def __init__(self, preload: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("template_process.py")), preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "SECRET": "of the template"},
        )
        assert self._read() == "up"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def fork(self, folder: Path, key: bytes) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder} {key.hex()}\n")
        self._process.stdin.flush()
        return int(self._read())

    def close(self) -> None:
        self._process.communicate()


@dataclass
class PlainKernel:
    pid: int
    folder: Path
    key: bytes
    channels: Channels
    exited: asyncio.Future[Exit]
    killed: Exit | None = None

    async def run(
        self,
        code: str,
        *,
        deadline_s: float = 30,
        grace_s: float = 5,
        limits: Limits | None = None,
        on_output: Any = None,
        user_expressions: Mapping[str, str] | None = None,
        overflow: Overflow | None = None,
    ) -> CellResult:
        return await execute(
            self.channels,
            code,
            deadline_s=deadline_s,
            interrupt_grace_s=grace_s,
            limits=limits or Limits(),
            interrupt=self.channels.interrupt,
            kill=self.kill,
            exited=self.exited,
            on_output=on_output,
            user_expressions=user_expressions,
            overflow=overflow,
        )

    async def kill(self, exit: Exit) -> None:
        self.killed = exit
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        await self.exited

    async def text(self, code: str) -> str:
        """All text that a cell, which must succeed, prints and returns."""
        result = await self.run(code)
        assert result.status == "ok", (result.reason, result.error)
        return text_of(result)

    async def collect(self, msg_type: str, content: dict[str, Any]) -> list[Incoming]:
        """Send a request on the shell channel; everything that answers it, up to its idle status."""
        got: list[Incoming] = []
        idle, msg_id = asyncio.Event(), self.channels.new_id()

        def receive(incoming: Incoming) -> None:
            got.append(incoming)
            if incoming.msg_type == "status" and b'"idle"' in incoming.content:
                idle.set()

        with self.channels.listening(msg_id, Listener(receive)):
            self.channels.send("shell", msg_type, content, msg_id=msg_id)
            await asyncio.wait_for(idle.wait(), 20)
        return got


def text_of(result: CellResult) -> str:
    texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in result.outputs]
    return "".join(texts)


def streams_of(result: CellResult) -> dict[str, str]:
    """What a cell wrote to stdout and stderr."""
    texts = {"stdout": "", "stderr": ""}
    for output in result.outputs:
        if output["output_type"] == "stream":
            texts[output["name"]] += output["text"]
    return texts


@contextlib.asynccontextmanager
async def plain_kernel(template: PlainTemplate) -> AsyncIterator[PlainKernel]:
    """A kernel that answers; at the end it and its folder are gone."""
    folder, key = Path(tempfile.mkdtemp(prefix="k-")), secrets.token_bytes(32)
    pid = template.fork(folder, key)
    pidfd = os.pidfd_open(pid)
    loop = asyncio.get_running_loop()
    kernel = PlainKernel(pid, folder, key, Channels(folder, key), loop.create_future())

    def ended() -> None:
        loop.remove_reader(pidfd)
        kernel.exited.set_result(kernel.killed or Exit(ExitReason.CRASH, "the process ended"))

    loop.add_reader(pidfd, ended)
    try:
        await kernel.channels.open()
        await kernel.channels.wait_ready(20)
        yield kernel
    finally:
        await kernel.kill(Exit(ExitReason.SHUTDOWN, "the test is over"))
        await kernel.channels.close()
        os.close(pidfd)
        shutil.rmtree(folder)
