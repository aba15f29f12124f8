"""Waiting for decisions: woken at once by this gateway's own, and by a look now and then for those of others."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable

import psycopg
import structlog
from psycopg_pool import PoolTimeout

log = structlog.get_logger(__name__)

#: Which of some requests are over.
Over = Callable[[Collection[str]], Awaitable[list[str]]]


class Waiting:
    """Who waits for which request. One statement at a time for all of them, and none while nobody waits."""

    def __init__(self, over: Over, look_s: float) -> None:
        self._over = over
        self._look_s = look_s
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, id: str, timeout_s: float) -> bool:
        """Until `wake`, or until the request is over. False after `timeout_s` seconds."""
        event = asyncio.Event()
        self._waiting[id].add(event)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(max(timeout_s, 0)):
                await event.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self._waiting[id].discard(event)
            if not self._waiting[id]:
                del self._waiting[id]

    def wake(self, ids: Iterable[str]) -> None:
        """Those who wait for them look for themselves what happened."""
        for id in ids:
            for event in self._waiting.get(id, ()):
                event.set()

    def wake_all(self) -> None:
        self.wake(list(self._waiting))

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _look(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._look_s)
            try:
                self.wake(await self._over(list(self._waiting)) if self._waiting else ())
            except (OSError, psycopg.Error, PoolTimeout) as error:
                log.warning("decisions cannot be looked up", error=str(error))
