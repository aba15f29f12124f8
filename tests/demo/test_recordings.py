"""The shop double beside recordings of a real store: requests of the same kind, answers of the same form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from shop_double import KEY, SECRET, ShopDouble

#: Recordings are shared with the tests of the tools that read such stores.
FOLDERS = (Path(__file__).parent / "recordings", Path(__file__).parents[1] / "servers" / "recordings")
RECORDED_AT = re.compile(r"https?://127\.0\.0\.1:\d+")

#: The recorded store's objects, and what stands for them here.
IDS = {
    "/products/36": "/products/9523456873",
    "/products/11/": "/products/9523456873/",
    "/orders/38": "/orders/2378156",
    "email=ann%40example.com": "email=yusuf.rossi7301%40example.com",
    "sku=woo-vneck-tee": "sku=t-shirt",
    "per_page=5&page=4": "per_page=5&page=10",
    "search=hoodie": "search=shirt",
    "status=processing": "status=refunded",
}
KEYS = {
    "25": (KEY, "wrong"),
    "26": ("ck_unknown", SECRET),
    "27": ("ck_reads", "cs_reads"),
    "28": ("ck_writes", "cs_writes"),
}
#: Values that depend on the store's content, not on how it answers.
CONTENT = {"date", "server", "transfer-encoding", "connection", "content-length", "x-wp-total", "x-wp-totalpages"}
ALL = [f"{number:02}" for number in range(1, 51)]
#: Answered item by item: held by a test of its own.
BATCH = "21"
#: What has to be there before: the recordings that made it.
BEFORE = {"14": ["13"], "21": ["13"], "32": ["31"], "46": ["45"], "47": ["43"]}


def recording(number: str) -> dict[str, Any]:
    path = next(path for folder in FOLDERS for path in folder.glob(f"{number}-*.json"))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def replay(shop: ShopDouble, number: str, request: Mapping[str, Any]) -> httpx.Response:
    parts = urlsplit(request["url"])
    path = parts.path.removeprefix("/wp-json/wc/v3") + (f"?{parts.query}" if parts.query else "")
    for recorded, here in IDS.items():
        path = path.replace(recorded, here)
    key, secret = KEYS.get(number, (KEY, SECRET))
    headers = {"authorization": ""} if "authorization" not in request["headers"] else {}
    if parts.scheme == "http":
        headers["x-forwarded-proto"] = "http"
    if request["body"] is not None:
        headers |= {"content-type": "application/json"}
        return shop.ask(request["method"], path, key=key, secret=secret, headers=headers, content=request["body"])
    body = json.loads(re.sub(r'(id": )36\b', r"\g<1>9523456873", json.dumps(request["json"])))
    return shop.ask(request["method"], path, key=key, secret=secret, headers=headers, json=body)


def replay_after(shop: ShopDouble, number: str) -> httpx.Response:
    """The recorded request, after those that made what it needs."""
    request = recording(number)["request"]
    for before in BEFORE.get(number, ()):
        made = replay(shop, before, recording(before)["request"]).raise_for_status()
        request = request | {"url": request["url"].replace("/webhooks/1?", f"/webhooks/{made.json()['id']}?")}
    return replay(shop, number, request)


@pytest.mark.parametrize("number", [number for number in ALL if number != BATCH])
def test_answer_has_the_recorded_form(number: str, shop: ShopDouble) -> None:
    recorded = recording(number)
    answer = replay_after(shop, number)
    expected = recorded["response"]
    assert answer.status_code == expected["status"]
    headers = dict(expected["headers"])
    assert set(answer.headers) - CONTENT == set(headers) - CONTENT
    for name in set(headers) - CONTENT - {"link", "location"}:
        assert answer.headers[name] == headers[name], name
    assert relations(answer.headers["link"]) == relations(headers["link"])
    if "location" in headers:
        assert numberless(answer.headers["location"]) == numberless(headers["location"])
    if expected["status"] >= 400:
        assert without_ids(without_plugin(answer.json())) == without_ids(expected["json"])
    else:
        assert form(answer.json()) == form(expected["json"])


def relations(link: str) -> list[str]:
    return re.findall(r'rel="([^"]+)"', link)


def numberless(text: str) -> str:
    return re.sub(r"\d+", "0", RECORDED_AT.sub("", text))


def without_plugin(body: Any) -> Any:
    """An error body less the two statuses that this shop's plugin for returns has registered."""
    text = json.dumps(body).replace(
        ", checkout-draft, return-requested, and exchange-requested", ", and checkout-draft"
    )
    return json.loads(text)


def without_ids(body: Any) -> Any:
    return json.loads(re.sub(r'"resource_id": \d+', '"resource_id": 0', json.dumps(body)))


def test_a_batch_fails_item_by_item_as_recorded(shop: ShopDouble) -> None:
    answer, expected = replay_after(shop, BATCH).json(), recording(BATCH)["response"]["json"]
    assert answer.keys() == expected.keys()
    for action, items in expected.items():
        assert [form(item) for item in answer[action]] == [form(item) for item in items]
        failed = [item["error"] for item in items if "error" in item]
        assert [without_ids(i["error"]) for i in answer[action] if "error" in i] == without_ids(failed)
    assert [item["id"] for item in answer["update"]] == [9523456873, 999999]
    assert answer["create"][1]["id"] == 0


def form(body: Any) -> Any:
    """Keys and kinds of an object, of its nested objects, and of the first of each list of objects; of lists all."""
    if isinstance(body, list):
        return [form(body[0])] if body and isinstance(body[0], dict) else "list"
    if not isinstance(body, dict):
        return "value"
    return {key: form(value) if key in NESTED else "any" for key, value in body.items()}


NESTED = {"billing", "shipping", "_links", "dimensions", "self", "collection", "up", "email_templates", "targetHints"}


def test_every_product_of_a_list_has_the_recorded_keys(shop: ShopDouble) -> None:
    recorded = {key for product in recording("01")["response"]["json"] for key in product}
    answer = shop.ask("GET", "/products?per_page=100").json()
    assert len(answer) == 50
    assert {frozenset(product) for product in answer} == {frozenset(recorded)}


def test_line_items_have_the_recorded_keys(shop: ShopDouble) -> None:
    recorded = recording("35")["response"]["json"]["line_items"][0]
    line = shop.ask("GET", "/orders/2378156").json()["line_items"][0]
    assert set(line) == set(recorded)
    assert set(line["meta_data"][0]) == set(recorded["meta_data"][0])
    assert isinstance(line["total"], str)


def test_pages_are_linked_as_recorded(shop: ShopDouble) -> None:
    for number in ("01", "02"):
        recorded = recording(number)
        answer = replay(shop, number, recorded["request"])
        link = dict(recorded["response"]["headers"])["link"]
        assert RECORDED_AT.sub("", re.sub(r"https?://127\.0\.0\.1:\d+", "", answer.headers["link"])) == RECORDED_AT.sub(
            "", link
        )
        assert (answer.headers["x-wp-total"], answer.headers["x-wp-totalpages"]) == ("50", "10")
