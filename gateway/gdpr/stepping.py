"""Blocking generators driven from the event loop: each step in a thread, and closed when the reader goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


async def stepped(work: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """What `work` yields; the loop is free meanwhile. A step that is under way when this is cancelled ends first."""
    try:
        while True:
            step: list[T] = await in_thread(_next, work)
            if not step:
                return
            yield step[0]
    finally:
        await in_thread(work.close)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`asyncio.to_thread`, but a caller that is cancelled goes only when the thread has come to its end."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _next(work: Generator[T, None, None]) -> list[T]:
    try:
        return [next(work)]
    except StopIteration:
        return []
