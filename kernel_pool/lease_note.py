"""What the pool writes down with a kernel that it leases, for the gateway after this one."""

from __future__ import annotations

import time

import msgspec


class LeaseNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """One lease. Its text is never empty: a kernel without a note was never leased."""

    #: What the one who leased it wants to know it by.
    note: str = ""
    tenant: str = ""
    #: When the kernel became ready, seconds since 1970.
    born: float = msgspec.field(default_factory=time.time)

    def text(self) -> str:
        return msgspec.json.encode(self).decode()


def read_note(text: str) -> LeaseNote | None:
    """The lease behind a note; None for a kernel that was not leased.

    A text that nobody here wrote is a lease without a name: what ran in that kernel is not known.
    """
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=LeaseNote)
    except (msgspec.MsgspecError, UnicodeError, ValueError):
        return LeaseNote()
