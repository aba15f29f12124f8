"""How long to wait before another attempt."""

from __future__ import annotations

import random


def wait_for(attempt: int, asked: float | None) -> float:
    """Seconds before attempt number `attempt` + 1: what was asked for, or longer each time and not all at once."""
    if asked is not None:
        return asked
    longest: float = min(30.0, 0.5 * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311
