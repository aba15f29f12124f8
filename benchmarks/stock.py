"""The peer: ipykernel as it comes, started cold over the same kind of sockets and driven by the same client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from kernel_pool.channels import Channels
from kernel_pool.types import KernelPoolError

_CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class StockKernel:
    pid: int
    channels: Channels


@contextlib.asynccontextmanager
async def stock_kernel() -> AsyncIterator[StockKernel]:
    """A stock kernel that answers; killed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="stock-") as folder:
        connection = _write_connection(Path(folder))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "ipykernel_launcher", "-f", str(connection)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            channels = await _connect(Path(folder), json.loads(connection.read_text())["key"].encode())
            await channels.wait_ready(_START_TIMEOUT_S)
            yield StockKernel(process.pid, channels)
            await channels.close()
        finally:
            process.kill()
            await process.wait()


def _write_connection(folder: Path) -> Path:
    """A connection file, and the names under which our client looks for the sockets."""
    ports = {f"{channel}_port": number for number, channel in enumerate(_CHANNELS, 1)}
    for number, channel in enumerate(_CHANNELS, 1):
        (folder / channel).symlink_to(folder / f"k-{number}")
    info = {"transport": "ipc", "ip": str(folder / "k"), "key": secrets.token_hex(32), **ports}
    path = folder / "connection.json"
    path.write_text(json.dumps({**info, "signature_scheme": "hmac-sha256", "kernel_name": "python3"}))
    return path


async def _connect(folder: Path, key: bytes) -> Channels:
    """Connect as soon as all sockets are there; 2 ms between two looks."""
    async with asyncio.timeout(_START_TIMEOUT_S):
        while True:
            if all((folder / channel).exists() for channel in _CHANNELS):
                channels = Channels(folder, key)
                try:
                    await channels.open()
                    return channels
                except KernelPoolError:
                    pass  # bound, not yet listening
            await asyncio.sleep(0.002)
