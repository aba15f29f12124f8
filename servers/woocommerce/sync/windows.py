"""A store's list in windows that overlap, several in flight, so that nothing is missed while the list shifts.

Lists are read by ascending id. A window is one answer, so it has every object between its first and its last id as of
one moment. Where a window begins at or below the highest id that is covered so far (the frontier), nothing can be
missing between the two, whatever was made or deleted in between; so each window begins one place before the last one
ended. Where it begins above the frontier, objects were deleted before it and the list has shifted: it is read again
from further back. That holds across an interruption as well: place and frontier are all that is needed to go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import httpx

from ...context import SyncLimits
from ...errors import RateLimited, ToolError, UpstreamError
from ..client import Parameters, Store
from ..problems import content
from .rows import LARGEST_ID, id_of

T = TypeVar("T")
R = TypeVar("R")

#: Reads in a row that may fail before the store is held to be down: from a full page to single objects it takes seven.
FAILURES_IN_A_ROW = 12
#: Seconds before a store that is away, or wants to be left alone, is asked again; doubled from time to time.
FIRST_PAUSE = 1.0
#: Times in a row that a list is read again from further back before its order is no longer believed.
SHIFTS_IN_A_ROW = 12


@dataclass(frozen=True)
class Place:
    """Where a list is read on: how many objects lie before it, and the highest id that is covered."""

    offset: int = 0
    frontier: int = 0
    #: The object before it could not be read: the next window overlaps with nothing.
    hole: bool = False


@dataclass(frozen=True)
class Covered:
    """What lies above the former frontier up to `high`, as of one moment."""

    #: Raw objects above the former frontier; some may have no id.
    items: list[Any]
    #: Whatever is stored with an id in (low, high] and is not among `items` is gone. None: nothing can be said.
    low: int | None
    #: None: to the end of the list.
    high: int | None
    next: Place
    total: int | None
    #: Why an object could not be read.
    lost: str = ""


class _Window(NamedTuple):
    offset: int
    size: int


@dataclass
class Listing:
    """One list of the store. `doubt` says why its paging cannot be relied on; "" while it can."""

    store: Store
    path: str
    params: Parameters
    limits: SyncLimits
    in_flight: int
    place: Place = field(default_factory=Place)
    total: int | None = None
    doubt: str = ""
    #: The store's clock at the first answer, where it tells (RFC 9110's Date).
    began: str = ""
    _size: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)
    _shifts: int = field(default=0, init=False)
    #: Place and first id of the window before.
    _before: tuple[int, int] = field(default=(-1, 0), init=False)

    async def windows(self) -> AsyncGenerator[Covered, None]:
        """All of the list from `place` on.

        Raises:
            ToolError: the store cannot be reached, refuses, or fails at everything.
        """
        self._size = self._size or self.limits.page_size
        ended = False
        while not ended:
            several = self.total is not None and self._size == self.limits.page_size
            plan = self._plan(self.total if several else None)
            async with aclosing(in_order(plan, self._read, self.in_flight if several else 1)) as answers:
                async for window, answer in answers:
                    found = self._taken(window, answer)
                    if found is None:
                        break
                    covered, ended = found
                    yield covered
                    if ended or self._size != window.size or covered.lost or not several:
                        break

    async def _plan(self, total: int | None) -> AsyncGenerator[_Window, None]:
        """Windows to the end of the list; one where nobody knows how far that is."""
        offset = start = self.place.offset if self.place.hole else max(0, self.place.offset - 1)
        while offset == start or (total is not None and offset + 1 < total):
            yield _Window(offset, self._size)
            offset += self._size - 1

    async def _read(self, window: _Window) -> tuple[_Window, httpx.Response | UpstreamError]:
        query: Parameters = {"per_page": window.size, "offset": window.offset, "orderby": "id", "order": "asc"}
        waited, pause = 0.0, FIRST_PAUSE
        while True:
            try:
                return window, await self.store.bounded(self.path, {**self.params, **query}, self.limits.page_bytes)
            except (UpstreamError, RateLimited) as error:
                away = isinstance(error, RateLimited) or error.data.get("status", 503) == 503
                if isinstance(error, UpstreamError) and (not away or "slow" in error.data):
                    return window, error
                delay = max(pause, error.retry_after or 0)
                if waited + delay > self.limits.patience_s:
                    raise
            await asyncio.sleep(delay)
            waited, pause = waited + delay, pause * 2

    def _taken(self, window: _Window, answer: httpx.Response | UpstreamError) -> tuple[Covered, bool] | None:
        """What an answer adds, and whether it is the last; None: the list is to be read on in another way."""
        if isinstance(answer, UpstreamError):
            return self._smaller(window, answer)
        try:
            items = _objects(answer)
        except UpstreamError as error:
            return self._smaller(window, error)
        self._failures = 0
        self.began = self.began or answer.headers.get("date", "")
        total = answer.headers.get("x-wp-total", "")
        self.total = int(total) if total.isdecimal() else None
        ids = [id for raw in items if (id := id_of(raw)) is not None]
        if self._shifted(window, ids):
            return None
        return self._covered(window, items, ids)

    def _smaller(self, window: _Window, error: UpstreamError) -> tuple[Covered, bool] | None:
        """After a window that the store cannot give: fewer objects at once, to find the one that it fails at."""
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            raise error
        least = 1 if self.place.hole or window.offset == 0 else 2  # with the one before it, which is known to be well
        if window.size > least:
            self._size = max(window.size // 2, least)
            return None
        self.place = Place(window.offset + window.size, self.place.frontier, hole=True)
        self._size = 2
        lost = f"what follows id {self.place.frontier} (place {self.place.offset} of the list): {error.message}"
        return Covered([], None, None, self.place, self.total, lost), False

    def _shifted(self, window: _Window, ids: list[int]) -> bool:
        """True where objects may be missing before this window: it is read again then, from further back."""
        if window.offset == 0 or self.place.hole or (ids and ids[0] <= self.place.frontier):
            self._shifts = 0
            return False
        self._shifts += 1
        if self._shifts > SHIFTS_IN_A_ROW:
            self.doubt = self.doubt or "the store's list shifts faster than it can be read"
            return False
        # past the end WordPress counts none
        known = min(window.offset, self.total or window.offset)
        self.place = Place(max(0, known + 1 - 4**self._shifts), self.place.frontier)
        return True

    def _covered(self, window: _Window, items: list[Any], ids: list[int]) -> tuple[Covered, bool]:
        if ids != sorted(set(ids)):
            self.doubt = self.doubt or "the store does not list by ascending id"
        elif ids and self._before[1] == ids[0] and self._before[0] != window.offset:
            self.doubt = self.doubt or "the store gives the same page again, whatever place is asked for"
        self._before = (window.offset, ids[0]) if ids else (-1, 0)
        old = self.place
        frontier = max([old.frontier, *ids])
        ended = frontier == old.frontier if self.total is None else window.offset + window.size >= self.total
        low: int | None = old.frontier
        if old.hole:
            low = ids[0] - 1 if ids else None
        if self.doubt or len(ids) < len(items):
            low = None
        news = [raw for raw in items if (id_of(raw) or LARGEST_ID) > old.frontier]
        self.place = Place(window.offset + window.size, frontier)
        if window.size < self.limits.page_size:
            self._size = min(self.limits.page_size, window.size * 2)
        return Covered(news, low, None if ended else frontier, self.place, self.total), ended


def _objects(response: httpx.Response) -> list[Any]:
    """Raises UpstreamError: the answer is no list."""
    found = content(response)
    if not isinstance(found, list):
        raise UpstreamError(
            f"The store answered {response.request.url.path} with something that is no list.", data={"status": 200}
        )
    return found


async def in_order(
    items: AsyncGenerator[T, None], work: Callable[[T], Awaitable[R]], width: int
) -> AsyncGenerator[R, None]:
    """The results of `work`, in the items' order, `width` of them under way at once.

    When it is closed, what is under way is cancelled and `items` closed. An error of `items` comes after the results.
    """
    tasks: deque[asyncio.Future[R]] = deque()
    failed: Exception | None = None
    more = True
    try:
        while True:
            while more and len(tasks) < width:
                try:
                    tasks.append(asyncio.ensure_future(work(await anext(items))))
                except StopAsyncIteration:
                    more = False
                except ToolError as error:
                    more, failed = False, error
            if not tasks:
                if failed is not None:
                    raise failed
                return
            done = await tasks[0]
            tasks.popleft()
            yield done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await items.aclose()
