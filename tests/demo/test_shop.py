"""What the shop double does beyond the recordings: keys over plain http, merging, filters, its own controls."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from oauthlib.oauth1 import SIGNATURE_HMAC_SHA1, SIGNATURE_HMAC_SHA256, SIGNATURE_TYPE_QUERY, Client
from shop_double import KEY, SECRET, TOKEN, ShopDouble

ORDER = "/orders/2378156"


def signed(shop: ShopDouble, path: str, secret: str = SECRET, method: str = SIGNATURE_HMAC_SHA256, **more: Any) -> str:
    client = Client(KEY, client_secret=secret, signature_method=method, signature_type=SIGNATURE_TYPE_QUERY, **more)
    url: str = client.sign(f"{shop.url}/wp-json/wc/v3{path}", http_method="GET")[0]
    return url


@pytest.mark.parametrize("method", [SIGNATURE_HMAC_SHA1, SIGNATURE_HMAC_SHA256])
def test_oauth_opens_the_shop_over_plain_http(shop: ShopDouble, method: str) -> None:
    answer = httpx.get(signed(shop, "/customers?search=Mei%20Davis&per_page=3", method=method))
    assert [customer["last_name"] for customer in answer.json()] == ["Davis"]


@pytest.mark.parametrize(
    ("secret", "more", "message"),
    [
        ("wrong", {}, "Invalid signature - provided signature does not match."),
        (SECRET, {"timestamp": "1000000000"}, "Invalid timestamp."),
    ],
)
def test_bad_oauth_is_refused(shop: ShopDouble, secret: str, more: dict[str, str], message: str) -> None:
    answer = httpx.get(signed(shop, "/orders", secret, **more))
    assert answer.status_code == 401
    assert answer.json()["message"] == message


def test_oauth_nonce_is_good_for_one_request(shop: ShopDouble) -> None:
    url = signed(shop, "/products?per_page=1")
    assert [httpx.get(url).status_code for _ in range(2)] == [200, 401]


@pytest.mark.parametrize(("scheme", "status"), [("https", 200), ("http", 401)])
def test_keys_in_the_query_count_over_https_only(shop: ShopDouble, scheme: str, status: int) -> None:
    query = {"consumer_key": KEY, "consumer_secret": SECRET}
    url = f"{shop.url}/wp-json/wc/v3/orders"
    assert httpx.get(url, params=query, headers={"x-forwarded-proto": scheme}).status_code == status


def test_meta_data_is_merged_by_id_then_by_key_and_null_deletes(shop: ShopDouble) -> None:
    before = shop.ask("GET", ORDER).json()["meta_data"]
    by_key = {entry["key"]: entry for entry in before}
    posted = [
        {"id": by_key["_tracking"]["id"], "key": "_tracking", "value": []},
        {"key": "_payment_history", "value": None},
        {"key": "_new", "value": {"any": ["json", 1]}},
        {"key": "_new", "value": "second"},
    ]
    shop.ask("PUT", ORDER, json={"meta_data": posted})
    after = {entry["key"]: entry for entry in shop.ask("GET", ORDER).json()["meta_data"]}
    assert after["_tracking"] == {"id": by_key["_tracking"]["id"], "key": "_tracking", "value": []}
    assert after["_new"]["value"] == "second"
    assert set(after) == {"_tracking", "_new"}


def test_a_new_variation_takes_its_name_and_options_but_keeps_prices(shop: ShopDouble) -> None:
    line = shop.ask("GET", ORDER).json()["line_items"][0]
    variants = shop.ask("GET", f"/products/{line['product_id']}/variations?per_page=100").json()
    other = next(each for each in variants if each["id"] != line["variation_id"] and each["price"] != line["total"])
    put = {"line_items": [{"id": line["id"], "variation_id": other["id"]}]}
    changed = shop.ask("PUT", ORDER, json=put).json()["line_items"][0]
    assert (changed["variation_id"], changed["sku"], changed["total"]) == (other["id"], other["sku"], line["total"])
    assert {m["key"]: m["value"] for m in changed["meta_data"]} == {a["name"]: a["option"] for a in other["attributes"]}


def test_an_orders_total_follows_its_lines(shop: ShopDouble) -> None:
    order = shop.ask("GET", ORDER).json()
    line, *rest = order["line_items"]
    put = {"line_items": [{"id": line["id"], "subtotal": "1.50", "total": "1.50"}]}
    changed = shop.ask("PUT", ORDER, json=put).json()
    assert float(changed["total"]) == pytest.approx(1.5 + sum(float(each["total"]) for each in rest))
    assert isinstance(changed["total"], str)


def test_a_line_of_another_order_is_refused(shop: ShopDouble) -> None:
    answer = shop.ask("PUT", ORDER, json={"line_items": [{"id": 999_999_999, "quantity": 1}]})
    assert (answer.status_code, answer.json()["code"]) == (400, "woocommerce_rest_invalid_item_id")


def test_an_address_is_merged_field_by_field(shop: ShopDouble) -> None:
    before = shop.ask("GET", ORDER).json()
    after = shop.ask("PUT", ORDER, json={"shipping": {"city": "Bonn", "nonsense": "x"}}).json()
    assert after["shipping"] == before["shipping"] | {"city": "Bonn"}
    assert after["billing"] == before["billing"]


def test_malformed_json_is_told_apart(shop: ShopDouble) -> None:
    answer = shop.ask("PUT", ORDER, content=b'{"status": ', headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json() == {
        "code": "rest_invalid_json",
        "message": "Invalid JSON body passed.",
        "data": {"status": 400, "json_error_code": 4, "json_error_message": "Syntax error"},
    }


def test_all_wrong_parameters_are_named_at_once(shop: ShopDouble) -> None:
    answer = shop.ask("GET", "/orders?per_page=101&orderby=colour&status=teleported&page=one")
    assert answer.status_code == 400
    assert set(answer.json()["data"]["params"]) == {"per_page", "orderby", "status", "page"}


def test_orders_are_filtered_by_customer_and_status(shop: ShopDouble) -> None:
    customer = shop.ask("GET", ORDER).json()["customer_id"]
    found = shop.ask("GET", f"/orders?customer={customer}&status=pending,completed&_fields=customer_id,status").json()
    assert {order["customer_id"] for order in found} == {customer}
    assert {order["status"] for order in found} == {"pending", "completed"}
    assert set(found[0]) == {"customer_id", "status"}


def test_a_variation_is_found_below_its_own_product_only(shop: ShopDouble) -> None:
    assert shop.ask("GET", "/products/9523456873/variations/9612497925").json()["parent_id"] == 9523456873
    assert shop.ask("GET", "/products/4760268021/variations/9612497925").status_code == 404


def test_every_product_has_a_category_that_counts_it(shop: ShopDouble) -> None:
    categories = shop.ask("GET", "/products/categories?per_page=100").json()
    assert sum(category["count"] for category in categories) == 50
    for category in categories:
        listed = shop.ask("GET", f"/products?category={category['id']}&per_page=100").json()
        assert len(listed) == category["count"]


def test_refunds_end_at_the_orders_total(shop: ShopDouble) -> None:
    total = shop.ask("GET", ORDER).json()["total"]
    assert shop.ask("POST", f"{ORDER}/refunds", json={"amount": "5.00"}).status_code == 201
    assert shop.ask("POST", f"{ORDER}/refunds", json={"amount": total}).status_code == 500
    assert [refund["total"] for refund in shop.ask("GET", ORDER).json()["refunds"]] == ["-5.00"]


def test_controls_ask_for_a_token_of_their_own(shop: ShopDouble) -> None:
    shop.ask("PUT", ORDER, json={"status": "cancelled"})
    for header in ({}, {"authorization": f"Bearer {SECRET}"}):
        assert httpx.get(f"{shop.url}/_double/state", headers=header).status_code == 401
        assert httpx.post(f"{shop.url}/_double/reset", headers=header).status_code == 401
    assert shop.ask("GET", ORDER).json()["status"] == "cancelled"
    httpx.post(f"{shop.url}/_double/reset", headers={"authorization": f"Bearer {TOKEN}"}).raise_for_status()
    assert shop.ask("GET", ORDER).json()["status"] == "completed"


def test_reset_undoes_every_kind_of_write(shop: ShopDouble) -> None:
    before = shop.state()
    customer = shop.ask("GET", ORDER).json()["customer_id"]
    shop.ask("PUT", ORDER, json={"status": "on-hold"})
    shop.ask("PUT", f"/customers/{customer}", json={"first_name": "Somebody"})
    shop.ask("POST", f"{ORDER}/notes", json={"note": "called"})
    assert shop.state() != before
    shop.reset()
    assert shop.state() == before
    assert shop.ask("GET", f"{ORDER}/notes").json() == []
