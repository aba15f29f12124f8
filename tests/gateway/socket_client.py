"""A raw client of Jupyter's kernel websocket, in both protocols, that relies on nothing of the product."""

from __future__ import annotations

import itertools
import json
import struct
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gateway_world import ServedGateway
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

V1 = "v1.kernel.websocket.jupyter.org"
Message = dict[str, Any]


class Socket:
    """One connection to a kernel's channels."""

    def __init__(self, connection: ClientConnection, session: str) -> None:
        self.connection = connection
        self.session = session
        self.v1 = connection.subprotocol == V1

    def send(self, msg_type: str, content: Message, *, channel: str = "shell", **more: Any) -> str:
        """Send a message as clients do; its id."""
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": msg_type,
            "username": "test",
            "session": self.session,
            "date": "2026-01-01T00:00:00Z",
            "version": "5.3",
        }
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content} | more
        parts = [json.dumps(message[part]).encode() for part in ("header", "parent_header", "metadata", "content")]
        buffers = more.get("buffers", [])
        if self.v1:
            self.connection.send(pack([channel.encode(), *parts, *buffers], "<Q", end=True))
        elif buffers:
            message |= {"channel": channel, "buffers": []}
            self.connection.send(pack([json.dumps(message).encode(), *buffers], ">I", end=False))
        else:
            self.connection.send(json.dumps(message | {"channel": channel}))
        return str(message["header"]["msg_id"])

    def receive(self, timeout: float = 20) -> Message:
        data = self.connection.recv(timeout)
        if isinstance(data, str):
            message: Message = json.loads(data)
            return message
        if not self.v1:
            text, *buffers = unpack(data, ">I")
            return json.loads(text) | {"buffers": buffers}
        channel, header, parent, metadata, content, *buffers = unpack(data, "<Q")
        return {
            "channel": channel.decode(),
            "header": json.loads(header),
            "parent_header": json.loads(parent),
            "metadata": json.loads(metadata),
            "content": json.loads(content),
            "buffers": buffers,
        }

    def until(self, done: Callable[[Message], bool], timeout: float = 20) -> list[Message]:
        """What comes, up to and with the first message that is `done`."""
        got: list[Message] = []
        while not got or not done(got[-1]):
            got.append(self.receive(timeout))
        return got

    def end(self) -> tuple[int, str]:
        """Code and reason with which the gateway ends the connection."""
        try:
            while True:
                self.connection.recv(20)
        except ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")

    def execute(self, code: str, **more: Any) -> str:
        return self.send("execute_request", {"code": code, "silent": False, "allow_stdin": False} | more)

    def run(self, code: str, **more: Any) -> Ran:
        """A cell to its end: the reply and idle."""
        return self.end_of(self.execute(code, **more))

    def end_of(self, msg_id: str) -> Ran:
        """What comes of a cell that was sent."""
        ran = Ran()
        while ran.reply is None or not ran.idle:
            message = self.receive()
            if message["parent_header"].get("msg_id") == msg_id:
                ran.take(message)
        return ran

    def request(self, msg_type: str, content: Message, channel: str = "shell") -> Message:
        """A request, and the reply to it."""
        msg_id = self.send(msg_type, content, channel=channel)
        got = self.until(lambda each: each["channel"] == channel and each["parent_header"].get("msg_id") == msg_id)
        return got[-1]


class Ran:
    """What came of a cell."""

    def __init__(self) -> None:
        self.reply: Message | None = None
        self.idle = False
        self.messages: list[Message] = []

    def take(self, message: Message) -> None:
        self.messages.append(message)
        if message["header"]["msg_type"] == "execute_reply":
            self.reply = message["content"]
        elif message["header"]["msg_type"] == "status":
            self.idle = message["content"]["execution_state"] == "idle"

    @property
    def status(self) -> str:
        assert self.reply is not None
        return str(self.reply["status"])

    def texts(self, name: str = "stdout") -> str:
        streams = [each["content"] for each in self.messages if each["header"]["msg_type"] == "stream"]
        return "".join(each["text"] for each in streams if each["name"] == name)


def pack(parts: list[bytes], code: str, *, end: bool) -> bytes:
    offsets = [struct.calcsize(code) * (len(parts) + 1 + end)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    count = len(parts) + end
    return struct.pack(f"{code[0]}{count + 1}{code[1]}", count, *offsets[:count]) + b"".join(parts)


def unpack(data: bytes, code: str) -> list[bytes]:
    width = struct.calcsize(code)
    (count,) = struct.unpack_from(code, data)
    offsets = [*struct.unpack_from(f"{code[0]}{count}{code[1]}", data, width)]
    offsets += [len(data)] if code == ">I" else []
    return [data[start:end] for start, end in itertools.pairwise(offsets)]


@contextmanager
def socket(
    gateway: ServedGateway, kernel: str, *, session: str | None = None, v1: bool = False, token: str | None = None
) -> Iterator[Socket]:
    """A connection to a kernel of the gateway. `session`: its session_id, "" for none."""
    session = uuid.uuid4().hex if session is None else session
    address = gateway.url.replace("http", "ws", 1) + f"/api/kernels/{kernel}/channels"
    with connect(
        address + (f"?session_id={session}" if session else ""),
        additional_headers={"authorization": f"token {token or gateway.token}"},
        subprotocols=[Subprotocol(V1)] if v1 else None,
        max_size=2**26,
        compression=None,
        open_timeout=20,
        close_timeout=2,
    ) as connection:
        yield Socket(connection, session or "none")
