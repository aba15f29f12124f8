"""What the pool does with kernels that nobody uses at the moment: probes, ends of life, freezing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field

from kernel_pool.kernel import Kernel
from kernel_pool.stock import Stock
from kernel_pool.types import Exit, ExitReason, KernelGone, PoolConfig

_log = logging.getLogger(__name__)


@dataclass
class Upkeep:
    """One round after the other; what a round has to wait for, it does in tasks of its own."""

    config: PoolConfig
    stocks: Iterable[Stock]
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _probed: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                await asyncio.sleep(self.config.upkeep_interval_s)
                self.round(asyncio.get_running_loop().time())
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def round(self, now: float) -> None:
        """Look at every kernel once. `now`: loop time."""
        alive: set[str] = set()
        for stock in self.stocks:
            stock.trim()
            for kernel in (*stock.ready, *stock.leased.values()):
                alive.add(kernel.id)
                left_alone = kernel.busy or kernel.unclaimed or kernel.exited.done()
                if kernel.id not in self._tasks and not left_alone:
                    self._look(stock, kernel, now)
            stock.fill()
        self._probed = {id: when for id, when in self._probed.items() if id in alive}

    def _look(self, stock: Stock, kernel: Kernel, now: float) -> None:
        config, age, leased = self.config, now - kernel.born, kernel.id in stock.leased
        if not leased and 0 < config.ready_life_s < age:
            stock.retire(kernel, Exit(ExitReason.SHUTDOWN, "it was in stock for too long"))
        elif leased and 0 < config.life_s < age:
            self._do(kernel, kernel.kill(_too_old(config.life_s)))
        elif kernel.frozen:
            return
        elif 0 < config.probe_interval_s < now - self._probed.get(kernel.id, kernel.born):
            self._probed[kernel.id] = now
            self._do(kernel, self._probe(stock, kernel))
        elif leased and 0 < config.freeze_after_s < now - kernel.used:
            self._do(kernel, kernel.freeze())

    async def _probe(self, stock: Stock, kernel: Kernel) -> None:
        if await kernel.probe(self.config.probe_timeout_s) or kernel.exited.done():
            return
        if kernel in stock.ready:
            stock.retire(kernel, _unhealthy(1, self.config.probe_timeout_s))
        elif kernel.busy:
            kernel.silent = 0  # a cell began meanwhile: native code may keep the service thread from answering
        elif kernel.silent >= self.config.probe_failures:
            await kernel.kill(_unhealthy(kernel.silent, self.config.probe_timeout_s))

    def _do(self, kernel: Kernel, work: Awaitable[None]) -> None:
        task = asyncio.create_task(self._guarded(kernel, work))
        self._tasks[kernel.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(kernel.id, None))

    async def _guarded(self, kernel: Kernel, work: Awaitable[None]) -> None:
        try:
            await work
        except KernelGone:
            pass
        except Exception as error:  # noqa: BLE001 - one kernel's trouble must not end the upkeep of the others
            _log.error("upkeep of kernel %s failed: %s: %s", kernel.id, type(error).__name__, error)


def _too_old(life_s: float) -> Exit:
    return Exit(ExitReason.LIFE, f"the kernel reached its greatest age of {life_s:g} s (pool.life_s)")


def _unhealthy(times: int, timeout_s: float) -> Exit:
    many = "a probe" if times == 1 else f"{times} probes in a row"
    return Exit(ExitReason.UNHEALTHY, f"the idle kernel did not answer {many} within {timeout_s:g} s")
