"""Apart from what starts the gateway: every command knows it, and few load all that."""

from __future__ import annotations


class StartError(Exception):
    """The gateway cannot start. The message says what failed and what to do, and holds no secret."""
