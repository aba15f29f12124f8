"""A session that a gateway has in hand, and how it comes by its kernel and loses it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from gateway.broker import Broker
from gateway.cell_run import OutputStream
from gateway.checking.history import History
from gateway.saving import save
from gateway.session_errors import SessionEnded, SessionLost
from gateway.session_rows import SessionRows, SessionState
from gateway.transcripts.transcript import Transcript
from gateway.types import CellRun, Grant
from kernel_pool.pool import Kernel, Pool


@dataclass(eq=False)
class Job:
    """A cell that runs or waits, for those who ask for the same one."""

    code: str
    stream: OutputStream
    task: asyncio.Task[CellRun] = field(init=False)
    #: Set at its end.
    over: asyncio.Event = field(default_factory=asyncio.Event)
    #: It is on its way to its kernel, or there.
    begun: bool = False
    #: It is not to begin any more.
    cancelled: bool = False


@dataclass
class LiveSession:
    """A session that this gateway has in hand."""

    grant: Grant
    transcript: Transcript
    #: The kind of kernel that it runs in.
    profile: str
    next_index: int = 1
    kernel: Kernel | None = None
    #: Why the kernel is gone; "" while there is one, or before there was one.
    lost: str = ""
    over: bool = False
    #: Taken over from a gateway that is gone: its cells are to run again before anything else.
    moved: bool = False
    #: All that runs or waits for it here.
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    #: An event for each cell that runs or waits, in order; set at its end.
    cells: deque[asyncio.Event] = field(default_factory=deque)
    #: Those that run or wait, by their ids.
    jobs: dict[str, Job] = field(default_factory=dict)
    #: What could not be saved yet, in order.
    owed: deque[Callable[[], Awaitable[object]]] = field(default_factory=deque)
    #: Runs that are being saved behind their answers, and what saves them.
    unsaved: list[CellRun] = field(default_factory=list)
    saving: asyncio.Task[None] | None = None
    #: The kernel works on the first of them; and when the last one ended (loop time).
    executing: bool = False
    used: float = 0.0
    #: What the cells of its kernel have made of its namespace, for the check of the next; and the advice it was given.
    history: History = field(default_factory=partial(History, whole=False))
    advised: set[str] = field(default_factory=set)
    #: Variables that each of its kernels starts with.
    env: Mapping[str, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class SessionKernels:
    """Leases kernels for sessions and takes them back; the caller holds the session's lock."""

    def __init__(self, pool: Pool, broker: Broker, rows: SessionRows, history: Callable[[], History]) -> None:
        """`history`: of a kernel that is new."""
        self._history = history
        self._pool = pool
        self._broker = broker
        self._rows = rows
        #: Told each kernel that a session gets, before anything runs in it.
        self.told: list[Callable[[str, Kernel], None]] = []

    async def ready(self, live: LiveSession) -> None:
        """Make sure of a kernel that lives.

        Raises:
            SessionEnded
            SessionLost: there was one.
            KernelPoolError: none is to be had.
        """
        session = live.grant.session
        if live.over:
            raise SessionEnded(session)
        if live.kernel is not None and live.kernel.exited.done():
            await self.lose(live, live.kernel.exited.result().detail)
        if live.lost:
            raise SessionLost(session, live.lost)
        if live.kernel is None:
            await self.lease(live)
        if live.over:  # ended meanwhile
            raise SessionEnded(session)

    async def lease(self, live: LiveSession) -> None:
        """A fresh kernel, its broker socket armed. Raises KernelPoolError."""
        grant = live.grant
        kernel = await self._pool.lease(live.profile, tenant=grant.tenant, note=grant.session, env=live.env)
        try:
            await self._broker.arm(kernel.broker_path, live.grant)
        except BaseException:
            await self._pool.release(kernel)
            raise
        live.kernel, live.lost, live.history = kernel, "", self._history()
        live.used = asyncio.get_running_loop().time()
        for told in self.told:
            told(grant.session, kernel)

    async def lose(self, live: LiveSession, why: str) -> None:
        """Take the kernel, dead or alive; the session is lost until it is restored."""
        await self.drop(live)
        await self._broker.disarm(live.grant.session)
        live.lost = why
        await self.set_state(live, "lost", why)

    async def drop(self, live: LiveSession) -> None:
        """End the kernel, if there is one."""
        kernel, live.kernel = live.kernel, None
        if kernel is not None:
            await self._pool.release(kernel)

    async def set_state(self, live: LiveSession, state: SessionState, reason: str = "") -> None:
        """In the database and in the transcript, as soon as it can be."""
        header = msgspec.structs.replace(live.transcript.header, state=state)
        await save(live, lambda: self._rows.set_state(live.grant.session, state, reason), in_order=False)
        await save(live, lambda: live.transcript.set_header(header))
