"""Room for the frames of deep calls, in one piece of memory.

CPython 3.11 keeps the frames of Python functions in pieces of 16 KiB and gives a piece back to the system when its
last frame returns. A loop whose calls happen to cross the end of a piece asks the system for memory and gives it back
at every call. Under gVisor, where that is dear, a first completion took minutes instead of seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: What the outermost frame claims for values that it never has, in slots of 8 bytes. A frame's piece is the next power
#: of two: 1 MiB, of which as much as is claimed is left for others. What nobody writes to takes no memory.
_SLOTS = 2**16


def with_room(work: Callable[[], T]) -> T:
    """`work()`, with room for about a thousand frames below it."""
    return _call(work)


def _call(work: Callable[[], T]) -> T:
    return work()


_call.__code__ = _call.__code__.replace(co_stacksize=_SLOTS)
