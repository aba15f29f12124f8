"""The end of a gateway: no new work, what runs gets its time, then the rest stops."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Drain:
    """Whether the end has begun, and how much of its time is left."""

    grace_s: float
    begun: bool = False
    _ends: float = 0.0

    @property
    def left_s(self) -> float:
        """Of the grace: all of it before the end has begun."""
        return max(0.0, self._ends - time.monotonic()) if self.begun else self.grace_s

    def begin(self) -> None:
        """Safe to call again."""
        if not self.begun:
            self._ends = time.monotonic() + self.grace_s
            self.begun = True
