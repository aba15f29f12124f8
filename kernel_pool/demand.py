"""How many ready kernels the demand asks for: arrivals per second times the time that a replacement takes.

Nothing here looks at a clock: callers say when things happened, in seconds of any clock that does not jump.
"""

from __future__ import annotations

import math

#: Weight of the latest refill in the smoothed refill time when it was faster; a slower one counts at once, by half.
_FASTER, _SLOWER = 0.2, 0.5
#: Demand below this many kernels asks for none: what is left of it after a long silence.
_NOTHING = 0.01


class Demand:
    """Leases of one profile, smoothed; what was seen counts half after `half_life_s` without another."""

    def __init__(self, half_life_s: float) -> None:
        self._decay = math.log(2) / half_life_s
        self._weight = 0.0
        self._latest = 0.0
        self.refill_s = 0.0

    def arrived(self, now: float) -> None:
        """A kernel was asked for."""
        self._weight = self._weight_at(now) + 1.0
        self._latest = max(self._latest, now)

    def refilled(self, took_s: float) -> None:
        """It took so long from a lease until there was a ready kernel in its stead."""
        share = _SLOWER if took_s > self.refill_s else _FASTER
        self.refill_s += (took_s - self.refill_s) * (share if self.refill_s else 1.0)

    def rate(self, now: float) -> float:
        """Leases per second: of a steady stream, its rate; after its end, falling by half every half-life."""
        return self._weight_at(now) * self._decay

    def target(self, now: float, minimum: int, maximum: int) -> int:
        """Ready kernels to keep.

        Leases that arrive at random while one is replaced are `expected` on average and rarely more than two of their
        standard deviations above that (Poisson), so this many are kept, within the bounds.
        """
        expected = self.rate(now) * self.refill_s
        wanted = 0 if expected < _NOTHING else math.ceil(expected + 2 * math.sqrt(expected))
        return max(minimum, min(maximum, wanted))

    def _weight_at(self, now: float) -> float:
        return self._weight * math.exp(-self._decay * max(0.0, now - self._latest))
