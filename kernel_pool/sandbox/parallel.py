"""Several tool calls of one cell at once: awaited one by one, or all together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

#: Attribute of a stub: the same call as a coroutine function.
AWAITED = "__awaited__"

#: Calls at once; the broker takes as many of one session.
AT_ONCE = 16


async def aio(tool: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """A tool's call, awaited: `await asyncio.gather(*(aio(lookup_order, order_id=id) for id in ids))`.

    Others of the cell run meanwhile. A task that is cancelled gives its call up, if that is a read.

    Raises:
        ToolError: as the call itself would.
    """
    awaited = getattr(tool, AWAITED, None)
    if awaited is None:  # a function of the cell's own, which may call tools
        return await asyncio.to_thread(tool, *args, **kwargs)
    result: T = await awaited(*args, **kwargs)
    return result


def parallel(function: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
    """`[function(item) for item in items]`, sixteen at a time: `parallel(lambda id: lookup_order(order_id=id), ids)`.

    The results are in the order of the items.

    Raises:
        what the first call to fail has raised; calls that were not begun then are not made.
    """
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="parallel")
    try:
        futures = [pool.submit(function, item) for item in items]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future in done and (error := future.exception()) is not None:
                raise error
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
