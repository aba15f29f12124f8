"""The pool: keeps isolated kernels of several profiles ready, leases each once, and knows why one ended.

A kernel that was leased is never leased again: no reset of a process that ran foreign code is trusted.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from kernel_pool.folders import PoolFolder
from kernel_pool.inject import Injection
from kernel_pool.kernel import Kernel as Kernel
from kernel_pool.lease_note import LeaseNote
from kernel_pool.local import LocalPlace
from kernel_pool.place import Process
from kernel_pool.quota import Quota
from kernel_pool.sites import PlaceOf, Sites, retired
from kernel_pool.stock import Connect, Stock, connect
from kernel_pool.takeover import take_over
from kernel_pool.types import (
    Exit,
    ExitReason,
    KernelPoolError,
    PoolConfig,
    PoolExhausted,
    Profile,
    StartFailed,
    UnknownProfile,
)
from kernel_pool.upkeep import Upkeep
from kernel_pool.watch import watch_memory

_SHUTDOWN = Exit(ExitReason.SHUTDOWN, "the session was ended")
_CLOSED = Exit(ExitReason.SHUTDOWN, "the gateway was stopped")
_SPOILED = Exit(ExitReason.SHUTDOWN, "the lease could not be made ready")


@dataclass(frozen=True)
class ProfileStatus:
    """Counts of one profile at one moment, and of the pool's life."""

    ready: int
    leased: int
    frozen: int
    starting: int
    waiting: int
    #: Ready kernels that are wanted now, and between which bounds.
    target: int
    minimum: int
    maximum: int
    #: Leases per second, smoothed, and how long a kernel takes to be replaced.
    leases_per_s: float
    refill_s: float
    started: int
    #: Kernels that ended without being asked to.
    died: int
    #: Kernels of other generations that are still leased.
    draining: int
    generation: str
    #: Why the last start failed; "" after one that did not.
    problem: str


@dataclass(frozen=True)
class PoolStatus:
    """All profiles together, and each."""

    ready: int
    leased: int
    starting: int
    waiting: int
    maximum: int
    started: int
    died: int
    problem: str
    tenants: Mapping[str, int] = field(default_factory=dict)
    profiles: Mapping[str, ProfileStatus] = field(default_factory=dict)


class Pool:
    """Warm kernels in stock, up to a maximum that counts leased ones too. All methods belong to one event loop."""

    def __init__(
        self, config: PoolConfig, place_of: PlaceOf = LocalPlace, *, connect_kernel: Connect | None = None
    ) -> None:
        self._config = config
        self._folder = PoolFolder(config.runtime_dir)
        self._place_of = place_of
        self._connect: Connect = connect_kernel or partial(connect, self._config)
        self._quota = Quota(config.tenant_maximum)
        self._stocks = {profile.name: self._stock(profile) for profile in config.profiles}
        self._adopted: dict[str, Kernel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing = asyncio.Lock()
        self._cores = os.cpu_count() or 1
        self._latest_lease = 0.0
        self._quiet_since = 0.0
        self._open = False

    def _stock(self, profile: Profile, *, retired: bool = False) -> Stock:
        sites = Sites(self._config, profile, self._place_of, retired=retired)
        return Stock(self._config, profile, sites, self, self._connect)

    async def start(self) -> None:
        """Take the runtime folder and what an earlier gateway left in it, bring the places up, begin to fill.

        Raises IsolationUnavailable or StartFailed, and leaves nothing behind then.
        """
        await asyncio.to_thread(self._folder.open)
        self._open = True
        try:
            found = self._folder.found()
            for name in found:
                if name not in self._stocks:
                    self._stocks[name] = self._stock(retired(name), retired=True)
            await _all(self._take_over(self._stocks[name], folders) for name, folders in found.items())
            first = self._config.profiles[0].name
            stocks = self._stocks.items()
            await _all(stock.open(place=name == first or stock.profile.minimum > 0) for name, stock in stocks)
        except BaseException:
            await self.close()
            raise
        for stock in self._stocks.values():
            self._watch(stock)
        self._keep(Upkeep(self._config, self._stocks.values()).run())
        if self._config.renew_interval_s:
            self._keep(self._renew_for_ever())

    async def close(self, *, keep: bool = False) -> None:
        """End every kernel and leave no process, socket or folder behind. Safe to call again.

        With `keep` the kernels live on, for the gateway that starts next.
        """
        self._open = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._close_stock(stock, keep) for stock in self._stocks.values()))
        self._adopted.clear()
        await asyncio.to_thread(self._folder.close)

    async def lease(
        self,
        profile: str | None = None,
        *,
        tenant: str = "",
        note: str = "",
        env: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Kernel:
        """A ready kernel, for this caller alone; give it back with `release`.

        `profile`: None for the first that is configured. `note`: by it a later gateway knows the kernel (`adopt`).
        `env` and `files` (paths relative to the kernel's home) are there before the first cell.

        Raises:
            UnknownProfile, QuotaExceeded, BadInjection: nothing was taken.
            PoolExhausted: none became free within `lease_timeout_s`, or at once where leases do not wait; says why.
        """
        stock = self._stocks[self.profile(profile).name]
        injection = Injection.checked(env, files)
        if not self._open:
            raise PoolExhausted("the pool is not running")
        self._quota.take(tenant)
        try:
            kernel = await self._taken(stock)
        except BaseException:
            self._quota.give_back(tenant)
            raise
        kernel.tenant = tenant
        try:
            self._write_note(kernel, note)
            if injection:
                await injection.into(kernel, self._config.start_timeout_s)
        except BaseException:
            await self.release(kernel, _SPOILED)
            raise
        kernel.used = _now()
        return kernel

    async def release(self, kernel: Kernel, exit: Exit = _SHUTDOWN) -> None:
        """End a leased kernel and remove what is left of it. Safe to call again."""
        stock = self._stocks[kernel.profile.name]
        if kernel.id in stock.leased:
            self._quota.give_back(kernel.tenant)
        await stock.release(kernel, exit)
        self._fill()

    def profile(self, name: str | None = None) -> Profile:
        """A configured profile; None for the first. Raises UnknownProfile."""
        profiles = self._config.profiles
        found = next((profile for profile in profiles if name in (None, profile.name)), None)
        if found is None:
            names = ", ".join(profile.name for profile in profiles)
            raise UnknownProfile(f"there is no profile {str(name)[:64]!r}; there are: {names}")
        return found

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """What a lease may name; the first is what one gets that names none."""
        return self._config.profiles

    @property
    def adopted(self) -> Mapping[str, Kernel]:
        """Kernels that an earlier gateway leased and nobody has taken yet, by their note."""
        return dict(self._adopted)

    def adopt(self, note: str) -> Kernel | None:
        """Take over the kernel that an earlier gateway leased with this note; it is leased to the caller then."""
        kernel = self._adopted.pop(note, None)
        if kernel is not None:
            kernel.unclaimed = False
            kernel.used = _now()
        return kernel

    async def renew(self, files: Mapping[str, bytes] | None = None) -> tuple[str, ...]:
        """Let new kernels come from what is installed now: image, code, preloads; and from `files`, if they are given.

        Leased kernels stay until their release. Returns the profiles that changed. Raises IsolationUnavailable or
        StartFailed for the first that could not; it goes on as it was.
        """
        async with self._renewing:
            if files is not None:
                self._config = replace(self._config, files=files)
            changed = [stock.profile.name for stock in self._stocks.values() if await stock.renew(self._config)]
        return tuple(changed)

    def status(self) -> PoolStatus:
        stocks = self._stocks.values()
        return PoolStatus(
            ready=sum(len(stock.ready) for stock in stocks),
            leased=sum(len(stock.leased) for stock in stocks),
            starting=sum(stock.starting for stock in stocks),
            waiting=sum(len(stock.waiting) for stock in stocks),
            maximum=self._config.maximum,
            started=sum(stock.started for stock in stocks),
            died=sum(stock.died for stock in stocks),
            problem=next((stock.problem for stock in stocks if stock.problem), ""),
            tenants=self._quota.held(),
            profiles={stock.profile.name: _status(stock) for stock in stocks},
        )

    # -- what the stocks ask (`stock.Floor`) --

    def room(self, *, waiting: bool) -> bool:
        """Whether one more kernel may live. For a lease that waits, another profile's stock gives way."""
        stocks = self._stocks.values()
        if sum(stock.living for stock in stocks) < self._config.maximum:
            # the last room is not for a stock while somebody waits
            return waiting or not any(stock.waiting for stock in stocks)
        fullest = sorted(stocks, key=lambda stock: len(stock.ready), reverse=True)
        return waiting and any(stock.give_way() for stock in fullest)

    def pause(self) -> float:
        """Seconds that a refill should wait, since leases or cells are under way; 0 at the end of its patience."""
        now, config = _now(), self._config
        quiet = config.refill_quiet_s - (now - self._latest_lease)
        cells = sum(kernel.busy for stock in self._stocks.values() for kernel in stock.leased.values())
        busy = cells >= self._cores
        if quiet <= 0 and not busy:
            self._quiet_since = 0.0
            return 0.0
        self._quiet_since = self._quiet_since or now
        if now - self._quiet_since >= config.refill_patience_s:
            self._quiet_since = 0.0
            return 0.0
        return max(quiet, config.refill_quiet_s)

    # -- leases --

    async def _taken(self, stock: Stock) -> Kernel:
        self._latest_lease = _now()
        kernel = stock.take()
        if kernel is not None:
            return kernel
        if self._config.exhaustion == "refuse":
            stock.fill()
            raise PoolExhausted(f"no kernel of profile {stock.profile.name} is ready. Try again in a moment.")
        try:
            return await stock.wait(self._config.lease_timeout_s)
        except TimeoutError:
            raise PoolExhausted(self._why_exhausted(stock)) from None

    def _write_note(self, kernel: Kernel, note: str) -> None:
        born = time.time() - (_now() - kernel.born)
        try:
            kernel.process.note(LeaseNote(note, kernel.tenant, born).text())
        except OSError as error:
            raise StartFailed(f"the lease cannot be written down: {error.strerror or error}") from error

    def _why_exhausted(self, stock: Stock) -> str:
        text = f"no kernel became free in {self._config.lease_timeout_s:g} s"
        if stock.problem:
            return f"{text}; starting one failed: {stock.problem}"
        leased = sum(len(stock.leased) for stock in self._stocks.values())
        return f"{text}: {leased} of at most {self._config.maximum} are in use. End sessions or raise it."

    async def _take_over(self, stock: Stock, folders: list[str]) -> None:
        kernels = await take_over(stock, folders, self._connect)
        for kernel in kernels.values():
            self._quota.adopt(kernel.tenant)
        self._adopted.update(kernels)

    # -- in the background --

    def _fill(self) -> None:
        for stock in self._stocks.values():
            stock.fill()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._config.renew_interval_s)
            for stock in self._stocks.values():
                try:
                    async with self._renewing:
                        await stock.renew()
                except (KernelPoolError, OSError) as error:
                    stock.problem = f"a newer generation did not come up: {error}"

    def _watch(self, stock: Stock) -> None:
        def processes() -> list[Process]:
            return [kernel.process for kernel in (*stock.ready, *stock.leased.values())]

        self._keep(watch_memory(processes, stock.profile.limits.memory_mb, self._config.watch_interval_s))

    def _keep(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_stock(self, stock: Stock, keep: bool) -> None:
        kernels = await stock.close()
        if keep:
            await asyncio.gather(*(kernel.channels.close() for kernel in kernels), return_exceptions=True)
        else:
            await asyncio.gather(*(stock.end(kernel, _CLOSED) for kernel in kernels), return_exceptions=True)
        await stock.sites.close(keep=keep)


def _status(stock: Stock) -> ProfileStatus:
    current = stock.sites.current
    return ProfileStatus(
        ready=len(stock.ready),
        leased=len(stock.leased),
        frozen=sum(kernel.frozen for kernel in stock.leased.values()),
        starting=stock.starting,
        waiting=len(stock.waiting),
        target=stock.target,
        minimum=stock.profile.minimum,
        maximum=stock.profile.maximum,
        leases_per_s=round(stock.demand.rate(_now()), 4),
        refill_s=round(stock.demand.refill_s, 4),
        started=stock.started,
        died=stock.died,
        draining=sum(site.kernels for site in stock.sites.draining),
        generation=current.generation if current else "",
        problem=stock.problem,
    )


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Wait for all; then raise the first error that one of them had."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _now() -> float:
    return asyncio.get_running_loop().time()
