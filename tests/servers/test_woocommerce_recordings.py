"""Each of the fifty recorded exchanges of a real store (WooCommerce 11.0), met by the tool that would have it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from shop_server import recording, replaying, serving
from staff_cases import CONTACT, SECRET
from tool_bench import Bench, context_for

from servers.errors import ToolDenied, ToolError, ToolInputError, ToolNotFound, UpstreamError
from servers.registry import Registry
from servers.woocommerce.batch import Item, outcomes
from servers.woocommerce.client import store_of

Check = Callable[[Any], bool]
Call = Callable[[Bench], Awaitable[Any]]


@dataclass(frozen=True)
class Met:
    """How an exchange is met: the call that makes the recorded request, and what comes of it.

    `others`: what else the call asks the store, by the recording that answers it.
    """

    call: tuple[str, dict[str, Any]] | Call
    result: Check | None = None
    error: type[ToolError] | None = None
    told: str = ""
    others: dict[str, str] = field(default_factory=dict)


def get(path: str, **params: str | int) -> Call:
    return lambda bench: store_of(bench.context).get(path, params)


def post(path: str, body: dict[str, Any]) -> Call:
    return lambda bench: store_of(bench.context).post(path, body)


def put(path: str, body: dict[str, Any]) -> Call:
    return lambda bench: store_of(bench.context).put(path, body)


async def whole_list(bench: Bench) -> list[Any]:
    return [raw async for raw in store_of(bench.context).each("products", {"per_page": 5})]


async def mixed_batch(bench: Bench) -> Any:
    """Deletions are in no tool's batch; what a store says of them is read all the same."""
    items = [Item(a, n, {}) for a, count in (("create", 2), ("update", 2), ("delete", 1)) for n in range(count)]
    answer = await store_of(bench.context).post("products/batch", {})
    return [(item.action, item.position, raw.get("error", {}).get("code", "")) for item, raw in outcomes(items, answer)]


async def empty_batch(bench: Bench) -> Any:
    return outcomes([], await store_of(bench.context).post("products/batch", {}))


MUG: dict[str, Any] = {"name": "Rig Mug", "sku": "rig-mug-1", "regular_price": "9.99", "stock_quantity": 7}
LINE = {"product_id": 36, "item_id": 36, "quantity": 2}
PAGES = {f"GET products?page={n}&per_page=5": f"{min(n, 2):02}" for n in (1, 2, 3)} | {
    "GET products?page=4&per_page=5": "03"
}
ORDER_38 = {"GET orders/38": "35", "GET orders": "37"}

EXCHANGES: dict[str, Met] = {
    "01": Met(whole_list, lambda rows: len(rows) == 18, others=PAGES),
    "02": Met(whole_list, lambda rows: rows[5]["id"] == 22, others=PAGES),
    "03": Met(whole_list, lambda rows: rows[15]["id"] == 12, others=PAGES),
    "04": Met(get("products", page=99), lambda rows: rows == []),
    "05": Met(("list_products", {"limit": 100}), lambda rows: len(rows) == 18 and rows[0]["id"] == 33),
    "06": Met(get("products", per_page=101), error=ToolInputError, told="per_page must be between 1 (inclusive)"),
    "07": Met(get("products", page=0), error=ToolInputError, told="page must be greater than or equal to 1"),
    "08": Met(("list_products", {"search": "hoodie"}), lambda rows: len(rows) == 4),
    "09": Met(("list_products", {"sku": "woo-vneck-tee"}), lambda rows: [row["id"] for row in rows] == [10]),
    "10": Met(get("products", orderby="nonsense"), error=ToolInputError, told="orderby is not one of date, id"),
    "11": Met(
        get("products", modified_after="2020-01-01T00:00:00", dates_are_gmt="true", _fields="id,date_modified_gmt"),
        lambda rows: rows[0] == {"id": 33, "date_modified_gmt": "2026-11-22T13:46:38"},
    ),
    "12": Met(get("products", modified_after="not-a-date"), error=ToolInputError, told="modified_after: Invalid date."),
    "13": Met(("create_product", MUG), lambda made: (made["id"], made["stock_quantity"]) == (36, 7)),
    "14": Met(("create_product", MUG), error=ToolInputError, told="Invalid or duplicated SKU."),
    "15": Met(post("products", {"type": "bogus"}), error=ToolInputError, told="type is not one of simple, grouped"),
    "16": Met(post("products", {}), error=ToolInputError, told="Invalid JSON body passed."),
    "17": Met(("get_product", {"product_id": 36}), lambda row: row["sku"] == "rig-mug-1" and row["price"] == "9.99"),
    "18": Met(("get_product", {"product_id": 999999}), error=ToolNotFound, told="Invalid ID."),
    "19": Met(
        ("update_product", {"product_id": 36, "sale_price": "7.50"}),
        lambda row: (row["price"], row["stock_quantity"]) == ("7.50", 3),
        others={"GET products/36": "17"},
    ),
    "20": Met(
        ("list_variations", {"product_id": 11, "limit": 2}),
        lambda rows: rows[0]["options"] == {"Color": "Blue", "Logo": "Yes"},
    ),
    "21": Met(
        mixed_batch,
        lambda met: (
            met
            == [
                ("create", 0, ""),
                ("create", 1, "product_invalid_sku"),
                ("update", 0, ""),
                ("update", 1, "woocommerce_rest_product_invalid_id"),
                ("delete", 0, "woocommerce_rest_product_invalid_id"),
            ]
        ),
    ),
    "22": Met(post("products/batch", {}), error=ToolInputError, told="Unable to accept more than 100 items"),
    "23": Met(empty_batch, lambda met: met == []),
    "24": Met(("list_products", {}), error=ToolDenied, told="Sorry, you cannot list resources."),
    "25": Met(("list_products", {}), error=ToolDenied, told="Consumer secret is invalid."),
    "26": Met(("list_products", {}), error=ToolDenied, told="Sorry, you cannot list resources."),
    "27": Met(("create_product", MUG), error=ToolDenied, told="does not have write permissions"),
    "28": Met(("list_products", {}), error=ToolDenied, told="does not have read permissions"),
    "29": Met(("list_products", {}), error=ToolDenied, told="Sorry, you cannot list resources."),
    "30": Met(get("nonsense"), error=UpstreamError, told="No route was found"),
    "31": Met(("create_customer", {"email": "ann@example.com"}), lambda made: made["username"] == "ann"),
    "32": Met(("create_customer", {"email": "ann@example.com"}), error=ToolInputError, told="already registered"),
    "33": Met(("find_customers", {"email": "ann@example.com"}), lambda rows: [row["id"] for row in rows] == [2]),
    "34": Met(
        ("create_order", {"lines": [LINE], "customer_id": 2, "billing": CONTACT, "shipping_cost": "4.00"}),
        lambda made: (made["number"], made["total"], made["shipping_total"]) == ("38", "19.00", "4.00"),
    ),
    "35": Met(("get_order", {"order_id": 38}), lambda row: row["lines"][0]["sku"] == "rig-mug-1"),
    "36": Met(("get_order", {"order_id": 999999}), error=ToolNotFound, told="There is no order", others=ORDER_38),
    "37": Met(("count_orders", {"status": "processing"}), lambda count: count == 0),
    "38": Met(
        ("set_order_status", {"order_id": 38, "status": "completed"}),
        lambda row: row["status"] == "completed",
        others=ORDER_38,
    ),
    "39": Met(put("orders/38", {"status": "teleported"}), error=ToolInputError, told="status is not one of auto-draft"),
    "40": Met(
        ("add_order_note", {"order_id": 38, "note": "Called customer"}),
        lambda made: (made["id"], made["note"], made["for_customer"]) == (6, "Called customer", False),
        others=ORDER_38 | {"GET orders/38/notes": "37"},
    ),
    "41": Met(
        ("refund_order", {"order_id": 38, "amount": "5.00", "reason": "damaged"}),
        lambda made: (made["id"], made["amount"], made["paid_back"]) == (39, "5.00", False),
        others=ORDER_38,
    ),
    "42": Met(
        ("refund_order", {"order_id": 38, "amount": "15.00"}),
        error=ToolInputError,
        told="The store refused to refund 15.00",
        others=ORDER_38,
    ),
    "43": Met(
        ("create_webhook", {"topic": "order.updated", "delivery_url": "http://127.0.0.1:9999/hook"}),
        lambda made: (made["id"], made["status"]) == (1, "active"),
        others={"GET webhooks": "37"},
    ),
    "44": Met(
        ("create_coupon", {"code": "10off", "discount_type": "percent", "amount": "10", "usage_limit": 5}),
        lambda made: (made["id"], made["amount"], made["date_expires"]) == (40, "10.00", ""),
    ),
    "45": Met(
        ("trash_product", {"product_id": 36}),
        lambda gone: gone == {"id": 36, "name": "Rig Mug", "permanently": False},
        others={"GET products/36": "17"},
    ),
    "46": Met(
        ("delete_product", {"product_id": 36}),
        lambda gone: gone == {"id": 36, "name": "Rig Mug", "permanently": True},
        others={"GET products/36": "17"},
    ),
    "47": Met(
        ("delete_webhook", {"webhook_id": 1}),
        lambda gone: gone == {"id": 1, "name": "order.updated", "permanently": True},
        others={"GET webhooks/1": "43"},
    ),
    "48": Met(
        ("sales_report", {"period": "month"}),
        lambda report: (
            (report["total_refunds"], len(report["periods"]), report["periods"][-1]["refunds"]) == ("5.00", 22, "5.00")
        ),
    ),
    "49": Met(
        ("store_info", {}),
        lambda info: (info["woocommerce"], info["currency"]) == ("11.0.1", "GBP"),
        others={"GET data/currencies/current": "50"},
    ),
    "50": Met(("store_info", {}), lambda info: info["currency_symbol"] == "£", others={"GET system_status": "49"}),
}


def test_every_recording_is_met() -> None:
    assert list(EXCHANGES) == [f"{number:02}" for number in range(1, 51)]
    assert all(recording(number)["response"] for number in EXCHANGES)


@pytest.mark.parametrize("number", EXCHANGES)
async def test_a_recorded_exchange_is_met(number: str, registry: Registry, http: httpx.AsyncClient) -> None:
    met, request = EXCHANGES[number], recording(number)["request"]
    recorded = f"{request['method']} {urlsplit(request['url']).path.removeprefix('/wp-json/wc/v3/')}"
    answers = {recorded: number} | met.others
    asked: list[str] = []
    with serving(replaying(answers, asked)) as url:
        context = context_for(url, http)
        assert context.shop is not None
        bench = Bench(registry, replace(context, shop=replace(context.shop, webhook_secret=SECRET)))

        async def call() -> Any:
            if callable(met.call):
                return await met.call(bench)
            tool, args = met.call
            return await bench.call(f"woocommerce.{tool}", **args)

        if met.error is None:
            assert met.result is not None
            result = await call()
            assert met.result(result), result
        else:
            with pytest.raises(met.error) as refusal:
                await call()
            assert type(refusal.value) is met.error
            assert met.told in str(refusal.value)
            assert not refusal.value.retryable
    assert recorded in asked, "the tool makes the recorded request"
    assert not any("(?P<" in each for each in asked), "the Location of a refund is a regular expression"
