"""How often somebody may: token buckets in memory, of this gateway alone.

Packages for this count windows (a client may spend a minute's worth in one go, and then waits for the window) or make
callers wait instead of telling them when to come again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

#: Buckets of one kind; beyond, those that were not used for longest go. A full one tells no more than none.
_MOST = 10_000


class Buckets:
    """A bucket for each name: `per_minute` flow in, `burst` fit in."""

    def __init__(self, per_minute: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_minute / 60
        self._burst = max(1.0, burst)
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Take one: 0 where there was one, else the seconds until there is."""
        now, level = self._clock(), self._level(name)
        wait = 0.0 if level >= 1 else (1 - level) / self._rate
        self._levels[name] = (level if wait else level - 1, now)
        self._levels.move_to_end(name)
        while len(self._levels) > _MOST:
            self._levels.popitem(last=False)
        return wait

    def wait(self, name: str) -> float:
        """The same without taking any."""
        level = self._level(name)
        return 0.0 if level >= 1 else (1 - level) / self._rate

    def _level(self, name: str) -> float:
        level, at = self._levels.get(name, (self._burst, 0.0))
        return min(self._burst, level + (self._clock() - at) * self._rate) if name in self._levels else level
