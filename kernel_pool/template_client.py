"""The gateway's end of the template's control socket (protocol: `sandbox/template.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_pool.types import StartFailed

_MAX_MESSAGE = 65536
_CONNECT_RETRY_S = 0.01
_STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Ended:
    """How a kernel's first process ended: its status (negative: the signal) and the CPU seconds that it used."""

    status: int
    cpu_s: float


class Packets:
    """Messages of JSON with descriptors, over a non-blocking SOCK_SEQPACKET socket."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection

    async def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and the descriptors that came with it; None at the end of the connection."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _MAX_MESSAGE, 4)
            except BlockingIOError:
                readable = loop.create_future()
                loop.add_reader(self._socket, _resolve, readable)
                try:
                    await readable
                finally:
                    loop.remove_reader(self._socket)
                continue
            except OSError:
                return None
            if not data:
                return None
            return json.loads(data), list(fds)

    def send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Raises OSError when the other side is gone or does not read."""
        socket.send_fds(self._socket, [json.dumps(message).encode()], fds)

    def close(self) -> None:
        self._socket.close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class TemplateClient:
    """A connection to a warm template: asks it for kernels and hears how they end."""

    def __init__(self, packets: Packets) -> None:
        self._packets = packets
        self._forks: dict[str, asyncio.Future[int]] = {}
        self._ends: dict[str, asyncio.Future[Ended | None]] = {}
        #: Done when the connection ended: then no kernel of this template lives for long.
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, path: Path) -> TemplateClient:
        """Wait for the template to listen and to be warm; the caller sets the time limit.

        Raises StartFailed when the connection ends before the template said hello.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            while True:
                try:
                    connection.connect(os.fspath(path))
                    break
                except (ConnectionRefusedError, FileNotFoundError):
                    await asyncio.sleep(_CONNECT_RETRY_S)
            packets = Packets(connection)
            hello = await packets.receive()
        except BaseException:
            connection.close()
            raise
        if hello is None:
            connection.close()
            raise StartFailed("the template ended before it was ready")
        return cls(packets)

    async def fork(self, kernel: str, uid: int | None, status: socket.socket) -> int:
        """Have a kernel forked that reports over `status`; returns its pidfd. Raises StartFailed."""
        if self.closed.done():
            raise StartFailed("the template is gone")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        self._forks[kernel] = answer
        self._ends[kernel] = loop.create_future()
        try:
            self._packets.send({"op": "fork", "id": kernel, "uid": uid}, (status.fileno(),))
            return await answer
        except OSError as error:
            raise StartFailed(f"the template does not answer: {error.strerror or error}") from error
        finally:
            self._forks.pop(kernel, None)

    async def ended(self, kernel: str, timeout_s: float) -> Ended | None:
        """How a kernel that has ended did so; None when the template cannot tell in time."""
        future = self._ends.get(kernel)
        if future is None:
            return None
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout_s)
        except TimeoutError:
            return None
        finally:
            self._ends.pop(kernel, None)

    async def close(self, *, stop: bool) -> None:
        """End the connection; with `stop`, the template and its kernels too."""
        if stop:
            with contextlib.suppress(OSError):
                self._packets.send({"op": "stop"})
            # closing at once could lose the message: the template drops who does not hear it
            await asyncio.wait([self._reader], timeout=_STOP_TIMEOUT_S)
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        try:
            while (received := await self._packets.receive()) is not None:
                self._take(*received)
        finally:
            self._packets.close()
            gone = StartFailed("the template ended")
            for answer in self._forks.values():
                if not answer.done():
                    answer.set_exception(gone)
            for end in self._ends.values():
                if not end.done():
                    end.set_result(None)
            if not self.closed.done():
                self.closed.set_result(None)

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        kernel = message.get("id", "")
        answer = self._forks.get(kernel)
        match message["op"]:
            case "forked" if answer is not None and not answer.done():
                answer.set_result(fds.pop())
            case "failed" if answer is not None and not answer.done():
                answer.set_exception(StartFailed(f"kernel {kernel} could not be forked: {message['error']}"))
            case "exited":
                end = self._ends.get(kernel)
                if end is not None and not end.done():
                    end.set_result(Ended(message["status"], message["cpu_s"]))
        for fd in fds:
            os.close(fd)
