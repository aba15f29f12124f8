"""What a sync of the store writes, deletes and says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from starlette.responses import Response
from sync_world import SyncWorld, empty, small_seed, sync_world

from gateway.db import Database
from servers.errors import ToolDenied, UpstreamError
from servers.woocommerce.sync.engine import run
from servers.woocommerce.sync.rows import Unfit, row_of

ALL = {"created": 0, "updated": 0, "unchanged": 0, "deleted": 0, "failed": 0}


@pytest.fixture
async def world(database: Database) -> AsyncIterator[SyncWorld]:
    await empty(database)
    async with sync_world(database, small_seed()) as made:
        yield made


def counts(**given: int) -> dict[str, int]:
    return {**ALL, **given}


def serving_list(path: str, change: Any) -> Any:
    """An answer in the shop's place for one list: what it has, changed."""

    def instead(asked: str, query: dict[str, str]) -> Any:
        return change(query) if asked == path else None

    return instead


def listing(items: list[Any], total: int | None = None) -> Response:
    return Response(orjson.dumps(items), headers={"x-wp-total": str(len(items) if total is None else total)})


async def test_all_of_the_store_is_copied_and_then_nothing_is_written_twice(world: SyncWorld) -> None:
    first = await world.sync()
    assert first["counts"] == {
        "products": counts(created=9),
        "variations": counts(created=20),
        "customers": counts(created=7),
        "orders": counts(created=11),
    }
    assert first["failures"] == first["notes"] == []
    before = {table: await world.database.fetch(f"SELECT id, xmin::text FROM {table}") for table in _WITH_ID}
    again = await world.sync(full=True)
    assert {kind: found["unchanged"] for kind, found in again["counts"].items()} == {
        kind: found["created"] for kind, found in first["counts"].items()
    }
    for table, rows in before.items():
        assert await world.database.fetch(f"SELECT id, xmin::text FROM {table}") == rows


_WITH_ID = ("store_product", "store_variation", "store_customer", "store_order")


async def test_columns_are_what_the_store_says(world: SyncWorld) -> None:
    await world.sync()
    order = (await world.rows("store_order"))[0]
    raw = world.shop.orders.get(order["id"])
    assert raw is not None
    assert (order["number"], order["customer_id"], order["status"]) == (
        raw["number"],
        raw["customer_id"],
        raw["status"],
    )
    assert (str(order["total"]), order["currency"], order["email"]) == (
        raw["total"],
        raw["currency"],
        raw["billing"]["email"],
    )
    assert order["created_at"].isoformat() == raw["date_created_gmt"] + "+00:00"
    items = [row for row in await world.rows("store_order_item") if row["order_id"] == order["id"]]
    assert [(i["line"], i["variation_id"], str(i["total"])) for i in items] == [
        (line["id"], line["variation_id"], line["total"]) for line in raw["line_items"]
    ]
    assert not {"order_key", "payment_url", "customer_ip_address", "_links"} & order["data"].keys()


async def test_changed_objects_and_no_others_are_written(world: SyncWorld) -> None:
    await world.sync()
    product, order = min(world.shop.products._seed), min(world.shop.orders._seed)
    world.rename(product, "Kettle &amp; lid")
    changed = world.shop.orders.edit(order)
    changed["line_items"] = changed["line_items"][1:]
    world.shop.orders.put(changed)
    report = await world.sync(full=True)
    assert report["counts"]["products"] == counts(updated=1, unchanged=8)
    assert report["counts"]["orders"] == counts(updated=1, unchanged=10)
    assert (await world.rows("store_product"))[0]["name"] == "Kettle & lid"
    lines = [row["line"] for row in await world.rows("store_order_item") if row["order_id"] == order]
    assert lines == [line["id"] for line in changed["line_items"]]


async def test_between_full_passes_only_what_was_modified_is_asked_for(world: SyncWorld) -> None:
    await world.sync(["products", "orders"])
    world.app.asked.clear()
    world.rename(min(world.shop.products._seed), "Renamed")
    report = await world.sync(["products", "orders"])
    assert report["counts"]["products"] == counts(updated=1)
    assert report["counts"]["orders"] == counts()
    assert len([path for path in world.app.asked if path in ("products", "orders")]) == 2
    world.shop.products.remove(max(world.shop.products._seed))
    assert (await world.sync(["products"]))["counts"]["products"]["deleted"] == 0
    later = world.with_(full_pass_hours=0.0)
    assert (await later.sync(["products"]))["counts"]["products"]["deleted"] == 1


async def test_what_is_gone_is_deleted_with_what_belongs_to_it(world: SyncWorld) -> None:
    await world.sync()
    product, order = min(world.shop.products._seed), min(world.shop.orders._seed)
    world.shop.products.remove(product)
    world.shop.orders.remove(order)
    report = await world.sync(full=True)
    assert report["counts"]["products"] == counts(unchanged=8, deleted=1)
    assert report["counts"]["variations"] == counts(unchanged=14, deleted=6)
    assert report["counts"]["orders"] == counts(unchanged=10, deleted=1)
    assert not [row for row in await world.rows("store_variation") if row["parent_id"] == product]
    assert not [row for row in await world.rows("store_order_item") if row["order_id"] == order]


async def test_a_store_that_shows_nothing_is_not_believed(world: SyncWorld) -> None:
    await world.sync(["customers"])
    world.app.instead = serving_list("customers", lambda query: listing([]))
    report = await world.sync(["customers"], full=True)
    assert report["counts"].get("customers", ALL) == ALL
    assert "7 of 7 customers are no longer in the store" in report["notes"][0]
    assert len(await world.rows("store_customer")) == 7
    report = await world.sync(["customers"], full=True, delete_all=True)
    assert report["counts"]["customers"] == counts(deleted=7)


async def test_nor_is_one_that_has_lost_too_many(world: SyncWorld) -> None:
    await world.sync(["products"])
    careful = world.with_(deleted_share=0.2, deleted_always=1)
    for product in sorted(world.shop.products._seed)[:2]:
        world.shop.products.remove(product)
    report = await careful.sync(["products"], full=True)
    assert report["counts"]["products"] == counts(unchanged=7)
    assert "2 of 9 products" in report["notes"][0]
    assert len(await world.rows("store_product")) == 9
    assert (await world.sync(["products"], full=True))["counts"]["products"]["deleted"] == 2


async def test_nor_is_one_whose_paging_is_broken(world: SyncWorld) -> None:
    await world.sync(["orders"])
    orders = [world.shop.orders.get(id) for id in sorted(world.shop.orders._seed)]
    world.app.instead = serving_list("orders", lambda query: listing(orders[:4], total=11))
    report = await world.sync(["orders"], full=True)
    assert report["counts"]["orders"] == counts(unchanged=4)
    assert "same page again" in report["notes"][0]
    assert len(await world.rows("store_order")) == 11


async def test_bad_objects_are_told_and_do_not_stop_the_others(world: SyncWorld) -> None:
    await world.sync(["products"])
    whole = [world.shop.products.edit(id) for id in sorted(world.shop.products._seed)]
    whole[1]["name"] = None
    whole[3] = {**whole[3], "description": "x" * 3000}
    whole[5] = {**whole[5], "sku": "a\0b"}
    del whole[7]["id"]

    def page(query: dict[str, str]) -> Response:
        start = int(query["offset"])
        return listing(whole[start : start + int(query["per_page"])], total=len(whole))

    world.app.instead = serving_list("products", page)
    report = await world.with_(object_bytes=3000).sync(["products"], full=True)
    assert report["counts"]["products"]["failed"] == 4
    reasons = {failure["id"]: failure["reason"] for failure in report["failures"]}
    assert reasons[whole[1]["id"]] == "its name is missing"
    assert "at most 3,000" in reasons[whole[3]["id"]]
    assert "NUL" in reasons[whole[5]["id"]]
    assert reasons[0] == "its id is 'None'"
    assert len(await world.rows("store_product")) == 9, "what could not be read is not gone"


async def test_variations_that_cannot_be_read_are_told_and_kept(world: SyncWorld) -> None:
    await world.sync(["products"])
    broken = min(world.shop.products._seed)

    def instead(path: str, query: dict[str, str]) -> Any:
        return Response(b"<b>Fatal error</b>", 500) if path == f"products/{broken}/variations" else None

    world.app.instead = instead
    report = await world.sync(["products"], full=True)
    assert report["counts"]["variations"] == counts(unchanged=14, failed=1)
    assert f"product {broken}" in report["failures"][0]["reason"]
    assert len(await world.rows("store_variation")) == 20
    assert report["counts"]["products"] == counts(unchanged=9)


async def test_variations_are_read_several_at_once_across_windows_and_past_simple_products(world: SyncWorld) -> None:
    for product in sorted(world.shop.products._seed)[1::2]:
        world.shop.products.put(world.shop.products.edit(product) | {"type": "simple", "variations": []})
    together, waiting = asyncio.Event(), 0

    def instead(path: str, query: dict[str, str]) -> Any:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            nonlocal waiting
            waiting += 1
            if waiting == 3:
                together.set()
            await together.wait()
            await world.app.app(scope, receive, send)

        return answer if path.endswith("/variations") and not together.is_set() else None

    world.app.instead = instead
    async with asyncio.timeout(30):
        report = await world.sync(["products"])
    assert report["counts"]["products"] == counts(created=9)


async def test_a_page_that_is_too_large_is_asked_for_in_parts(world: SyncWorld) -> None:
    narrow = replace(world, limits=replace(world.limits, page_size=9, page_bytes=6000))
    report = await narrow.sync(["products"])
    assert report["counts"]["products"] == counts(created=9)


async def test_a_second_sync_at_the_same_time_says_so(world: SyncWorld) -> None:
    async with aclosing(run(world.task())) as first:
        await anext(first)
        with pytest.raises(ToolDenied, match="under way already"):
            await world.sync()
        other = replace(world, tenant="another")
        assert (await other.sync(["orders"]))["counts"]["orders"] == counts(created=11)
    await world.sync()


async def test_a_sync_that_lost_its_lock_writes_nothing_more(world: SyncWorld) -> None:
    """A database may drop the lock's connection; two that believe themselves alone cannot both go on."""
    async with aclosing(run(world.task(["orders"]))) as first:
        await anext(first)
        await world.database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        )
        await world.sync(["orders"])
        with pytest.raises(ToolDenied, match="gone on from here"):
            await anext(first)
    assert len(await world.rows("store_order")) == 11


async def test_tenants_do_not_see_each_other(world: SyncWorld) -> None:
    await world.sync(["products"])
    other = replace(world, tenant="another")
    world.app.instead = serving_list("products", lambda query: listing([]))
    await other.sync(["products"], delete_all=True)
    assert {row["tenant"] for row in await world.rows("store_product")} == {"retail"}
    async with world.database.tenant("another").transaction() as rows:
        for table in (*_WITH_ID, "store_order_item", "store_gone"):
            assert await rows.fetch(f"SELECT 1 FROM {table}") == []
        with pytest.raises(Exception, match="row-level security"):
            await rows.execute("INSERT INTO store_gone (tenant, kind, id) VALUES ('retail', 'products', 1)")


async def test_a_store_that_is_away_ends_it_and_the_next_run_goes_on(world: SyncWorld) -> None:
    asked = 0

    def away(path: str, query: dict[str, str]) -> Any:
        nonlocal asked
        asked += path == "orders"
        if asked > 2:
            raise httpx.ConnectError("nobody there")

    world.app.instead = away
    with pytest.raises(UpstreamError, match="could not be reached"):
        await world.sync(["orders"])
    kept = len(await world.rows("store_order"))
    assert 0 < kept < 11
    world.app.instead = None
    report = await world.sync(["orders"])
    assert report["resumed"]
    assert report["counts"]["orders"] == counts(created=11)


async def test_a_sync_that_is_not_waited_for_leaves_nothing_running(world: SyncWorld) -> None:
    before = asyncio.all_tasks()
    async with aclosing(run(world.task())) as running:
        await anext(running)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"total": "1e999999999"}, "not an amount"),
        ({"total": "NaN"}, "not an amount"),
        ({"total": "12 pounds"}, "not an amount"),
        ({"customer_id": 2**63}, "not a whole number"),
        ({"line_items": None}, "line_items cannot be read"),
        ({"line_items": [7]}, "no object"),
        ({"date_created_gmt": "yesterday"}, "not a time"),
        ({"id": True}, "its id is"),
        ({"id": -1}, "its id is"),
        ({"id": 2**63}, "its id is"),
        ({"billing": "nobody"}, "billing cannot be read"),
        ({"billing": {"email": ["ann@example.com"]}}, "its email is no text$"),
    ],
)
def test_what_is_no_order(change: dict[str, Any], why: str) -> None:
    order = next(iter(small_seed(1, 0, 1).orders.values()))
    with pytest.raises(Unfit, match=why):
        row_of("orders", {**order, **change}, 1 << 20)


def test_what_only_looks_wrong_is_taken() -> None:
    order = next(iter(small_seed(1, 0, 1).orders.values()))
    odd = {"date_created_gmt": "0000-00-00T00:00:00", "customer_note": "a backslash before u: \\u0000", "total": "-3"}
    row = row_of("orders", {**order, **odd}, 1 << 20)
    assert row.columns["created_at"] is None
    assert row.columns["total"] == "-3"
    assert (
        row_of("orders", {**order, "_links": {"x": "y"}}, 1 << 20).content_hash
        == row_of("orders", order, 1 << 20).content_hash
    )
