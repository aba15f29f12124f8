"""The kernels of one profile: those that are ready, those that start, those that are leased, and who waits for one."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Protocol

from kernel_pool.channels import Channels
from kernel_pool.demand import Demand
from kernel_pool.kernel import Kernel
from kernel_pool.place import Process
from kernel_pool.sites import Site, Sites
from kernel_pool.types import Exit, ExitReason, KernelPoolError, PoolConfig, PoolExhausted, Profile

_log = logging.getLogger(__name__)

#: After a start that failed: wait this long, twice as long each time, up to the second figure.
_RETRY_S = (0.5, 15.0)
_UNREADY = Exit(ExitReason.CRASH, "the kernel did not answer when it was started")
_SURPLUS = Exit(ExitReason.SHUTDOWN, "the stock had more kernels than are needed")
_OUTDATED = Exit(ExitReason.SHUTDOWN, "a newer generation took its place")

#: How a process becomes a kernel that can be spoken to, with True one that answers; tests have their own. Raises
#: KernelPoolError or OSError.
Connect = Callable[[Process, Profile, bool], Coroutine[None, None, Kernel]]


class Floor(Protocol):
    """What a stock has to know of the rest of the pool."""

    def room(self, *, waiting: bool) -> bool:
        """Whether one more kernel may live; for the stock, or for a lease that waits."""

    def pause(self) -> float:
        """Seconds that a refill should wait before it looks again; 0 if now is a good time."""


class Stock:
    """All methods belong to one event loop."""

    def __init__(self, config: PoolConfig, profile: Profile, sites: Sites, floor: Floor, connect: Connect) -> None:
        self.profile = profile
        self.sites = sites
        self.demand = Demand(config.demand_half_life_s)
        self.ready: deque[Kernel] = deque()
        self.leased: dict[str, Kernel] = {}
        self.waiting: deque[asyncio.Future[Kernel]] = deque()
        self.started = 0
        self.died = 0
        self.problem = ""
        self._config = config
        self._floor = floor
        self._connect = connect
        self._site_of: dict[str, Site] = {}
        self._starts: set[asyncio.Task[None]] = set()
        self._refills: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.Task[None]] = set()
        #: When each kernel was taken that has not been replaced yet.
        self._gaps: deque[float] = deque()
        self._later: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._failures = 0
        self._open = False

    @property
    def starting(self) -> int:
        return len(self._starts)

    @property
    def living(self) -> int:
        """Kernels that count against the pool's maximum."""
        return len(self.ready) + len(self.leased) + len(self._starts)

    @property
    def target(self) -> int:
        """Ready kernels that are wanted now."""
        return self.demand.target(_now(), self.profile.minimum, max(self.profile.minimum, self.profile.maximum))

    async def open(self, *, place: bool) -> None:
        """Begin to fill. With `place` its place is brought up now, else by the first lease.

        Raises IsolationUnavailable or StartFailed.
        """
        if place:
            await self.sites.open()
        self._open = True
        self.fill()

    async def close(self) -> list[Kernel]:
        """Stop all starts, tell those who wait, and hand over the kernels that are left to be ended."""
        self._open = False
        for timer in (self._retry, self._later):
            if timer is not None:
                timer.cancel()
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_exception(PoolExhausted("the pool was closed"))
        for task in tuple(self._starts):
            task.cancel()
        await asyncio.gather(*self._starts, *self._ends, return_exceptions=True)
        kernels = [*self.ready, *self.leased.values()]
        self.ready.clear()
        self.leased.clear()
        return kernels

    # -- leases --

    def take(self) -> Kernel | None:
        """A ready kernel, leased from now on; None when there is none."""
        self.demand.arrived(_now())
        while self.ready:
            kernel = self.ready.popleft()
            if kernel.exited.done():  # so lately that nobody has heard of it yet
                self._spawn_end(kernel, kernel.exited.result())
                continue
            self.leased[kernel.id] = kernel
            self._gaps.append(_now())
            self.fill()
            return kernel
        return None

    async def wait(self, timeout_s: float) -> Kernel:
        """The next kernel that becomes ready, after those who wait already. Raises PoolExhausted or TimeoutError."""
        waiter: asyncio.Future[Kernel] = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        self._gaps.append(_now())
        self.fill()
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.put_back(waiter.result())
            raise
        finally:
            if waiter in self.waiting:
                self.waiting.remove(waiter)

    def put_back(self, kernel: Kernel) -> None:
        """Give a kernel that nobody used to the one who waits longest, or into the stock."""
        self.leased.pop(kernel.id, None)
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                self.leased[kernel.id] = kernel
                waiter.set_result(kernel)
                return
        self.ready.append(kernel)
        if len(self.ready) >= self.target:
            self._gaps.clear()

    async def release(self, kernel: Kernel, exit: Exit) -> None:
        """End a kernel, leased or not, and clear away what is left of it. Safe to call again."""
        self.leased.pop(kernel.id, None)
        if kernel in self.ready:
            self.ready.remove(kernel)
        await self.end(kernel, exit)
        self.fill()

    async def end(self, kernel: Kernel, exit: Exit) -> None:
        await kernel.kill(exit)
        await kernel.channels.close()
        site = self._site_of.pop(kernel.id, None)
        if site is not None:
            await site.place.discard(kernel.process)
            await self.sites.gone(site)

    def retire(self, kernel: Kernel, exit: Exit) -> None:
        """End a ready kernel in the background; another takes its place."""
        self._spawn_end(kernel, exit)

    def settle(self, kernel: Kernel, site: Site, *, leased: bool) -> None:
        """Take in a kernel that lives in `site`."""
        self._site_of[kernel.id] = site
        kernel.exited.add_done_callback(lambda _: self._ended(kernel))
        if leased:
            self.leased[kernel.id] = kernel
        else:
            self.put_back(kernel)

    # -- the stock --

    def fill(self) -> None:
        """Start what is missing: one for each who waits, and the stock when nothing is in its way."""
        if not self._open or self._retry is not None:
            return
        if self._later is not None and self.ready and not self.waiting:
            return  # it is going to look again in a moment
        policy = self._config.exhaustion
        if policy == "start":
            while (
                len(self._starts) < min(len(self.waiting), self._config.lease_starts)
                and self._floor.room(waiting=True)
            ):  # fmt: skip
                self._begin(refill=False)
        if self.waiting and policy == "start":
            return  # what starts is theirs; the stock is filled when nobody waits
        wanted = max(self.target, 1 if self.waiting else 0)
        while self._missing(wanted) and len(self._refills) < self._config.refill_starts:
            if not self._floor.room(waiting=bool(self.waiting)):
                return
            pause = self._floor.pause() if self.ready else 0.0
            if pause > 0:
                self._look_again(pause)
                return
            self._begin(refill=True)

    def trim(self) -> None:
        """End one kernel of a stock that demand has left; the oldest, since it would be replaced first."""
        if len(self.ready) > self.target and not self.waiting:
            self._spawn_end(self.ready[0], _SURPLUS)

    def give_way(self) -> bool:
        """End a ready kernel to make room for a lease of another profile; whether there was one."""
        if not self.ready or self.waiting:
            return False
        self._spawn_end(self.ready[0], _SURPLUS)
        return True

    async def renew(self, config: PoolConfig | None = None) -> bool:
        """Change to the generation of now; whether it is another. Raises IsolationUnavailable or StartFailed.

        The first kernels of the new place are ready before the stock of the old one is ended, so that leases go on.
        """
        site = await self.sites.successor(config)
        if site is None:
            return False
        try:
            first = [await self._start(site) for _ in range(min(len(self.ready), max(1, self.profile.minimum)))]
        except BaseException:
            await self.sites.abandon(site)
            raise
        old = [*self.ready]
        await self.sites.switch(site)
        self.problem = ""
        for kernel in first:
            self.settle(kernel, site, leased=False)
        for kernel in old:
            if kernel in self.ready:
                self._spawn_end(kernel, _OUTDATED)
        self.fill()
        return True

    def _missing(self, wanted: int) -> bool:
        return len(self.ready) + len(self._starts) - len(self.waiting) < wanted

    def _look_again(self, pause: float) -> None:
        def look() -> None:
            self._later = None
            self.fill()

        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(pause, look)

    def _begin(self, *, refill: bool) -> None:
        task = asyncio.create_task(self._start_one())
        self._starts.add(task)
        if refill:
            self._refills.add(task)
        task.add_done_callback(self._begun)

    def _begun(self, task: asyncio.Task[None]) -> None:
        self._starts.discard(task)
        self._refills.discard(task)
        self.fill()

    async def _start_one(self) -> None:
        began = _now()
        try:
            site = await self.sites.open()
            kernel = await self._start(site)
        except KernelPoolError as error:
            self._postpone(str(error))
            return
        except OSError as error:
            self._postpone(f"{type(error).__name__}: {error}")
            return
        self._failures, self.problem = 0, ""
        # of a lease whose kernel had to wait for its replacement, that too
        self.demand.refilled(_now() - min(began, self._gaps.popleft() if self._gaps else began))
        # from here on it is counted as ready or leased, and not as a start any more
        if (task := asyncio.current_task()) is not None:
            self._starts.discard(task)
        self.settle(kernel, site, leased=False)
        if kernel in self.ready and site is not self.sites.current:
            self._spawn_end(kernel, _OUTDATED)

    async def _start(self, site: Site) -> Kernel:
        """A kernel in `site` that answers. Raises KernelPoolError or OSError."""
        site.kernels += 1
        try:
            process = await site.place.spawn()
            try:
                kernel = await self._connect(process, self.profile, True)
            except BaseException:
                await process.kill(_UNREADY)
                await site.place.discard(process)
                raise
        except BaseException:
            await self.sites.gone(site)
            raise
        self.started += 1
        return kernel

    def _postpone(self, problem: str) -> None:
        """A start failed: try again later, each time after a longer pause."""
        self.problem = problem
        first, longest = _RETRY_S
        pause = min(longest, first * 2**self._failures)
        self._failures += 1
        _log.error("a kernel of profile %s did not start (next try in %g s): %s", self.profile.name, pause, problem)

        def retry() -> None:
            self._retry = None
            self.fill()

        if self._open and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(pause, retry)

    def _ended(self, kernel: Kernel) -> None:
        """A kernel's processes are gone: out of the stock, and a new one in. A leased one stays until its release."""
        exit = kernel.exited.result()
        if exit.reason is not ExitReason.SHUTDOWN:
            self.died += 1
            _log.warning("kernel %s ended (%s): %s", kernel.id, exit.reason, exit.detail)
        if kernel in self.ready and self._open:
            self._spawn_end(kernel, exit)
        self.fill()

    def _spawn_end(self, kernel: Kernel, exit: Exit) -> None:
        if kernel in self.ready:
            self.ready.remove(kernel)
        task = asyncio.create_task(self.end(kernel, exit))
        self._ends.add(task)
        task.add_done_callback(self._end_over)

    def _end_over(self, task: asyncio.Task[None]) -> None:
        self._ends.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a kernel of profile %s could not be cleared away: %s", self.profile.name, error)
        self.fill()


async def connect(config: PoolConfig, process: Process, profile: Profile, wait: bool) -> Kernel:
    """Open the channels of a kernel; with `wait`, until it answers. Raises KernelPoolError."""
    channels = Channels(process.directory, process.key)
    try:
        await channels.open()
        if wait:
            await channels.wait_ready(config.start_timeout_s)
    except BaseException:
        await channels.close()
        raise
    return Kernel(process, channels, profile, config.interrupt_grace_s)


def _now() -> float:
    return asyncio.get_running_loop().time()
