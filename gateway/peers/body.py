"""The body of a request that may be another gateway's: what is small is kept, to be sent again; a large one streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Message, Receive


class ClientGone(Exception):
    """It went away in the middle of its request."""


class Body:
    """What was read of a body, and where the rest of it comes from."""

    def __init__(self, first: bytes, rest: Receive | None = None) -> None:
        """`rest`: None where `first` is all."""
        self.first = first
        self._rest = rest
        self._over = asyncio.Event()
        if rest is None:
            self._over.set()
        #: Some of the rest is gone: the request cannot be made again.
        self.begun = False

    @property
    def content(self) -> bytes | AsyncIterator[bytes]:
        """All of it, for a client to send."""
        return self.first if self._rest is None else self._parts(self._rest)

    async def gone_on(self) -> None:
        """Returns when there is nothing left of it."""
        await self._over.wait()

    async def _parts(self, rest: Receive) -> AsyncIterator[bytes]:
        self.begun = True
        yield self.first
        more = True
        while more:
            message = await rest()
            if message["type"] != "http.request":
                raise ClientGone
            yield message.get("body", b"")
            more = message.get("more_body", False)
        self._over.set()


async def read(receive: Receive, most: int) -> tuple[Body, Receive]:
    """A request's body, of which not much more than `most` bytes are read; and the request as if it had not been."""
    messages: list[Message] = []
    first = bytearray()
    more = True
    while more and len(first) <= most:
        message = await receive()
        messages.append(message)
        first += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
    left = iter(messages)

    async def again() -> Message:
        return next(left, None) or await receive()

    return Body(bytes(first), receive if more else None), again
