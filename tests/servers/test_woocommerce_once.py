"""Every write of the shop's staff, killed at each of its requests or left without an answer, is applied once.

The shop counts: what differs from its start after a disturbed call is what an undisturbed one makes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from shop_server import Faulty
from staff_cases import ORDER, PRODUCT, SECRET, WRITES, Args, arguments
from starlette.responses import JSONResponse
from tool_bench import CONTROL, Bench

from servers.errors import ToolError, ToolInputError, UpstreamError
from servers.woocommerce import create

Written = Callable[[], dict[str, Any]]


@pytest.fixture
def desk(bench: Bench) -> Bench:
    assert bench.context.shop is not None
    return bench.with_(shop=replace(bench.context.shop, webhook_secret=SECRET))


def timeless(value: Any) -> Any:
    match value:
        case dict():
            return {key: timeless(item) for key, item in value.items() if not str(key).startswith("date_")}
        case list():
            return [timeless(item) for item in value]
    return value


class Once:
    """One write on a fresh shop, as often as it takes."""

    def __init__(self, desk: Bench, shop: Faulty, written: Written, tool: str) -> None:
        self.desk, self.shop, self.tool = desk, shop, tool
        self._written = written

    async def fresh(self) -> Args:
        """The shop as the call finds it; the call's arguments."""
        self.shop.arm()
        assert self.desk.context.shop is not None
        url = f"{self.desk.context.shop.url}/_double/reset"
        (await self.desk.context.http.post(url, headers={"authorization": f"Bearer {CONTROL}"})).raise_for_status()
        args = await arguments(self.desk, self.tool, WRITES[self.tool])
        self.shop.arm()
        return args

    async def call(self, args: Args, *, resuming: bool = False) -> Any:
        return await self.desk.with_(resuming=resuming).call(f"woocommerce.{self.tool}", **args)

    async def undisturbed(self) -> tuple[dict[str, Any], list[str], Any]:
        """What the call makes of the shop, its requests and its result."""
        result = await self.call(await self.fresh())
        return self.state(), list(self.shop.requests), result

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = timeless(self._written())
        return state


@pytest.fixture(params=WRITES)
def once(request: pytest.FixtureRequest, desk: Bench, shop: Faulty, written: Written) -> Once:
    return Once(desk, shop, written, request.param)


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_write_that_is_killed_at_any_request_is_applied_once(once: Once, fault: str) -> None:
    expected, requests, _ = await once.undisturbed()
    for at in range(1, len(requests) + 1):
        args = await once.fresh()
        once.shop.arm(fault, at)
        running = asyncio.create_task(once.call(args))
        assert await asyncio.to_thread(once.shop.reached.wait, 30), f"request {at} of {requests} never came"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        once.shop.arm()
        result = await once.call(args, resuming=True)
        assert once.state() == expected, f"killed {fault} request {at} of {requests}"
        again = await once.call(args, resuming=True)
        assert once.state() == expected
        assert named(again) == named(result)


@pytest.mark.parametrize("fault", ["lost", "refused"])
async def test_a_write_without_an_answer_is_looked_up_and_applied_once(once: Once, fault: str) -> None:
    """Either at once, or, where it cannot be known, the call says so and the same call again finds out."""
    expected, requests, _ = await once.undisturbed()
    for at in (n for n, request in enumerate(requests, 1) if not request.startswith("GET")):
        args = await once.fresh()
        once.shop.arm(fault, at)
        [unanswered] = await asyncio.gather(once.call(args), return_exceptions=True)
        if isinstance(unanswered, BaseException):
            assert isinstance(unanswered, UpstreamError)
            assert (unanswered.data["outcome"], unanswered.retryable) == ("unknown", True)
            once.shop.arm()
            await once.call(args, resuming=True)
        assert once.state() == expected, f"{fault} at request {at} of {requests}"


async def test_a_write_whose_look_up_fails_too_says_that_its_outcome_is_unknown(once: Once) -> None:
    _, requests, _ = await once.undisturbed()
    first = next(n for n, request in enumerate(requests, 1) if not request.startswith("GET"))
    args = await once.fresh()
    once.shop.arm("lost", at=first, times=100)
    with pytest.raises(UpstreamError) as failure:
        await once.call(args)
    assert failure.value.data["outcome"] == "unknown"


def named(result: Any) -> Any:
    """What tells a result from that of another object; a removed one is nameless the second time."""
    return {key: value for key, value in result.items() if key in ("id", "created", "updated", "amount", "code", "sku")}


async def test_two_calls_make_two(desk: Bench, written: Written) -> None:
    for key in ("one", "two"):
        await desk.with_(idempotency_key=key).call("woocommerce.create_product", name="Mug")
    assert len(written()["products"]["written"]) == 2


async def test_what_somebody_else_made_is_not_taken_for_ours(desk: Bench, written: Written) -> None:
    await desk.with_(idempotency_key="theirs").call("woocommerce.create_product", name="Mug", sku="mug-1")
    with pytest.raises(ToolInputError, match="duplicated SKU"):
        await desk.with_(resuming=True).call("woocommerce.create_product", name="Mug", sku="mug-1")
    assert len(written()["products"]["written"]) == 1


async def test_an_order_that_was_made_is_found_among_newer_ones(desk: Bench, shop: Faulty, written: Written) -> None:
    line = {"product_id": PRODUCT, "item_id": PRODUCT, "quantity": 1}
    shop.arm("after", at=1)
    running = asyncio.create_task(desk.call("woocommerce.create_order", lines=[line], customer_id=2))
    assert await asyncio.to_thread(shop.reached.wait, 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    shop.arm()
    for n in range(120):
        await desk.with_(idempotency_key=f"newer-{n}").call("woocommerce.create_order", lines=[line], customer_id=2)
    await desk.with_(resuming=True).call("woocommerce.create_order", lines=[line], customer_id=2)
    assert len(written()["orders"]["written"]) == 121


async def test_where_too_many_are_newer_the_outcome_stays_unknown(
    desk: Bench, shop: Faulty, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create, "SCAN_PAGES", 1)
    lines = [{"product_id": PRODUCT, "item_id": PRODUCT, "quantity": 1}]
    monkeypatch.setattr(create, "PAGE_SIZE", 1)
    with pytest.raises(UpstreamError, match="not among the 1 newest of orders") as failure:
        await desk.with_(resuming=True).call("woocommerce.create_order", lines=lines, customer_id=2)
    assert failure.value.data["outcome"] == "unknown"
    assert written()["orders"]["written"] == {}


async def test_a_note_and_a_refund_are_counted_once_per_call_and_not_per_text(desk: Bench, shop: Faulty) -> None:
    for key in ("one", "two"):
        await desk.with_(idempotency_key=key).call("woocommerce.refund_order", order_id=ORDER, amount="1.00")
    assert len(await desk.call("woocommerce.list_refunds", order_id=ORDER)) == 2


async def test_refunds_at_once_never_exceed_the_total(desk: Bench, written: Written) -> None:
    order = await desk.call("woocommerce.get_order", order_id=ORDER)
    most = order["total"]
    calls = [
        desk.with_(idempotency_key=f"r{n}").call("woocommerce.refund_order", order_id=ORDER, amount=most)
        for n in range(4)
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(r, dict | ToolError) for r in results)


async def test_a_key_without_permission_changes_nothing_and_is_no_unknown(desk: Bench, shop: Faulty) -> None:
    body = {"code": "woocommerce_rest_authentication_error", "message": "no write permissions", "data": None}
    shop.arm(lambda _: JSONResponse(body, 401), at=1)
    with pytest.raises(ToolError) as refusal:
        await desk.call("woocommerce.create_product", name="x")
    assert "outcome" not in refusal.value.data
