"""The WooCommerce client against what a real store answered, and against a store that misbehaves."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import woocommerce
from aiolimiter import AsyncLimiter
from shop_server import Faulty, recording, replaying, serving
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tool_bench import KEY, Bench, context_for

from servers.context import Shop
from servers.errors import RateLimited, ToolDenied, ToolError, ToolInputError, ToolNotFound, UpstreamError
from servers.woocommerce.auth import auth_for
from servers.woocommerce.client import READ_ATTEMPTS, Store, store_of
from servers.woocommerce.problems import retry_after
from servers.woocommerce.shapes import customer_view, order_view, product_view

REAL = {
    "GET products?page=1&per_page=5": "01",
    "GET products?page=2&per_page=5": "02",
    "GET products?page=3&per_page=5": "02",  # not recorded; like page 2 it has a next one
    "GET products?page=4&per_page=5": "03",
    "GET products?per_page=101": "06",
    "GET products/999999": "18",
    "GET products/11/variations": "20",
    "GET nonsense": "30",
    "GET customers": "33",
    "GET orders/38": "35",
    "GET orders/999999": "36",
    "PUT orders/38": "39",
    "GET products": "25",
    "PUT products/36": "27",
    "PUT orders/38/refunds": "42",
}


def store_at(url: str, http: httpx.AsyncClient, **changes: Any) -> Store:
    shop = {"url": url, "consumer_key": KEY.consumer_key, "consumer_secret": KEY.consumer_secret, "timeout_s": 30.0}
    return Store(Shop(**(shop | changes)), http)


@pytest.fixture
def real(http: httpx.AsyncClient) -> Any:
    """A store that gives the recorded answers."""
    with serving(replaying(REAL)) as url:
        yield store_at(url, http)


async def test_a_list_is_paged_to_its_end(real: Store) -> None:
    pages = [page async for page in real.pages("products", {"per_page": 5})]
    assert [len(page) for page in pages] == [5, 5, 5, 3]
    assert pages[3][0] == recording("03")["response"]["json"][0]


async def test_paging_follows_the_next_link_where_totals_are_missing(http: httpx.AsyncClient) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        page = int(Request(scope).query_params["page"])
        rel = "next" if page < 3 else "https://api.w.org/"
        answer = JSONResponse([{"id": page}], headers={"link": f'<http://127.0.0.1/wp-json/?page=9>; rel="{rel}"'})
        await answer(scope, receive, send)

    with serving(app) as url:
        pages = [page async for page in store_at(url, http).pages("products")]
    assert pages == [[{"id": 1}], [{"id": 2}], [{"id": 3}]]


@pytest.mark.parametrize(
    ("request_", "error", "told"),
    [
        ("GET products?per_page=101", ToolInputError, "per_page must be between 1 (inclusive) and 100 (inclusive)"),
        ("GET products/999999", ToolNotFound, "Invalid ID."),
        ("GET orders/999999", ToolNotFound, "Invalid ID."),
        ("GET nonsense", UpstreamError, "No route was found"),
        ("GET products", ToolDenied, "Consumer secret is invalid."),
        ("PUT products/36", ToolDenied, "does not have write permissions"),
        ("PUT orders/38", ToolInputError, "status is not one of"),
        ("PUT orders/38/refunds", UpstreamError, "Invalid refund amount."),
    ],
)
async def test_a_recorded_refusal_becomes_the_error_of_its_kind(
    request_: str, error: type[ToolError], told: str, real: Store
) -> None:
    method, _, target = request_.partition(" ")
    path, _, query = target.partition("?")
    params = dict([query.split("=")]) if query else None
    with pytest.raises(error) as failure:
        await (real.get(path, params) if method == "GET" else real.put(path, {}))
    assert type(failure.value) is error
    assert told in str(failure.value)
    assert not failure.value.retryable
    assert_no_secret(failure.value)


def assert_no_secret(error: ToolError) -> None:
    text = f"{error!r} {error.hint} {error.data} {error.__cause__!r}"
    assert KEY.consumer_secret not in text
    assert KEY.consumer_key not in text
    assert "oauth" not in text


def test_a_real_stores_objects_are_read_as_ours() -> None:
    order = order_view(recording("35")["response"]["json"])
    assert (order["number"], order["status"], order["total"], order["payments"]) == ("38", "completed", "19.00", [])
    assert [(i["item_id"], i["quantity"], i["price"], i["options"]) for i in order["line_items"]] == [
        (36, 2, "7.50", {})
    ]
    [customer] = recording("33")["response"]["json"]
    assert customer_view(customer)["email"] == "ann@example.com"
    hoodie = next(p for p in recording("05")["response"]["json"] if p["id"] == 11)
    product = product_view(hoodie, recording("20")["response"]["json"])
    assert product["variants"][0] == {
        "item_id": 34,
        "options": {"Color": "Blue", "Logo": "Yes"},
        "price": "45",
        "in_stock": True,
    }


async def test_over_http_each_request_is_signed_and_never_carries_the_secret(bench: Bench, shop: Faulty) -> None:
    seen: list[Request] = []

    def note(request: Request) -> Response:
        seen.append(request)
        return JSONResponse({"code": "busy", "message": "", "data": None}, 503)

    shop.arm(note, at=1)
    assert (await store_of(bench.context).object("orders/2611340"))["number"] == "W2611340"
    [first] = seen
    assert "authorization" not in first.headers
    assert first.query_params["oauth_signature_method"] == "HMAC-SHA256"
    assert KEY.consumer_secret not in str(first.url)
    assert len(shop.requests) == 2, "signed anew, the double would refuse a nonce that it has seen"


async def test_signatures_hold_for_awkward_queries(bench: Bench) -> None:
    store = store_of(bench.context)
    for search in ("a b", "ä+b&c=d", "100%", "o'neil~*", "日本"):
        assert await store.get("customers", {"search": f"zz{search}", "role": "all"}) == []


def test_over_https_the_keys_go_by_basic() -> None:
    request = httpx.Request("GET", "https://shop.example.com/wp-json/wc/v3/orders")
    flow = auth_for(Shop("https://shop.example.com", "ck_a", "cs_b")).sync_auth_flow(request)
    assert next(flow).headers["authorization"] == "Basic Y2tfYTpjc19i"
    assert request.url.query == b""


def test_another_scheme_is_refused_with_its_url() -> None:
    with pytest.raises(ToolError, match=r"ftp://shop"):
        auth_for(Shop("ftp://shop", "ck_a", "cs_b"))


def test_a_shop_shows_no_keys() -> None:
    assert "cs_b" not in repr(Shop("https://shop.example.com", "ck_a", "cs_b"))


async def test_nothing_secret_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for library in ("httpx", "httpcore"):  # a gateway in this process, of another test, has made them quiet
        caplog.set_level(logging.DEBUG, logger=library)
    async for _ in store_of(bench.context).pages("products", {"per_page": 20}):
        pass
    assert "GET http" in caplog.text
    assert "response_headers" in caplog.text
    for secret in (KEY.consumer_key, KEY.consumer_secret, "oauth_consumer_key", "Signature"):
        assert secret not in caplog.text


async def test_a_wrong_secret_is_told_without_showing_it(faulty: tuple[Faulty, str], http: httpx.AsyncClient) -> None:
    with pytest.raises(ToolDenied) as failure:
        await store_at(faulty[1], http, consumer_secret="cs_wrong").get("orders/1")
    assert "signature" in str(failure.value)
    assert "cs_wrong" not in str(failure.value)
    assert_no_secret(failure.value)


def busy(status: int, **headers: str) -> Callable[[Request], Response]:
    return lambda _: Response("<h1>busy</h1>", status, headers=headers, media_type="text/html")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_read_is_repeated_while_the_store_is_busy(status: int, bench: Bench, shop: Faulty) -> None:
    shop.arm(busy(status, **{"retry-after": "0"}), at=1, times=READ_ATTEMPTS - 1)
    assert (await store_of(bench.context).object("orders/2611340"))["id"] == 2611340
    assert len(shop.requests) == READ_ATTEMPTS


async def test_reads_are_repeated_a_few_times_only(bench: Bench, shop: Faulty) -> None:
    shop.arm(busy(429, **{"retry-after": "0"}), at=1, times=100)
    with pytest.raises(RateLimited) as failure:
        await store_of(bench.context).get("orders/2611340")
    assert failure.value.data["retry_after"] == 0
    assert len(shop.requests) == READ_ATTEMPTS


async def test_a_long_wait_is_told_rather_than_waited(bench: Bench, shop: Faulty) -> None:
    shop.arm(busy(429, **{"retry-after": "3600"}), at=1)
    with pytest.raises(RateLimited) as failure:
        await store_of(bench.context).get("orders/2611340")
    assert failure.value.data["retry_after"] == 3600
    assert len(shop.requests) == 1


@pytest.mark.parametrize(("status", "error"), [(429, RateLimited), (500, UpstreamError)])
async def test_a_write_is_never_repeated_blindly(
    status: int, error: type[ToolError], bench: Bench, shop: Faulty
) -> None:
    shop.arm(busy(status, **{"retry-after": "0"}), at=1)
    with pytest.raises(error):
        await store_of(bench.context).put("orders/2611340", {})
    assert shop.requests == ["PUT orders/2611340"]


async def test_a_store_that_is_down_is_named(http: httpx.AsyncClient) -> None:
    with serving(replaying({})) as url:
        pass
    with pytest.raises(UpstreamError, match=rf"{url} could not be reached: connection refused") as failure:
        await store_at(url, http).put("orders/1", {})
    assert failure.value.retryable


async def test_a_store_that_does_not_answer_in_time_is_told(
    bench: Bench, faulty: tuple[Faulty, str], http: httpx.AsyncClient
) -> None:
    faulty[0].arm("before", at=1, times=READ_ATTEMPTS)
    with pytest.raises(UpstreamError, match="time-out while waiting for the answer"):
        await store_at(faulty[1], http, timeout_s=0.2).get("orders/2611340")


async def test_a_page_instead_of_json_is_told(bench: Bench, shop: Faulty) -> None:
    shop.arm(lambda _: Response("<html>Hello</html>", media_type="text/html"), at=1)
    with pytest.raises(UpstreamError, match="text/html that is no JSON") as failure:
        await store_of(bench.context).get("orders/2611340")
    assert "permalinks" in failure.value.hint


async def test_a_redirect_is_told_and_not_followed(bench: Bench, shop: Faulty) -> None:
    shop.arm(lambda _: Response(status_code=301, headers={"location": "http://127.0.0.1:1/"}), at=1)
    with pytest.raises(UpstreamError, match="redirects") as failure:
        await store_of(bench.context).get("orders/2611340")
    assert "url" in failure.value.hint
    assert len(shop.requests) == 1


async def test_a_stores_words_are_capped_and_printable(bench: Bench, shop: Faulty) -> None:
    body = {"code": "x\u202e", "message": "a\x1b[31m" * 1000, "data": "odd"}
    shop.arm(lambda _: JSONResponse(body, 400), at=1)
    with pytest.raises(ToolInputError) as failure:
        await store_of(bench.context).get("orders/2611340")
    assert len(str(failure.value)) < 500
    assert str(failure.value).isprintable()


async def test_a_tenant_without_a_store_is_told(http: httpx.AsyncClient, bench: Bench) -> None:
    with pytest.raises(ToolDenied, match="No store is configured"):
        await bench.with_(shop=None).call("woocommerce.lookup_order", order_id=1)
    assert context_for("http://127.0.0.1:1", http).shop is not None


async def test_the_official_client_and_ours_get_the_same(bench: Bench, faulty: tuple[Faulty, str]) -> None:
    """The `woocommerce` package signs and asks in its own way; a store answers both alike."""
    official = woocommerce.API(
        url=faulty[1], consumer_key=KEY.consumer_key, consumer_secret=KEY.consumer_secret, timeout=30
    )
    store = store_of(bench.context)
    asked: list[tuple[str, dict[str, str | int]]] = [
        ("orders/2611340", {}),
        ("products", {"search": "a b", "per_page": 3}),
        ("customers", {"email": "yusuf.rossi7301@example.com", "role": "all"}),
    ]
    for path, params in asked:
        theirs = await asyncio.to_thread(official.get, path, params=params)
        assert theirs.json() == await store.get(path, params)
    theirs = await asyncio.to_thread(official.post, "orders/2611340/notes", {"note": "by hand"})
    assert theirs.status_code == 201
    notes = await store.get("orders/2611340/notes")
    assert [note["note"] for note in notes] == ["by hand"]
    await asyncio.to_thread(official.delete, "products/9523456873", params={"force": True})
    with pytest.raises(ToolNotFound):
        await store.object("products/9523456873")


async def test_each_request_takes_its_turn_in_the_shops_pace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[float] = []

    async def acquire(self: AsyncLimiter, amount: float = 1) -> None:
        turns.append(self.max_rate / self.time_period)

    monkeypatch.setattr(AsyncLimiter, "acquire", acquire)
    assert bench.context.shop is not None
    slow = dataclasses.replace(bench.context.shop, requests_per_s=0.5)
    for shop, times in ((bench.context.shop, 3), (slow, 2)):
        for _ in range(times):
            await store_of(bench.with_(shop=shop).context).object("orders/2611340")
    assert turns == [50.0] * 3 + [0.5] * 2


async def test_when_the_store_asks_to_wait_nobody_else_asks_meanwhile(
    bench: Bench, shop: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float, *rest: Any) -> None:
        waited.append(seconds)
        await real(0)

    assert bench.context.shop is not None
    mine = bench.with_(shop=dataclasses.replace(bench.context.shop, in_flight=2))  # a gate of this test's own
    shop.arm(busy(429, **{"retry-after": "3"}), at=1)
    with pytest.raises(RateLimited):
        await store_of(mine.context).put("orders/2611340", {})
    monkeypatch.setattr("servers.woocommerce.gate.asyncio.sleep", sleep)
    await store_of(mine.context).object("orders/2611340")
    assert len(waited) >= 1
    assert 2 < waited[0] <= 3


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), ("-1", None), ("٣", None), ("", None)],
)
def test_a_stores_delay_is_a_number_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after(httpx.Response(429, headers={"retry-after": value.encode()})) == seconds


async def test_connections_are_kept(bench: Bench, shop: Faulty) -> None:
    clients: set[Any] = set()
    real = shop.app

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        clients.add(tuple(scope["client"]))
        await real(scope, receive, send)

    shop.app = noting
    try:
        for _ in range(5):
            await store_of(bench.context).object("orders/2611340")
    finally:
        shop.app = real
    assert len(clients) == 1
