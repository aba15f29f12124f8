"""How late the event loop wakes: what holds it up holds every client up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def measure(every_s: float, told: Callable[[float], None]) -> None:
    """For ever: tell by how many seconds a sleep of `every_s` was too long."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
        told(max(0.0, loop.time() - due))
