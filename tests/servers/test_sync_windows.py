"""Lists that shift while they are read, fail in places, or are not what they say."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import orjson
import pytest

from servers.context import SyncLimits
from servers.errors import RateLimited, ToolDenied, UpstreamError
from servers.woocommerce.client import Store
from servers.woocommerce.sync.windows import FAILURES_IN_A_ROW, Covered, Listing, Place

#: What happens to the list before an answer is made.
Change = Callable[[list[int]], None]


@dataclass
class Shelf:
    """A store's list of ids, by itself."""

    ids: list[int]
    before: Change = lambda ids: None
    broken: frozenset[int] = frozenset()
    totals: bool = True
    #: Ids that the store counts, and leaves out of its answers.
    hidden: frozenset[int] = frozenset()
    answer: Callable[[int, int], object] | None = None
    asked: list[tuple[int, int]] = field(default_factory=list)

    async def bounded(self, path: str, params: dict[str, Any], largest: int) -> httpx.Response:
        offset, size = params["offset"], params["per_page"]
        self.asked.append((offset, size))
        self.before(self.ids)
        page = self.ids[offset : offset + size]
        if self.broken & set(page):
            raise UpstreamError("The store failed with status 500.", data={"status": 500})
        shown: object = [{"id": id} for id in page if id not in self.hidden]
        if self.answer is not None:
            shown = self.answer(offset, size)
        total = len(self.ids) if offset < len(self.ids) else 0  # WordPress counts none past the end
        headers = {"x-wp-total": str(total)} if self.totals else {}
        request = httpx.Request("GET", "http://shop.test/wp-json/wc/v3/things")
        return httpx.Response(200, headers=headers, content=orjson.dumps(shown), request=request)

    def listing(self, **more: Any) -> Listing:
        limits = SyncLimits(page_size=more.pop("page_size", 10), patience_s=more.pop("patience_s", 0))
        return Listing(cast(Store, self), "things", {}, limits, more.pop("in_flight", 3), **more)


async def read(listing: Listing) -> list[Covered]:
    return [covered async for covered in listing.windows()]


def ids_of(windows: list[Covered]) -> list[int]:
    return [raw["id"] for covered in windows for raw in covered.items]


def gone(windows: list[Covered], stored: list[int]) -> set[int]:
    """What of the stored the windows say is gone."""
    found: set[int] = set()
    for each in windows:
        if each.low is not None:
            seen = {raw["id"] for raw in each.items}
            high = each.high if each.high is not None else max(stored, default=0)
            found |= {id for id in stored if each.low < id <= high and id not in seen}
    return found


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 19, 20, 101])
@pytest.mark.parametrize("totals", [True, False])
async def test_a_list_is_read_whole_and_in_order(count: int, totals: bool) -> None:
    shelf = Shelf(list(range(5, 5 + 3 * count, 3)), totals=totals)
    listing = shelf.listing()
    windows = await read(listing)
    assert ids_of(windows) == list(range(5, 5 + 3 * count, 3))
    assert gone(windows, list(range(5 + 3 * count))) == {id for id in range(1, 5 + 3 * count) if (id - 5) % 3 or id < 5}
    assert listing.doubt == ""
    if totals:
        assert len(shelf.asked) == max(1, -(-(count - 1) // 9)), "a page of ten has nine new ones, none is read twice"


@pytest.mark.parametrize("seed", range(60))
async def test_nothing_is_missed_and_nothing_is_wrongly_gone_while_the_list_shifts(seed: int) -> None:
    chance = random.Random(seed)
    begin = sorted(chance.sample(range(1, 400), 120))
    existing, all_the_time = list(begin), set(begin)

    def change(ids: list[int]) -> None:
        for _ in range(chance.choice([0, 0, 1, 1, 3, 30 if seed % 5 == 0 else 2])):
            if ids and chance.random() < 0.6:
                removed = ids.pop(chance.randrange(len(ids)))
                all_the_time.discard(removed)
            else:
                new = chance.randrange(1, 900)
                if new not in ids:  # restored ones too
                    ids.append(new)
                    ids.sort()

    shelf = Shelf(existing, change)
    listing = shelf.listing(in_flight=chance.choice([1, 2, 5]))
    windows = await read(listing)
    assert all_the_time <= set(ids_of(windows))
    stored = sorted(set(begin) | {id for id in range(900) if id % 7 == 0} - all_the_time)
    assert not gone(windows, stored) & all_the_time
    assert len(ids_of(windows)) == len(set(ids_of(windows)))


async def test_it_goes_on_from_where_it_was_interrupted_although_the_list_has_shifted() -> None:
    shelf = Shelf(list(range(1, 101)))
    place, first = Place(), []
    async for covered in shelf.listing().windows():
        first += [raw["id"] for raw in covered.items]
        place = covered.next
        if len(first) > 40:
            break
    del shelf.ids[:25]  # nobody was looking
    windows = await read(shelf.listing(place=place, total=100))
    assert sorted(first + ids_of(windows)) == list(range(1, 101))


async def test_a_list_that_has_become_much_shorter_is_not_read_from_its_beginning() -> None:
    shelf = Shelf(list(range(1, 1001)))
    place, first = Place(), []
    async for covered in shelf.listing().windows():
        first += [raw["id"] for raw in covered.items]
        place = covered.next
        if len(first) > 900:
            break
    del shelf.ids[700:]
    shelf.asked.clear()
    windows = await read(shelf.listing(place=place, total=1000))
    assert ids_of(windows) == []
    assert gone(windows, list(range(1, 1001))) == set(range(place.frontier + 1, 1001))
    assert len(shelf.asked) < 40


async def test_one_broken_object_is_found_and_left_out() -> None:
    shelf = Shelf(list(range(1, 101)), broken=frozenset({37, 38, 90}))
    windows = await read(shelf.listing())
    assert set(ids_of(windows)) >= set(range(1, 101)) - {37, 38, 90}
    assert [covered.lost.partition(":")[0] for covered in windows if covered.lost] == [
        "what follows id 36 (place 37 of the list)",
        "what follows id 36 (place 38 of the list)",
        "what follows id 89 (place 90 of the list)",
    ]
    assert not gone(windows, list(range(1, 101))), "the broken ones are not gone"


@pytest.mark.parametrize("broken", [{1}, {1, 2, 3}, {100}, {99, 100}])
async def test_at_the_ends_of_the_list_too(broken: set[int]) -> None:
    windows = await read(Shelf(list(range(1, 101)), broken=frozenset(broken)).listing())
    assert set(ids_of(windows)) == set(range(1, 101)) - broken
    assert len([each for each in windows if each.lost]) == len(broken)


async def test_an_interruption_behind_a_broken_object_loses_no_other() -> None:
    shelf = Shelf(list(range(1, 41)), broken=frozenset({21}))
    place, first = Place(), []
    async for covered in shelf.listing().windows():
        first += [raw["id"] for raw in covered.items]
        place = covered.next
        if covered.lost:
            break
    windows = await read(shelf.listing(place=place, total=40))
    assert sorted(first + ids_of(windows)) == [id for id in range(1, 41) if id != 21]


async def test_a_store_that_fails_at_everything_ends_it() -> None:
    shelf = Shelf(list(range(1, 101)), broken=frozenset(range(1, 101)))
    with pytest.raises(UpstreamError, match="status 500"):
        await read(shelf.listing())
    assert len(shelf.asked) <= FAILURES_IN_A_ROW


async def test_objects_that_the_store_hides_are_no_end_of_the_list() -> None:
    shelf = Shelf(list(range(1, 61)), hidden=frozenset([*range(8, 13), 30, *range(55, 61)]))
    windows = await read(shelf.listing())
    assert set(ids_of(windows)) == set(range(1, 61)) - shelf.hidden


async def test_a_store_without_places_is_found_out() -> None:
    shelf = Shelf(list(range(1, 61)))
    shelf.answer = lambda offset, size: [{"id": id} for id in shelf.ids[:size]]
    listing = shelf.listing()
    windows = await read(listing)
    assert "same page again" in listing.doubt
    assert max(ids_of(windows)) == 10


async def test_a_store_without_order_is_found_out() -> None:
    shelf = Shelf(list(range(60, 0, -1)))
    listing = shelf.listing()
    await read(listing)
    assert "ascending" in listing.doubt


async def test_an_object_without_id_leaves_open_what_is_gone_there() -> None:
    shelf = Shelf(list(range(1, 31)))
    shelf.answer = lambda offset, size: [
        {"id": id} if id != 15 else {"name": "no id"} for id in shelf.ids[offset : offset + size]
    ]
    windows = [covered async for covered in shelf.listing().windows()]
    assert sum("id" not in raw for covered in windows for raw in covered.items) == 1
    assert [each.low is None for each in windows] == [False, True, False, False]


async def test_what_is_no_list_is_an_error_of_the_store() -> None:
    shelf = Shelf(list(range(1, 31)), answer=lambda offset, size: {"code": "odd"})
    with pytest.raises(UpstreamError, match="no list"):
        await read(shelf.listing())


async def test_a_store_that_asks_to_wait_is_waited_for_up_to_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("servers.woocommerce.sync.windows.asyncio.sleep", sleep)
    refusals = [RateLimited("slow down", retry_after=7.0), UpstreamError("away")]

    def busy(ids: list[int]) -> None:
        if refusals:
            raise refusals.pop(0)

    windows = await read(Shelf([1, 2, 3], busy).listing(patience_s=20))
    assert ids_of(windows) == [1, 2, 3]
    assert slept == [7.0, 2.0]
    refusals[:] = [RateLimited("slow down", retry_after=21.0)]
    with pytest.raises(RateLimited):
        await read(Shelf([1, 2, 3], busy).listing(patience_s=20))


async def test_refusals_are_no_failures_of_objects() -> None:
    def refuse(ids: list[int]) -> None:
        raise ToolDenied("The store refused its API key.")

    shelf = Shelf([1, 2, 3], refuse)
    with pytest.raises(ToolDenied):
        await read(shelf.listing())
    assert len(shelf.asked) == 1
