"""Why a server cannot be used."""

from __future__ import annotations


class Unusable(Exception):
    """The server cannot be used as it is. The message says why, for people: a clause about the server."""


class NeedsLogin(Unusable):
    """The server wants to know who asks."""
