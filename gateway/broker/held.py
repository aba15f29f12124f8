"""Whose the sessions are, as much as the broker asks: `gateway.peers.owners`."""

from __future__ import annotations

from typing import Protocol


class Held(Protocol):
    """The sessions that this gateway has."""

    def fence(self, session: str) -> int | None:
        """What is written for the session carries this; None: it is not in hand here."""

    async def check(self, session: str) -> None:
        """Raises where another gateway may have the session by now."""
