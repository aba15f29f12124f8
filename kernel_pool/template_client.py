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

    def __init__(self, packets: Packets, living: dict[str, list[int]], ended: dict[str, Ended]) -> None:
        self._packets = packets
        #: Kernels that an earlier gateway had forked: pidfd, and the open folder /proc unless it died too soon.
        self.living = living
        #: How others that it had ended.
        self.ended_before = ended
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
            living, ended = await _greeting(packets)
        except BaseException:
            connection.close()
            raise
        return cls(packets, living, ended)

    def take(self, kernel: str) -> list[int]:
        """The descriptors of a kernel that an earlier gateway had forked; the caller closes them."""
        self._ends[kernel] = end = asyncio.get_running_loop().create_future()
        if kernel in self.ended_before:  # since we connected
            end.set_result(self.ended_before[kernel])
        return self.living.pop(kernel)

    def keep(self, kernel: str, proc: int) -> None:
        """Have the template keep a kernel's /proc for a later gateway."""
        with contextlib.suppress(OSError):
            self._packets.send({"op": "keep", "id": kernel}, (proc,))

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
            for fds in self.living.values():
                for fd in fds:
                    os.close(fd)
            self.living.clear()
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
                if end is None:
                    self.ended_before[kernel] = _end_in(message)
                elif not end.done():
                    end.set_result(_end_in(message))
        for fd in fds:
            os.close(fd)


async def _greeting(packets: Packets) -> tuple[dict[str, list[int]], dict[str, Ended]]:
    """What a template says first: the kernels that live, and how others ended. Raises StartFailed."""
    living: dict[str, list[int]] = {}
    ended: dict[str, Ended] = {}
    try:
        hello, _ = await _expect(packets)
        for _ in range(hello["kernels"]):
            message, fds = await _expect(packets)
            living[message["id"]] = fds
        for _ in range(hello["ended"]):
            message, _ = await _expect(packets)
            ended[message["id"]] = _end_in(message)
    except BaseException:
        for fds in living.values():
            for fd in fds:
                os.close(fd)
        raise
    return living, ended


async def _expect(packets: Packets) -> tuple[dict[str, Any], list[int]]:
    received = await packets.receive()
    if received is None:
        raise StartFailed("the template ended before it was ready")
    return received


def _end_in(message: dict[str, Any]) -> Ended:
    return Ended(message["status"], message["cpu_s"])
