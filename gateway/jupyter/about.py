"""Which kernel it is that clients talk to, and what they are told who ask too much of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """Which kernel it is."""

    session: str
    tenant: str
    #: Of the kernelspec.
    name: str


class Overrun(Exception):
    """A client asks for more than may wait. The text is short enough for a close frame."""
