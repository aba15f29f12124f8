"""How a server's connection is, and why it cannot be used."""

from __future__ import annotations

from typing import Literal

State = Literal["idle", "connecting", "ready", "down", "needs login", "misconfigured"]


class Unusable(Exception):
    """The server cannot be used as it is. The message says why, for people: a clause about the server."""

    #: Seconds that it asks to be left alone for.
    retry_s = 0.0


class NeedsLogin(Unusable):
    """The server wants to know who asks."""
