"""How long to wait before another attempt."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks for; None where it does not, or not so that it can be read."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text)) if float(text) < float("inf") else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def wait_for(attempt: int, asked: float | None) -> float:
    """Seconds before attempt number `attempt` + 1: what was asked for, or longer each time and not all at once."""
    if asked is not None:
        return asked
    longest: float = min(30.0, 0.5 * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311
