"""The gateway's end of a container's door (protocol: `sandbox/contained.py`).

A socket in the kernel's folder on which process 1 of the container reports. What comes in is bounded and checked: a
kernel that tricked its way to the door could lie, but about itself alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec

from kernel_pool.types import StartFailed

_MAX_LINE = 256 * 1024


class Report(msgspec.Struct):
    """A message from process 1."""

    op: str
    error: str = ""
    status: int = 0
    cpu_s: float = 0.0


class Door:
    """Listens for one container, then talks to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server: asyncio.Server | None = None
        self._arrived: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.get_running_loop().create_future()
        )
        self._writer: asyncio.StreamWriter | None = None

    async def listen(self, group: int) -> None:
        """Make the socket; `group` may connect to it."""
        self._path.unlink(missing_ok=True)  # an earlier gateway's
        self._server = await asyncio.start_unix_server(self._arrive, self._path, limit=_MAX_LINE)
        self._path.chmod(0o660)
        os.chown(self._path, -1, group)

    async def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._arrived.done():
            writer.close()
        else:
            self._arrived.set_result((reader, writer))

    async def open(self, order: dict[str, Any]) -> None:
        """Wait for the container to connect, tell it what to start, wait until it is ready. Raises StartFailed."""
        reader, self._writer = await self._arrived
        self._stop_listening()
        self._send(order)
        report = await self._read(reader)
        if report is None:
            raise StartFailed("the container ended before its kernel was ready")
        if report.op != "ready":
            raise StartFailed(f"the kernel did not start:\n{report.error or report.op}")

    async def reopen(self) -> None:
        """Wait for a container to connect that an earlier gateway started; its kernel runs, or has ended."""
        _, self._writer = await self._arrived
        self._stop_listening()

    async def ended(self) -> Report | None:
        """Wait for the container to end; its last report, if it could send one."""
        reader, _ = self._arrived.result()
        while (report := await self._read(reader)) is not None:
            if report.op == "exited":
                return report
        return None

    def interrupt(self) -> None:
        """Have the kernel's process group interrupted."""
        self._send({"op": "interrupt"})

    def stop(self) -> None:
        """Have the container end; for when nobody else can end it."""
        self._send({"op": "stop"})

    def close(self) -> None:
        self._stop_listening()
        if self._writer is not None:
            self._writer.close()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def _read(self, reader: asyncio.StreamReader) -> Report | None:
        with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
            line = await reader.readline()
            return msgspec.json.decode(line, type=Report) if line.endswith(b"\n") else None
        return None
