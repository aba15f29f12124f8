"""What the clients of one kernel ask for on its shell channel, in order: cells one after the other, the rest between.

A cell that waits for another one waits here, not in the kernel: the broker is to know which of them makes a call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from gateway.jupyter.wire import Asked
from kernel_pool.channels import decode


class Execute(msgspec.Struct):
    """Content of an execute_request, as much as the gateway looks at."""

    code: str
    stop_on_error: bool = True


def is_cell(asked: Asked) -> bool:
    """Whether the content of an execute_request is one."""
    return decode(asked.request.parts[3], Execute) is not None


@dataclass(eq=False)
class Item:
    """One request that waits or runs."""

    asked: Asked
    #: None for anything but a cell.
    execute: Execute | None
    aborted: bool = False
    #: The kernel has answered it.
    replied: bool = False


@dataclass
class Shell:
    """The requests. `run` runs one cell to its end, `send` sends the rest, `abort` answers a cell that is not run."""

    run: Callable[[Item], Awaitable[None]]
    send: Callable[[Asked], Awaitable[None]]
    abort: Callable[[Item], None]
    running: Item | None = None
    size: int = 0
    _waiting: deque[Item] = field(default_factory=deque)
    _task: asyncio.Task[None] | None = None
    _cell: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def put(self, asked: Asked) -> None:
        """One more request."""
        execute = decode(asked.request.parts[3], Execute) if asked.msg_type == "execute_request" else None
        self._waiting.append(Item(asked, execute))
        self.size += asked.size
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    def fail(self) -> None:
        """The cell that runs failed: those that wait behind it do not run."""
        for item in self._waiting:
            item.aborted = item.execute is not None

    def clear(self) -> None:
        """Nothing that waits is run."""
        self.fail()
        for item in [item for item in self._waiting if item.execute is None]:
            self._waiting.remove(item)
            self.size -= item.asked.size

    async def close(self) -> None:
        """Stop waiting; a cell that runs goes on."""
        self._waiting.clear()
        for task in (self._task, self._cell):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))

    async def _work(self) -> None:
        while self._waiting:
            item = self._waiting[0]
            if item.execute is not None and self._cell is not None and not self._cell.done():
                await asyncio.wait((self._cell,))
                continue
            if not self._waiting or self._waiting[0] is not item:
                continue
            self._waiting.popleft()
            self.size -= item.asked.size
            if item.aborted:
                self.abort(item)
            elif item.execute is None:
                await self.send(item.asked)
            else:
                self._cell = asyncio.create_task(self._run(item))
                sent = asyncio.create_task(item.asked.request.sent.wait())
                await asyncio.wait((self._cell, sent), return_when=asyncio.FIRST_COMPLETED)
                sent.cancel()

    async def _run(self, item: Item) -> None:
        self.running = item
        try:
            await self.run(item)
        finally:
            self.running = None
