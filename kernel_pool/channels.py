"""One long-lived set of channels from the gateway to one kernel: Jupyter messages over the kernel's unix sockets.

Everything that arrives is untrusted: it is bounded before it is kept, its signature checked before it is believed,
its types checked before they are used; what fails a check is counted and dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from kernel_pool.types import Json, KernelPoolError, Message
from kernel_pool.zmtp import Connection, Oversized, ProtocolError

Channel = Literal["shell", "iopub", "control", "stdin"]

#: Largest message that is read, bytes. Kernels cut their own at half of that.
MAX_MESSAGE = 32 * 1024 * 1024

_DELIMITER = b"<IDS|MSG>"
_SOCKETS: Mapping[Channel, str] = {"shell": "DEALER", "iopub": "SUB", "control": "DEALER", "stdin": "DEALER"}
_log = logging.getLogger(__name__)

T = TypeVar("T")


class _Header(msgspec.Struct):
    msg_type: str = ""
    msg_id: str = ""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message whose signature was right, its content still packed."""

    channel: Channel
    msg_type: str
    parent_id: str
    parts: tuple[bytes, bytes, bytes, bytes]
    buffers: tuple[bytes, ...]

    @property
    def content(self) -> bytes:
        return self.parts[3]

    @property
    def size(self) -> int:
        """Bytes of content and buffers."""
        return len(self.parts[3]) + sum(map(len, self.buffers))

    def unpack(self) -> Message | None:
        """All of it as plain data, or None if that is not what it is."""
        header, parent, metadata, content = (decode(part, dict[str, Any]) for part in self.parts)
        if header is None or parent is None or metadata is None or content is None:
            return None
        return Message(self.channel, header, parent, metadata, content, self.buffers)


def decode(data: bytes | msgspec.Raw, type: type[T]) -> T | None:
    """`data` as `type`, or None if it is anything else: broken JSON, wrong types, nested too deep."""
    try:
        return msgspec.json.decode(data, type=type)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError):
        return None


@dataclass(frozen=True, eq=False)
class Request:
    """A message that somebody else made, to be sent as it is; its four parts are JSON objects.

    `sent` is set when it is on its way to the kernel.
    """

    channel: Channel
    msg_id: str
    parts: tuple[bytes, bytes, bytes, bytes]
    buffers: tuple[bytes, ...] = ()
    sent: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Listener:
    """Who waits for the answers to one request. Neither callback may raise."""

    receive: Callable[[Incoming], None]
    #: Called for a message that was skipped because of its size, with its bytes; whose it was is not known.
    oversized: Callable[[Channel, int], None] = field(default=lambda channel, size: None)


class Channels:
    """Shell, iopub, control and stdin of one kernel; `directory` holds its sockets, `key` signs the messages."""

    def __init__(self, directory: Path, key: bytes, *, max_message: int = MAX_MESSAGE) -> None:
        self._directory = directory
        self._hmac = hmac.new(key, digestmod=hashlib.sha256)
        #: The same for every gateway of this kernel: what the kernel answers to one that is gone, the next one gets.
        self._identity = hmac.digest(key, b"identity", hashlib.sha256).hex()[:32].encode()
        self._max_message = max_message
        self._session = os.urandom(16).hex()
        self._count = 0
        self._holds = 0
        self._interrupted = False
        self._connections: dict[Channel, Connection] = {}
        self._listeners: dict[str, Listener] = {}
        self._subscribers: list[Callable[[Message], None]] = []
        self._watchers: list[Callable[[Incoming], None]] = []
        self._welcome = asyncio.Event()
        #: Messages that were dropped because they were malformed, unsigned or too large.
        self.refused = 0
        #: Interrupts sent so far, whoever asked for them.
        self.interrupts = 0
        self._closed: asyncio.Future[str] | None = None

    @property
    def closed(self) -> asyncio.Future[str]:
        """Done, with one sentence, once a channel is gone; a kernel's channels do not come back."""
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
        return self._closed

    async def open(self) -> None:
        """Connect all channels. Raises KernelPoolError if the kernel does not answer as one."""
        try:
            for channel, socket_type in _SOCKETS.items():
                self._connections[channel] = await Connection.open(
                    self._directory / channel,
                    socket_type,
                    self._identity,
                    self._max_message,
                    lambda message, channel=channel: self._receive(channel, message),  # type: ignore[misc]
                    lambda reason, channel=channel: self._lose(channel, reason),  # type: ignore[misc]
                )
        except (OSError, ProtocolError) as error:
            await self.close()
            raise KernelPoolError(f"cannot reach the kernel at {self._directory} ({channel}): {error}") from error

    async def close(self) -> None:
        """Drop the connections; the kernel goes on."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if not self.closed.done():
            self.closed.set_result("the channels were closed")

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until the kernel answers requests and its output reaches us. Raises KernelPoolError."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.request("shell", "kernel_info_request", {})
                await self._welcome.wait()
        except TimeoutError as error:
            raise KernelPoolError(f"the kernel at {self._directory} was not ready after {timeout_s} s") from error

    async def subscribed(self) -> None:
        """Wait until the kernel's output reaches us. Raises KernelPoolError if the channels close before."""
        welcome = asyncio.create_task(self._welcome.wait())
        try:
            await asyncio.wait((welcome, self.closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            welcome.cancel()
        if self.closed.done():
            raise KernelPoolError(f"the kernel's output cannot be read: {self.closed.result()}")

    def send(
        self,
        channel: Channel,
        msg_type: str,
        content: Mapping[str, Json],
        *,
        metadata: Mapping[str, Json] | None = None,
        parent: Mapping[str, Json] | None = None,
        buffers: Sequence[bytes] = (),
        msg_id: str | None = None,
        subshell_id: str | None = None,
    ) -> str:
        """Send a message and return its id. Raises KernelPoolError if the channels are closed.

        `subshell_id`: which subshell of a stock kernel it is for (JEP 91).
        """
        connection = self._connections.get(channel)
        if connection is None or self.closed.done():
            raise KernelPoolError(f"the kernel's {channel} channel is closed")
        msg_id = msg_id or self.new_id()
        header = {
            "msg_id": msg_id,
            "msg_type": msg_type,
            "username": "gateway",
            "session": self._session,
            "date": datetime.now(UTC),
            "version": "5.4",
            **({"subshell_id": subshell_id} if subshell_id else {}),
        }
        parts = [msgspec.json.encode(part) for part in (header, parent or {}, metadata or {}, content)]
        connection.send([_DELIMITER, self._sign(parts), *parts, *buffers])
        return msg_id

    def forward(self, request: Request) -> None:
        """Send a message that somebody else made, signed. Raises KernelPoolError if the channels are closed."""
        connection = self._connections.get(request.channel)
        if connection is None or self.closed.done():
            raise KernelPoolError(f"the kernel's {request.channel} channel is closed")
        connection.send([_DELIMITER, self._sign(request.parts), *request.parts, *request.buffers])
        request.sent.set()

    def new_id(self) -> str:
        """An id for a message that is to be sent."""
        self._count += 1
        return f"{self._session}_{self._count}"

    def is_own(self, msg_id: str) -> bool:
        """Whether `msg_id` was made by `new_id`, or could be."""
        return msg_id.startswith(self._session)

    async def request(
        self,
        channel: Channel,
        msg_type: str,
        content: Mapping[str, Json],
        *,
        beside: Callable[[Incoming], None] | None = None,
        buffers: Sequence[bytes] = (),
    ) -> Message:
        """Send a request and wait for its reply; `beside` gets what answers it on iopub.

        Raises KernelPoolError if the channels close before it comes.
        """
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def receive(incoming: Incoming) -> None:
            if incoming.channel == channel and not reply.done():
                message = incoming.unpack()
                if message is not None:
                    reply.set_result(message)
            elif beside is not None and incoming.channel == "iopub":
                beside(incoming)

        with self.listening(msg_id := self.new_id(), Listener(receive)):
            self.send(channel, msg_type, content, msg_id=msg_id, buffers=buffers)
            await asyncio.wait((reply, self.closed), return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            raise KernelPoolError(f"no reply to {msg_type}: {self.closed.result()}")
        return reply.result()

    def hold_output(self, wait: bool) -> None:
        """Read no more of the kernel's output: whoever prints there waits. False: read on. Each hold wants its end.

        Replies come through. After an interrupt it is read all the same: code that prints has to get out of it.
        """
        self._holds += 1 if wait else -1
        self._interrupted = self._interrupted and self._holds > 0
        self._hold_or_not()

    def holding(self) -> bool:
        """Whether the kernel's output is not read at present."""
        return self._holds > 0 and not self._interrupted

    def _hold_or_not(self) -> None:
        iopub = self._connections.get("iopub")
        if iopub is not None:
            iopub.hold(self.holding())

    async def interrupt(self, timeout_s: float = 2.0) -> bool:
        """Interrupt what runs; whether the kernel confirmed it in time. Once confirmed, no later cell is hit."""
        self.interrupts += 1
        self._interrupted = self._holds > 0
        self._hold_or_not()
        try:
            async with asyncio.timeout(timeout_s):
                await self.request("control", "interrupt_request", {})
        except (TimeoutError, KernelPoolError):
            return False
        return True

    @contextlib.contextmanager
    def listening(self, msg_id: str, listener: Listener) -> Iterator[None]:
        """Give `listener` what answers the message `msg_id`, for as long as the block runs."""
        self._listeners[msg_id] = listener
        try:
            yield
        finally:
            del self._listeners[msg_id]

    def subscribe(self, callback: Callable[[Message], None]) -> Callable[[], None]:
        """Give `callback` every message from the kernel, in order; returns how to end that. It must not block."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def watch(self, callback: Callable[[Incoming], None]) -> Callable[[], None]:
        """As `subscribe`, but the messages come packed."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def _sign(self, parts: Sequence[bytes]) -> bytes:
        signature = self._hmac.copy()
        for part in parts:
            signature.update(part)
        return signature.hexdigest().encode()

    def _lose(self, channel: Channel, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(f"the kernel's {channel} channel ended: {reason}")

    def _receive(self, channel: Channel, frames: list[bytes] | Oversized) -> None:
        if isinstance(frames, Oversized):
            self.refused += 1
            for listener in tuple(self._listeners.values()):
                listener.oversized(channel, frames.size)
            return
        incoming = self._check(channel, frames)
        if incoming is None:
            self.refused += 1
            return
        if incoming.msg_type == "iopub_welcome":
            self._welcome.set()
        waiting = self._listeners.get(incoming.parent_id)
        try:
            if waiting is not None:
                waiting.receive(incoming)
            for watcher in tuple(self._watchers):
                watcher(incoming)
            if self._subscribers and (message := incoming.unpack()) is not None:
                for subscriber in tuple(self._subscribers):
                    subscriber(message)
        except Exception:  # noqa: BLE001  # the boundary to a kernel: one message must not end the reading of the others
            _log.exception("a message of the kernel at %s was not handled", self._directory)

    def _check(self, channel: Channel, frames: list[bytes]) -> Incoming | None:
        """The message in `frames` if it is well-formed and signed with this kernel's key."""
        try:
            start = frames.index(_DELIMITER, 0, 8) + 1
        except ValueError:
            return None
        if len(frames) < start + 5:
            return None
        header, parent, metadata, content = frames[start + 1 : start + 5]
        parts = (header, parent, metadata, content)
        if not hmac.compare_digest(frames[start], self._sign(parts)):
            return None
        head, origin = decode(header, _Header), decode(parent, _Header)
        if head is None or origin is None:
            return None
        return Incoming(channel, head.msg_type, origin.msg_id, parts, tuple(frames[start + 5 :]))
