"""Reading orders, customers and products, and who may see whose."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import pytest
from shop_server import Faulty
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tool_bench import Bench, Pins

from demo.tau import load_data
from servers.errors import ToolDenied, ToolInputError, ToolNotFound

ORDER = load_data()["orders"]["#W2611340"]
USER = load_data()["users"][ORDER["user_id"]]


@pytest.fixture
def chat(bench: Bench) -> Bench:
    """A conversation in which nobody is verified yet."""
    return bench.with_(pins=Pins(customer_required=True))


async def verified(chat: Bench) -> dict[str, Any]:
    customer: dict[str, Any] = await chat.call("woocommerce.verify_customer", email=USER["email"])
    return customer


@pytest.mark.parametrize("written", ["#W2611340", "W2611340", "w2611340", " #W2611340 ", "2611340", 2611340])
async def test_an_order_is_found_however_its_number_is_written(written: int | str, bench: Bench) -> None:
    order = await bench.call("woocommerce.lookup_order", order_id=written)
    assert order["number"] == "W2611340"
    assert [i["item_id"] for i in order["line_items"]] == [int(i["item_id"]) for i in ORDER["items"]]
    assert order["line_items"][0]["options"] == ORDER["items"][0]["options"]
    assert order["payments"] == [
        {"transaction_type": "payment", "amount": "536.65", "payment_method_id": "gift_card_1725971"}
    ]
    assert order["shipments"][0]["tracking_ids"] == ORDER["fulfillments"][0]["tracking_id"]
    assert order["shipping"]["postcode"] == ORDER["address"]["zip"]


async def test_an_order_whose_number_is_not_its_id_is_found_by_search(bench: Bench, shop: Faulty) -> None:
    def listed(request: Request) -> Response:
        assert request.query_params["search"] == "SO-77"
        line = {"id": 1, "name": "Mug", "product_id": 5, "variation_id": 0, "quantity": 1, "total": "3.00"}
        order = {"id": 9, "number": "so-77", "status": "pending", "customer_id": 2, "total": "3.00"}
        return JSONResponse([order | {"line_items": [line], "number": "SO-770"}, order | {"line_items": [line]}])

    shop.arm(listed, at=2)  # after the look-up by id 77
    assert (await bench.call("woocommerce.lookup_order", order_id="#SO-77"))["id"] == 9


async def test_an_order_of_the_same_digits_but_another_number_is_not_taken(bench: Bench) -> None:
    with pytest.raises(ToolNotFound, match="There is no order 'X2611340'"):
        await bench.call("woocommerce.lookup_order", order_id="X2611340")


@pytest.mark.parametrize("written", ["", "#", "../../customers/2", "W" + "1" * 50, "١٢٣"])
async def test_what_can_be_no_order_number_is_refused(written: str, bench: Bench, shop: Faulty) -> None:
    with pytest.raises((ToolInputError, ToolNotFound)):
        await bench.call("woocommerce.lookup_order", order_id=written)
    assert not any("customers" in request for request in shop.requests)


async def test_a_customer_is_verified_by_email_and_pinned(chat: Bench) -> None:
    customer = await chat.call("woocommerce.verify_customer", email=USER["email"].upper())
    assert customer["username"] == ORDER["user_id"]
    assert chat.context.pins.customer == customer["id"]
    assert {m["id"] for m in customer["payment_methods"]} == USER["payment_methods"].keys()


async def test_a_customer_is_verified_by_name_and_postcode(chat: Bench) -> None:
    name = USER["name"]
    customer = await chat.call(
        "woocommerce.verify_customer",
        first_name=name["first_name"].lower(),
        last_name=name["last_name"],
        postcode=USER["address"]["zip"],
    )
    assert customer["username"] == ORDER["user_id"]


@pytest.mark.parametrize(
    "details",
    [
        {"email": "nobody@example.com"},
        {"first_name": USER["name"]["first_name"], "last_name": USER["name"]["last_name"], "postcode": "00000"},
    ],
)
async def test_wrong_details_verify_nobody(details: dict[str, str], chat: Bench) -> None:
    with pytest.raises(ToolNotFound):
        await chat.call("woocommerce.verify_customer", **details)
    assert chat.context.pins.customer is None


async def test_half_the_details_are_refused(chat: Bench) -> None:
    with pytest.raises(ToolInputError, match="email, or first_name, last_name and postcode"):
        await chat.call("woocommerce.verify_customer", first_name="Ann")


async def test_a_second_customer_cannot_be_verified(chat: Bench) -> None:
    await verified(chat)
    other = next(u for u in load_data()["users"].values() if u["email"] != USER["email"])
    with pytest.raises(ToolDenied):
        await chat.call("woocommerce.verify_customer", email=other["email"])


@pytest.mark.parametrize(
    ("tool", "args"),
    [
        ("lookup_order", {"order_id": "#W2611340"}),
        ("get_customer", {"customer_id": 2}),
        ("list_orders", {"customer_id": 2}),
        ("cancel_order", {"order_id": "#W2611340", "reason": "no longer needed"}),
    ],
)
async def test_before_verification_no_personal_data_is_read(
    tool: str, args: dict[str, Any], chat: Bench, shop: Faulty
) -> None:
    with pytest.raises(ToolDenied, match="No customer is verified") as denial:
        await chat.call(f"woocommerce.{tool}", **args)
    assert "verify_customer" in denial.value.hint
    assert shop.requests == []


async def test_somebody_elses_order_and_no_order_cannot_be_told_apart(chat: Bench) -> None:
    customer = await verified(chat)
    somebody_elses = next(n for n, o in load_data()["orders"].items() if o["user_id"] != customer["username"])
    messages = []
    for number in (somebody_elses, "#W0000001"):
        with pytest.raises(ToolDenied) as denial:
            await chat.call("woocommerce.lookup_order", order_id=number)
        messages.append(str(denial.value).replace(number, "..."))
    assert messages[0] == messages[1]
    assert (await chat.call("woocommerce.lookup_order", order_id="#W2611340"))["customer_id"] == customer["id"]


async def test_other_customers_stay_hidden(chat: Bench) -> None:
    customer = await verified(chat)
    for somebody in (customer["id"] + 1, 10**9):
        for tool in ("get_customer", "list_orders"):
            with pytest.raises(ToolDenied, match="is somebody else"):
                await chat.call(f"woocommerce.{tool}", customer_id=somebody)
    assert await chat.call("woocommerce.get_customer", customer_id=customer["id"]) == customer


async def test_an_analyst_needs_no_verification(bench: Bench) -> None:
    assert (await bench.call("woocommerce.get_customer", customer_id=2))["id"] == 2
    with pytest.raises(ToolNotFound):
        await bench.call("woocommerce.get_customer", customer_id=10**9)


async def test_a_customers_orders_are_listed_and_filtered(bench: Bench) -> None:
    by_user: dict[str, list[str]] = {}
    for number, order in load_data()["orders"].items():
        by_user.setdefault(order["user_id"], []).append(number)
    user, numbers = max(by_user.items(), key=lambda item: len(item[1]))
    customer = await bench.call("woocommerce.verify_customer", email=load_data()["users"][user]["email"])
    listed = await bench.call("woocommerce.list_orders", customer_id=customer["id"])
    assert {f"#{o['number']}" for o in listed} == set(numbers)
    assert listed[0] == await bench.call("woocommerce.lookup_order", order_id=listed[0]["id"])
    pending = await bench.call("woocommerce.list_orders", customer_id=customer["id"], status="pending")
    assert {o["number"] for o in pending} == {o["number"] for o in listed if o["status"] == "pending"}
    assert len(await bench.call("woocommerce.list_orders", customer_id=customer["id"], limit=2)) == 2


async def test_a_product_comes_with_all_its_variants(bench: Bench) -> None:
    raw = max(load_data()["products"].values(), key=lambda p: len(p["variants"]))
    product = await bench.call("woocommerce.get_product_details", product_id=raw["product_id"])
    expected = [
        {
            "item_id": int(v["item_id"]),
            "options": v["options"],
            "price": f"{v['price']:.2f}",
            "in_stock": v["available"],
        }
        for v in raw["variants"].values()
    ]
    by_id = itemgetter("item_id")
    assert sorted(product["variants"], key=by_id) == sorted(expected, key=by_id)


async def test_an_item_id_in_a_products_place_is_told(bench: Bench) -> None:
    with pytest.raises(ToolNotFound) as error:
        await bench.call("woocommerce.get_product_details", product_id=int(ORDER["items"][0]["item_id"]))
    assert "search_products" in error.value.hint
