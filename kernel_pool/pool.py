"""The pool: keeps isolated kernels ready, leases each of them once, and knows why one ended.

A kernel that was leased is never leased again: no reset of a process that ran foreign code is trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path

from kernel_pool.channels import Channels
from kernel_pool.execution import execute
from kernel_pool.local import LocalPlace
from kernel_pool.outputs import Sink
from kernel_pool.place import Place, Process
from kernel_pool.types import (
    CellResult,
    Exit,
    ExitReason,
    KernelGone,
    KernelPoolError,
    PoolConfig,
    PoolExhausted,
)
from kernel_pool.watch import watch_memory

_log = logging.getLogger(__name__)

#: Kernels that start at once; more would only slow each other down.
_STARTING = 2
#: After a start that failed: wait this long, twice as long each time, up to the second figure.
_RETRY_S = (0.5, 15.0)
_SHUTDOWN = Exit(ExitReason.SHUTDOWN, "the session was ended")
_CLOSED = Exit(ExitReason.SHUTDOWN, "the gateway was stopped")
_UNREADY = Exit(ExitReason.CRASH, "the kernel did not answer when it was started")


class Kernel:
    """One isolated kernel, for one lease."""

    def __init__(self, process: Process, channels: Channels, config: PoolConfig) -> None:
        self.id = process.id
        self.directory: Path = process.directory
        #: Where this kernel, and no other, looks for its broker; the gateway makes the socket.
        self.broker_path: Path = process.directory / "broker.sock"
        self.pid = process.pid
        #: Done when all processes of the kernel have ended.
        self.exited: asyncio.Future[Exit] = process.exited
        self.channels = channels
        self.process = process
        self._config = config

    async def execute(
        self,
        code: str,
        *,
        deadline_s: float,
        on_output: Sink | None = None,
        user_expressions: Mapping[str, str] | None = None,
        cell_id: str = "",
    ) -> CellResult:
        """Run a cell; see `execution.execute`. Raises KernelGone when the kernel ended before the cell began."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        return await execute(
            self.channels,
            code,
            deadline_s=deadline_s,
            interrupt_grace_s=self._config.interrupt_grace_s,
            limits=self._config.limits,
            interrupt=self.interrupt,
            kill=self.kill,
            exited=self.exited,
            on_output=on_output,
            user_expressions=user_expressions,
            cell_id=cell_id,
        )

    async def interrupt(self) -> None:
        """Stop the running cell: by message, and by signal if the kernel does not confirm it. Raises KernelGone."""
        if self.exited.done():
            raise KernelGone(self.exited.result())
        if not await self.channels.interrupt():
            with contextlib.suppress(KernelGone):
                self.process.interrupt()

    async def kill(self, exit: Exit) -> None:
        """End the kernel and all its processes, and wait for it; `exit` says why."""
        await self.process.kill(exit)


@dataclass(frozen=True)
class PoolStatus:
    """Counts of one moment, and of the pool's life."""

    ready: int
    leased: int
    starting: int
    waiting: int
    warm: int
    maximum: int
    started: int
    #: Kernels that ended without being asked to.
    died: int
    #: Why the last start failed; "" after one that did not.
    problem: str


class Pool:
    """Warm kernels in stock, up to a maximum that counts leased ones too. All methods belong to one event loop."""

    def __init__(self, config: PoolConfig, place: Place | None = None) -> None:
        self._config = config
        self._place: Place = place or LocalPlace(config)
        self._ready: deque[Kernel] = deque()
        self._leased: dict[str, Kernel] = {}
        self._waiting: deque[asyncio.Future[Kernel]] = deque()
        self._starts: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._failures = 0
        self._problem = ""
        self._started = 0
        self._died = 0
        self._open = False

    async def start(self) -> None:
        """Bring the place up and begin to fill the stock. Raises IsolationUnavailable or StartFailed."""
        await self._place.start()
        self._open = True
        watching = watch_memory(self._processes, self._config.limits.memory_mb, self._config.watch_interval_s)
        self._spawn_task(watching)
        self._fill()

    async def close(self) -> None:
        """End every kernel and leave no process, socket or folder behind. Safe to call again."""
        self._open = False
        if self._retry is not None:
            self._retry.cancel()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(PoolExhausted("the pool was closed"))
        for task in (*self._starts, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._starts, *self._tasks, return_exceptions=True)
        kernels = [*self._ready, *self._leased.values()]
        self._ready.clear()
        self._leased.clear()
        await asyncio.gather(*(self._end(kernel, _CLOSED) for kernel in kernels), return_exceptions=True)
        await self._place.close()

    async def lease(self) -> Kernel:
        """A ready kernel, for this caller alone; give it back with `release`.

        Raises PoolExhausted when none becomes free within `lease_timeout_s`, with the reason.
        """
        if not self._open:
            raise PoolExhausted("the pool is not running")
        while self._ready:
            kernel = self._ready.popleft()
            if not kernel.exited.done():
                self._leased[kernel.id] = kernel
                self._fill()
                return kernel
        waiter: asyncio.Future[Kernel] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._fill()
        try:
            async with asyncio.timeout(self._config.lease_timeout_s):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._put_back(waiter.result())
            if isinstance(error, TimeoutError):
                raise PoolExhausted(self._why_exhausted()) from None
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)

    async def release(self, kernel: Kernel) -> None:
        """End a leased kernel and remove what is left of it. Safe to call again."""
        self._leased.pop(kernel.id, None)
        await self._end(kernel, _SHUTDOWN)
        self._fill()

    def status(self) -> PoolStatus:
        return PoolStatus(
            ready=len(self._ready),
            leased=len(self._leased),
            starting=len(self._starts),
            waiting=len(self._waiting),
            warm=self._config.warm,
            maximum=self._config.maximum,
            started=self._started,
            died=self._died,
            problem=self._problem,
        )

    def _processes(self) -> list[Process]:
        return [kernel.process for kernel in (*self._ready, *self._leased.values())]

    def _why_exhausted(self) -> str:
        text = f"no kernel became free in {self._config.lease_timeout_s:g} s"
        if self._problem:
            return f"{text}; starting one failed: {self._problem}"
        return f"{text}: {len(self._leased)} of at most {self._config.maximum} are in use. End sessions or raise it."

    # -- the stock --

    def _fill(self) -> None:
        """Start what is missing: the stock, and one for each who waits; never more than the maximum."""
        if not self._open or self._retry is not None:
            return
        while (
            len(self._starts) < _STARTING
            and len(self._ready) + len(self._starts) < self._config.warm + len(self._waiting)
            and len(self._ready) + len(self._leased) + len(self._starts) < self._config.maximum
        ):
            task = asyncio.create_task(self._start_one())
            self._starts.add(task)
            task.add_done_callback(self._started_one)

    def _started_one(self, task: asyncio.Task[None]) -> None:
        self._starts.discard(task)
        self._fill()

    async def _start_one(self) -> None:
        try:
            kernel = await self._start_kernel()
        except KernelPoolError as error:
            self._postpone(str(error))
            return
        except OSError as error:
            self._postpone(f"{type(error).__name__}: {error}")
            return
        self._started += 1
        self._failures, self._problem = 0, ""
        kernel.exited.add_done_callback(lambda _: self._ended(kernel))
        self._put_back(kernel)

    async def _start_kernel(self) -> Kernel:
        process = await self._place.spawn()
        channels = Channels(process.directory, process.key)
        try:
            await channels.open()
            await channels.wait_ready(self._config.start_timeout_s)
        except BaseException:
            await channels.close()
            await process.kill(_UNREADY)
            await self._place.discard(process)
            raise
        return Kernel(process, channels, self._config)

    def _put_back(self, kernel: Kernel) -> None:
        """Give a fresh kernel to the one who waits longest, or into the stock."""
        self._leased.pop(kernel.id, None)
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._leased[kernel.id] = kernel
                waiter.set_result(kernel)
                return
        self._ready.append(kernel)

    def _postpone(self, problem: str) -> None:
        """A start failed: try again later, each time after a longer pause."""
        self._problem = problem
        first, longest = _RETRY_S
        pause = min(longest, first * 2**self._failures)
        self._failures += 1
        _log.error("a kernel did not start (next try in %g s): %s", pause, problem)

        def retry() -> None:
            self._retry = None
            self._fill()

        if self._open and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(pause, retry)

    def _ended(self, kernel: Kernel) -> None:
        """A kernel's processes are gone: out of the stock, and a new one in. A leased one stays until its release."""
        exit = kernel.exited.result()
        if exit.reason is not ExitReason.SHUTDOWN:
            self._died += 1
            _log.warning("kernel %s ended (%s): %s", kernel.id, exit.reason, exit.detail)
        if kernel in self._ready:
            self._ready.remove(kernel)
            if self._open:
                self._spawn_task(self._end(kernel, exit))
        self._fill()

    async def _end(self, kernel: Kernel, exit: Exit) -> None:
        await kernel.kill(exit)
        await kernel.channels.close()
        await self._place.discard(kernel.process)

    def _spawn_task(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
