"""How many requests a store gets at once and per second, over all calls of this process.

A store on a small machine answers eight lists a second, 25 with four requests in flight and no more with ten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from aiolimiter import AsyncLimiter

from ..context import Shop


class Gate:
    """One store's bound and pace."""

    def __init__(self, in_flight: int, requests_per_s: float) -> None:
        self._slots = asyncio.Semaphore(in_flight)
        # The bucket holds one second's requests, one at least.
        self._pace = AsyncLimiter(max(requests_per_s, 1), max(1 / requests_per_s, 1))
        self._closed_until = 0.0

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Held while one request is under way."""
        async with self._slots:
            await asyncio.sleep(max(0.0, self._closed_until - asyncio.get_running_loop().time()))
            await self._pace.acquire()
            yield

    def close_for(self, seconds: float) -> None:
        """The store asked to wait: nobody's request goes out before."""
        self._closed_until = max(self._closed_until, asyncio.get_running_loop().time() + seconds)


_gates: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int, float], Gate]] = WeakKeyDictionary()


def gate_of(shop: Shop) -> Gate:
    """The store's gate, the same for every call of this event loop."""
    mine = _gates.setdefault(asyncio.get_running_loop(), {})
    key = (shop.url, shop.in_flight, shop.requests_per_s)
    if key not in mine:
        mine[key] = Gate(shop.in_flight, shop.requests_per_s)
    return mine[key]
