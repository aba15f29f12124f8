"""Every tool of the shop's staff against the shop on loopback, with good input and with bad."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from shop_server import Faulty
from staff_cases import BAD, MORE_BAD, ORDER, PRODUCT, READS, SECRET, VARIATION, WRITES, Bad, arguments
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tool_bench import Bench, Pins

from servers.errors import ToolDenied, ToolInputError, UpstreamError
from servers.registry import Registry
from servers.tool import Tool
from servers.woocommerce.client import store_of
from servers.woocommerce.deliveries import topic_secret

GOOD = READS | WRITES


@pytest.fixture
def desk(bench: Bench) -> Bench:
    """The tools as those who run the shop have them."""
    assert bench.context.shop is not None
    return bench.with_(shop=replace(bench.context.shop, webhook_secret=SECRET))


def staff(registry: Registry) -> list[Tool]:
    """With refunds, which conversations may ask for; without long work, which has tests of its own (test_sync)."""
    tools = [tool for tool in registry.of_server("woocommerce") if not tool.workload]
    return [tool for tool in tools if "agent" not in tool.roles or tool.name in ("refund_order", "list_refunds")]


def test_every_tool_has_its_good_and_its_bad_call(registry: Registry) -> None:
    tools = staff(registry)
    assert {tool.name for tool in tools} == GOOD.keys() == BAD.keys()
    assert {tool.name for tool in tools if tool.effect == "read"} == READS.keys()


@pytest.mark.parametrize("tool", GOOD)
async def test_a_tool_does_what_it_says(tool: str, desk: Bench) -> None:
    case = GOOD[tool]
    result = await desk.call(f"woocommerce.{tool}", **await arguments(desk, tool, case))
    if isinstance(result, int):
        assert result > 0
        return
    assert result, "an empty list shows nothing"
    first = result[0] if isinstance(result, list) else result
    assert case.shows.items() <= first.items()


@pytest.mark.parametrize("case", [*BAD.items(), *MORE_BAD.values()], ids=[*BAD, *MORE_BAD])
async def test_a_refusal_names_the_reason_and_changes_nothing(
    case: tuple[str, Bad], desk: Bench, shop: Faulty, written: Any
) -> None:
    tool, bad = case
    args = await arguments(desk, tool, bad)
    before = written()
    with pytest.raises(bad.error) as refusal:
        await desk.call(f"woocommerce.{tool}", **args)
    assert type(refusal.value) is bad.error
    assert bad.told in str(refusal.value)
    assert refusal.value.tool == f"woocommerce.{tool}"
    assert written() == before


@pytest.mark.parametrize(
    "tool", ["find_orders", "find_customers", "get_order", "get_account", "list_order_notes", "list_refunds"]
)
async def test_a_conversation_gets_nobody_elses_data_even_where_a_role_let_it(tool: str, desk: Bench) -> None:
    """The roles keep an agent from these tools; those that show people keep it out themselves as well."""
    chat = desk.with_(pins=Pins(customer=3, customer_required=True))
    with pytest.raises(ToolDenied):
        await chat.call(f"woocommerce.{tool}", **READS[tool].args)


async def test_lists_are_fetched_by_pages_at_once_and_in_order(desk: Bench, shop: Faulty) -> None:
    orders = await desk.call("woocommerce.find_orders", limit=250, descending=False)
    assert len(orders) == 250
    assert [order["date_created"] for order in orders] == sorted(order["date_created"] for order in orders)
    assert len({order["id"] for order in orders}) == 250
    assert shop.requests == ["GET orders"] * 3


async def test_a_list_asks_for_no_more_than_its_limit(desk: Bench, shop: Faulty) -> None:
    assert len(await desk.call("woocommerce.list_products", limit=3)) == 3
    assert shop.requests == ["GET products"]


async def test_a_failing_page_fails_the_list_with_its_own_error(desk: Bench, shop: Faulty) -> None:
    shop.arm(lambda _: JSONResponse({"code": "x", "message": "no", "data": None}, 500), at=2)
    with pytest.raises(UpstreamError, match="status 500"):
        await desk.call("woocommerce.find_orders", limit=300)


async def test_a_list_goes_on_by_links_where_totals_are_missing(desk: Bench, shop: Faulty) -> None:
    def page(request: Request) -> Response:
        number = int(request.query_params["page"])
        rows = [{"id": number * 10 + n, "topic": "order.updated", "name": "n", "status": "active"} for n in range(2)]
        link = {"link": '<http://127.0.0.1/x>; rel="next"'} if number < 3 else {}
        return JSONResponse([row | {"delivery_url": "https://x"} for row in rows], headers=link)

    shop.arm(page, at=1, times=9)
    listed = await desk.call("woocommerce.list_webhooks", limit=5)
    assert [row["id"] for row in listed] == [10, 11, 20, 21, 30]


async def test_a_trashed_product_leaves_the_lists_and_comes_back(desk: Bench) -> None:
    await desk.call("woocommerce.trash_product", product_id=PRODUCT)
    assert PRODUCT not in [row["id"] for row in await desk.call("woocommerce.list_products", limit=100)]
    [row] = await desk.call("woocommerce.list_products", status="trash")
    assert row["id"] == PRODUCT
    await desk.with_(idempotency_key="back").call("woocommerce.restore_product", product_id=PRODUCT, status="publish")
    assert PRODUCT in [row["id"] for row in await desk.call("woocommerce.list_products", limit=100)]


async def test_a_batch_tells_each_failure_with_its_item(desk: Bench) -> None:
    result = await desk.call(
        "woocommerce.batch_products",
        create=[
            {"name": "A", "sku": "b-a", "regular_price": "1.00", "status": "publish"},
            {"name": "dup", "sku": str(VARIATION), "regular_price": "1.00", "status": "publish"},
        ],
        update=[{"id": 999999, "name": "nope"}, {"id": PRODUCT, "name": "T"}],
    )
    assert (len(result["created"]), result["updated"]) == (1, [PRODUCT])
    assert [(f["action"], f["position"], f["id"], f["code"], f["message"]) for f in result["failed"]] == [
        ("create", 1, 0, "product_invalid_sku", "Invalid or duplicated SKU."),
        ("update", 0, 999999, "woocommerce_rest_product_invalid_id", "Invalid ID."),
    ]


async def test_a_large_batch_goes_in_hundreds(desk: Bench, shop: Faulty) -> None:
    new = [{"name": f"P{n}", "sku": f"p-{n}", "regular_price": "1", "status": "draft"} for n in range(230)]
    result = await desk.call("woocommerce.batch_products", create=new)
    assert len(result["created"]) == 230
    assert shop.requests == ["POST products/batch"] * 3
    [last] = await desk.call("woocommerce.list_products", sku="p-229")
    assert last["id"] == result["created"][229]


async def test_a_batch_that_breaks_midway_is_unknown_and_the_same_call_does_the_rest(desk: Bench, shop: Faulty) -> None:
    new = [{"name": f"P{n}", "sku": f"p-{n}", "regular_price": "1", "status": "draft"} for n in range(130)]
    shop.arm(lambda _: JSONResponse({"code": "x", "message": "no", "data": None}, 401), at=2)
    with pytest.raises(UpstreamError, match="100 items were applied, then the store failed") as failure:
        await desk.call("woocommerce.batch_products", create=new)
    assert failure.value.data["outcome"] == "unknown"
    shop.arm()
    result = await desk.with_(resuming=True).call("woocommerce.batch_products", create=new)
    assert (len(set(result["created"])), result["failed"]) == (130, [])


async def test_no_webhook_is_made_without_a_long_secret(desk: Bench, shop: Faulty) -> None:
    assert desk.context.shop is not None
    for secret in ("", "short"):
        poor = desk.with_(shop=replace(desk.context.shop, webhook_secret=secret))
        with pytest.raises(ToolDenied, match="32 characters") as refusal:
            await poor.call("woocommerce.create_webhook", topic="order.created", delivery_url="https://x.example.com")
        assert "webhook_secret" in refusal.value.hint
    assert shop.requests == []


async def test_a_webhook_gets_its_topics_own_secret_and_shows_none(desk: Bench, shop: Faulty) -> None:
    bodies: list[bytes] = []
    real = shop.app

    async def spy(scope: Any, receive: Any, send: Any) -> None:
        async def noted() -> Any:
            message = await receive()
            bodies.append(message.get("body", b""))
            return message

        await real(scope, noted, send)

    shop.app = spy
    try:
        made = await desk.call(
            "woocommerce.create_webhook", topic="order.created", delivery_url="https://x.example.com"
        )
    finally:
        shop.app = real
    sent = b"".join(bodies).decode()
    assert topic_secret(SECRET, "order.created") in sent
    assert SECRET not in sent
    assert topic_secret(SECRET, "order.created") not in str(made)


async def test_a_refund_that_the_store_refuses_with_500_is_the_callers_mistake(desk: Bench, shop: Faulty) -> None:
    body = {"code": "woocommerce_rest_cannot_create_order_refund", "message": "Invalid refund amount.", "data": 500}
    shop.arm(lambda _: JSONResponse(body, 500), at=3)
    with pytest.raises(ToolInputError, match=r"Invalid refund amount\."):
        await desk.call("woocommerce.refund_order", order_id=ORDER, amount="5.00")
    assert shop.requests[2] == f"POST orders/{ORDER}/refunds"


async def test_the_store_gets_no_more_at_once_than_it_may(desk: Bench, shop: Faulty) -> None:
    under_way = most = 0
    full = asyncio.Event()
    real = shop.app

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 3:
            full.set()
        await asyncio.wait_for(full.wait(), 30)  # the first ones stay until as many are there as may be
        try:
            await real(scope, receive, send)
        finally:
            under_way -= 1

    assert desk.context.shop is not None
    few = desk.with_(shop=replace(desk.context.shop, in_flight=3))
    shop.app = counting
    try:
        store = store_of(few.context)
        await asyncio.gather(*(store.object(f"orders/{ORDER}") for _ in range(12)))
    finally:
        shop.app = real
    assert most == 3
