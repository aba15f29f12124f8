"""The writes: equal to the reference's, refused where they must be, applied once whatever is killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from shop_server import Faulty
from starlette.responses import JSONResponse
from tool_bench import Bench, Pins

from demo.check import differences
from demo.tau import Action, Reference, load_data, load_tasks
from servers.errors import ToolDenied, ToolError, ToolInputError, UpstreamError
from servers.woocommerce.client import store_of
from servers.woocommerce.shapes import meta_of

State = Callable[[], dict[str, Any]]
DoneOnce = Callable[[str], Awaitable[tuple[Action, list[dict[str, Any]]]]]

TOOLS = {
    "cancel_pending_order": "cancel_order",
    "modify_pending_order_address": "change_order_address",
    "modify_pending_order_items": "change_order_items",
    "modify_pending_order_payment": "change_order_payment",
    "return_delivered_order_items": "return_items",
    "exchange_delivered_order_items": "exchange_items",
    "modify_user_address": "change_customer_address",
}
NAMES = {"address1": "address_1", "address2": "address_2", "zip": "postcode", "user_id": "customer_id"}
CUSTOMERS = {user: number for number, user in enumerate(load_data()["users"], start=2)}


async def apply(bench: Bench, action: Action) -> Any:
    """A reference's action by our tool."""
    args = {NAMES.get(name, name): value for name, value in action.arguments.items()}
    if "customer_id" in args:
        args["customer_id"] = CUSTOMERS[args["customer_id"]]
    return await bench.call(f"woocommerce.{TOOLS[action.name]}", **args)


def order_where(matches: Callable[[Mapping[str, Any], Mapping[str, Any]], bool]) -> tuple[Any, Any]:
    """The first order of the data, with its customer, of which both hold."""
    users = load_data()["users"]
    for order in load_data()["orders"].values():
        if matches(order, users[order["user_id"]]):
            return order, users[order["user_id"]]
    raise AssertionError("the data has no such order")


def gift_card(user: Mapping[str, Any], at_least: float = 0) -> str:
    cards = (m for m in user["payment_methods"].values() if m["source"] == "gift_card")
    return next((c["id"] for c in cards if c["balance"] >= at_least), "")


def other_variant(item: Mapping[str, Any], dearer: bool = True) -> str:
    """Another variant of the item's product, in stock, that costs more (or less)."""
    variants = load_data()["products"][item["product_id"]]["variants"].values()
    fitting = (v for v in variants if v["available"] and (v["price"] > item["price"]) == dearer)
    return next((v["item_id"] for v in fitting if v["item_id"] != item["item_id"]), "")


def one_of_each() -> dict[str, Action]:
    """One action per operation, of those with most upstream requests: a gift card's balance changes where it can."""
    paid_by_card, _ = order_where(
        lambda o, u: o["status"] == "pending" and "gift_card" in o["payment_history"][0]["payment_method_id"]
    )
    items, items_user = order_where(
        lambda o, u: (
            o["status"] == "pending" and bool(gift_card(u)) and bool(other_variant(o["items"][0], dearer=False))
        )
    )
    payment, payment_user = order_where(
        lambda o, u: (
            o["status"] == "pending"
            and "gift_card" not in o["payment_history"][0]["payment_method_id"]
            and bool(gift_card(u, o["payment_history"][0]["amount"]))
        )
    )
    done, done_user = order_where(
        lambda o, u: o["status"] == "delivered" and bool(gift_card(u, 50)) and bool(other_variant(o["items"][0], False))
    )
    address = {
        "address1": "1 New Street", "address2": "", "city": "Austin", "state": "TX", "country": "USA", "zip": "78701",
    }  # fmt: skip
    item = items["items"][0]
    return {
        action.name: action
        for action in (
            Action("cancel_pending_order", {"order_id": paid_by_card["order_id"], "reason": "no longer needed"}),
            Action("modify_pending_order_address", {"order_id": paid_by_card["order_id"], **address}),
            Action(
                "modify_pending_order_items",
                {
                    "order_id": items["order_id"],
                    "item_ids": [item["item_id"]],
                    "new_item_ids": [other_variant(item, dearer=False)],
                    "payment_method_id": gift_card(items_user),
                },
            ),
            Action(
                "modify_pending_order_payment",
                {
                    "order_id": payment["order_id"],
                    "payment_method_id": gift_card(payment_user, payment["payment_history"][0]["amount"]),
                },
            ),
            Action(
                "return_delivered_order_items",
                {
                    "order_id": done["order_id"],
                    "item_ids": [done["items"][0]["item_id"]],
                    "payment_method_id": gift_card(done_user),
                },
            ),
            Action(
                "exchange_delivered_order_items",
                {
                    "order_id": done["order_id"],
                    "item_ids": [done["items"][0]["item_id"]],
                    "new_item_ids": [other_variant(done["items"][0], dearer=False)],
                    "payment_method_id": gift_card(done_user, 50),
                },
            ),
            Action("modify_user_address", {"user_id": done["user_id"], **address}),
        )
    }


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


def agrees_with_reference(action: Action, seen: Counter[str]) -> bool:
    """False where the reference has a known fault: several items get the last one's price and options; a
    cancellation after a change of payment refunds the refund too."""
    if action.name == "modify_pending_order_items":
        return len(action.arguments["item_ids"]) == 1
    if action.name in ("cancel_pending_order", "modify_pending_order_payment"):
        seen[action.arguments["order_id"]] += 1
        return seen[action.arguments["order_id"]] == 1
    return True


async def test_the_tasks_writes_end_in_the_references_state(
    bench: Bench, shop_state: State, reference: Reference
) -> None:
    seen: Counter[str] = Counter()
    actions = [a for task in load_tasks() for a in task.actions if a.name in TOOLS and agrees_with_reference(a, seen)]
    outcome = reference.run(actions)
    refused: dict[int, str] = {}
    for position, action in enumerate(actions):
        try:
            await apply(bench.with_(idempotency_key=f"key-{position}"), action)
        except ToolError as error:
            refused[position] = str(error)
    assert len(actions) > 100
    assert refused.keys() == outcome.refused.keys()
    assert differences(outcome.state, shop_state()) == []


async def test_several_items_each_get_their_own_price_and_options(bench: Bench) -> None:
    order, user = order_where(
        lambda o, u: (
            o["status"] == "pending"
            and len({i["product_id"] for i in o["items"]}) == len(o["items"]) > 1
            and all(other_variant(i) for i in o["items"][:2])
        )
    )
    old = order["items"][:2]
    new = [other_variant(item) for item in old]
    before = await bench.call("woocommerce.lookup_order", order_id=order["order_id"])
    changed = await bench.call(
        "woocommerce.change_order_items",
        order_id=order["order_id"],
        item_ids=[i["item_id"] for i in old],
        new_item_ids=new,
        payment_method_id=next(m for m in user["payment_methods"] if "gift" not in m),
    )
    for item, line in zip(new, changed["line_items"], strict=False):
        variant = load_data()["products"][str(line["product_id"])]["variants"][item]
        assert (line["item_id"], line["price"], line["options"]) == (
            int(item),
            f"{variant['price']:.2f}",
            variant["options"],
        )
    assert changed["line_items"][2:] == before["line_items"][2:]
    assert changed["items_modified"] is True


async def test_a_cancellation_refunds_each_method_what_is_still_paid(bench: Bench) -> None:
    change = one_of_each()["modify_pending_order_payment"]
    changed = await apply(bench, change)
    cancelled = await bench.with_(idempotency_key="key-2").call(
        "woocommerce.cancel_order", order_id=change.arguments["order_id"], reason="no longer needed"
    )
    paid = changed["payments"][0]["amount"]
    assert cancelled["payments"][3:] == [
        {
            "transaction_type": "refund",
            "amount": paid,
            "payment_method_id": change.arguments["payment_method_id"],
        }
    ]


#: Upstream requests that each operation of `one_of_each` makes.
REQUESTS = {
    "cancel_pending_order": 5,
    "modify_pending_order_address": 2,
    "modify_pending_order_items": 6,
    "modify_pending_order_payment": 5,
    "return_delivered_order_items": 3,
    "exchange_delivered_order_items": 4,
    "modify_user_address": 2,
}


async def touched(bench: Bench, action: Action) -> list[dict[str, Any]]:
    """The order and the customer of an action as the shop has them, less what differs from run to run."""
    store = store_of(bench.context)
    if "user_id" in action.arguments:
        raws = [await store.object(f"customers/{CUSTOMERS[action.arguments['user_id']]}")]
    else:
        order = await store.object(f"orders/{action.arguments['order_id'].lstrip('#W')}")
        raws = [order, await store.object(f"customers/{order['customer_id']}")]
    return [
        {k: v for k, v in raw.items() if not k.startswith("date_modified") and k != "meta_data"} | meta_of(raw)
        for raw in raws
    ]


@pytest.fixture
async def done_once(bench: Bench, shop: Faulty) -> Callable[[str], Awaitable[tuple[Action, list[dict[str, Any]]]]]:
    """Runs an operation undisturbed and puts the shop back: the action, and what it made of order and customer."""

    async def run(operation: str) -> tuple[Action, list[dict[str, Any]]]:
        action = one_of_each()[operation]
        await apply(bench, action)
        assert len(shop.requests) == REQUESTS[operation]
        after = await touched(bench, action)
        await reset(bench)
        return action, after

    return run


@pytest.mark.parametrize("operation", TOOLS)
async def test_each_operation_ends_in_the_references_state(
    operation: str, bench: Bench, shop_state: State, reference: Reference
) -> None:
    action = one_of_each()[operation]
    outcome = reference.run([action])
    assert outcome.refused == {}
    await apply(bench, action)
    assert differences(outcome.state, shop_state()) == []


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize(("operation", "at"), [(name, n + 1) for name in TOOLS for n in range(REQUESTS[name])])
async def test_a_write_that_was_killed_at_any_request_is_applied_once(
    operation: str, at: int, fault: str, bench: Bench, shop: Faulty, done_once: DoneOnce
) -> None:
    action, expected = await done_once(operation)
    shop.arm(fault, at)
    running = asyncio.create_task(apply(bench, action))
    assert await asyncio.to_thread(shop.reached.wait, 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    shop.arm()
    result = await apply(bench.with_(resuming=True), action)
    assert await touched(bench, action) == expected
    assert await apply(bench.with_(resuming=True), action) == result
    assert await touched(bench, action) == expected


@pytest.mark.parametrize("fault", ["lost", "refused"])
@pytest.mark.parametrize("operation", TOOLS)
async def test_a_write_without_an_answer_is_looked_up_and_applied_once(
    operation: str, fault: str, bench: Bench, shop: Faulty, done_once: DoneOnce
) -> None:
    action, expected = await done_once(operation)
    await apply(bench, action)
    puts = [n for n, request in enumerate(shop.requests[: REQUESTS[operation]], 1) if request.startswith("PUT")]
    for at in puts:
        await reset(bench)
        shop.arm(fault, at)
        await apply(bench, action)
        assert shop.reached.is_set()
        shop.arm()
        assert await touched(bench, action) == expected


async def reset(bench: Bench) -> None:
    shop = bench.context.shop
    assert shop is not None
    answer = await bench.context.http.post(f"{shop.url}/_double/reset", headers={"authorization": "Bearer controls"})
    answer.raise_for_status()


async def test_a_write_that_stays_unanswered_says_that_its_outcome_is_unknown(bench: Bench, shop: Faulty) -> None:
    shop.arm("lost", at=2, times=100)
    with pytest.raises(UpstreamError) as failure:
        await apply(bench, one_of_each()["modify_pending_order_address"])
    assert failure.value.data["outcome"] == "unknown"
    assert failure.value.retryable


async def test_a_refusal_after_the_order_was_changed_is_no_refusal_of_the_whole(
    bench: Bench, shop: Faulty, done_once: DoneOnce
) -> None:
    action, expected = await done_once("cancel_pending_order")
    shop.arm(lambda _: JSONResponse({"code": "x", "message": "key revoked", "data": None}, 401), at=5)
    with pytest.raises(UpstreamError, match=r"was changed, but not yet the gift card: .*key revoked") as failure:
        await apply(bench, action)
    assert failure.value.data["outcome"] == "unknown"
    await apply(bench, action)
    assert await touched(bench, action) == expected


async def test_two_cancellations_at_once_both_reach_the_gift_card(
    bench: Bench, shop_state: State, reference: Reference
) -> None:
    by_user: dict[str, list[str]] = {}
    for order in load_data()["orders"].values():
        paid_with = order["payment_history"][0]["payment_method_id"]
        if order["status"] == "pending" and "gift_card" in paid_with:
            by_user.setdefault(order["user_id"], []).append(order["order_id"])
    two = next(orders for orders in by_user.values() if len(orders) > 1)[:2]
    actions = [Action("cancel_pending_order", {"order_id": o, "reason": "ordered by mistake"}) for o in two]
    await asyncio.gather(*(apply(bench.with_(idempotency_key=f"key-{n}"), a) for n, a in enumerate(actions)))
    assert differences(reference.run(actions).state, shop_state()) == []


async def test_the_dispatcher_applies_the_operation_it_names(bench: Bench, done_once: DoneOnce) -> None:
    action, expected = await done_once("cancel_pending_order")
    await bench.call("woocommerce.woocommerce_operations", operation="cancel_order", arguments=dict(action.arguments))
    assert await touched(bench, action) == expected


def refusals() -> dict[str, tuple[str, dict[str, Any], type[ToolError], str]]:
    """What must be refused: tool, arguments, error, part of the message."""
    delivered, user = order_where(lambda o, u: o["status"] == "delivered" and len(u["payment_methods"]) > 1)
    pending, pending_user = order_where(lambda o, u: o["status"] == "pending" and len(u["payment_methods"]) > 1)
    poor, poor_user = order_where(
        lambda o, u: (
            o["status"] == "pending"
            and "gift_card" not in o["payment_history"][0]["payment_method_id"]
            and bool(gift_card(u))
            and not gift_card(u, o["payment_history"][0]["amount"])
        )
    )
    paid_with = delivered["payment_history"][0]["payment_method_id"]
    methods = list(user["payment_methods"])
    unfit = next((m for m in methods if m != paid_with and "gift" not in m), None)
    item = pending["items"][0]
    stranger = next(p for p in load_data()["products"].values() if p["product_id"] != item["product_id"])
    method = next(iter(pending_user["payment_methods"]))
    swap = {"order_id": pending["order_id"], "item_ids": [item["item_id"]], "payment_method_id": method}
    sold_out_order, sold_out = sold_out_swap()
    cases = {
        "cancel-delivered": (
            "cancel_order",
            {"order_id": delivered["order_id"], "reason": "no longer needed"},
            ToolDenied,
            "its status is 'completed', only 'pending' allows it",
        ),
        "return-pending": (
            "return_items",
            {"order_id": pending["order_id"], "item_ids": [item["item_id"]], "payment_method_id": method},
            ToolDenied,
            "only 'completed' allows it",
        ),
        "item-not-in-order": (
            "return_items",
            {"order_id": delivered["order_id"], "item_ids": [1], "payment_method_id": paid_with},
            ToolInputError,
            "Item 1 is not in order",
        ),
        "item-too-often": (
            "return_items",
            {
                "order_id": delivered["order_id"],
                "item_ids": [delivered["items"][0]["item_id"]] * 9,
                "payment_method_id": paid_with,
            },
            ToolInputError,
            "only 1 times in order",
        ),
        "lists-differ": ("change_order_items", swap | {"new_item_ids": []}, ToolInputError, "one new item for each"),
        "same-item": (
            "change_order_items",
            swap | {"new_item_ids": [item["item_id"]]},
            ToolInputError,
            "same as the old one",
        ),
        "other-product": (
            "change_order_items",
            swap | {"new_item_ids": [next(iter(stranger["variants"]))]},
            ToolInputError,
            "is no variant of product",
        ),
        "sold-out": (
            "change_order_items",
            sold_out_order | {"new_item_ids": [sold_out]},
            ToolInputError,
            "out of stock",
        ),
        "unknown-method": (
            "change_order_payment",
            {"order_id": pending["order_id"], "payment_method_id": "gift_card_0"},
            ToolInputError,
            f"Theirs: {method}",
        ),
        "same-method": (
            "change_order_payment",
            {
                "order_id": pending["order_id"],
                "payment_method_id": pending["payment_history"][0]["payment_method_id"],
            },
            ToolInputError,
            "already: choose another",
        ),
        "poor-gift-card": (
            "change_order_payment",
            {"order_id": poor["order_id"], "payment_method_id": gift_card(poor_user)},
            ToolInputError,
            "does not cover",
        ),
    }
    if unfit:
        cases["refund-elsewhere"] = (
            "return_items",
            {
                "order_id": delivered["order_id"],
                "item_ids": [delivered["items"][0]["item_id"]],
                "payment_method_id": unfit,
            },
            ToolInputError,
            "or to a gift card",
        )
    return cases


def sold_out_swap() -> tuple[dict[str, Any], str]:
    for order in load_data()["orders"].values():
        if order["status"] != "pending":
            continue
        for item in order["items"]:
            variants = load_data()["products"][item["product_id"]]["variants"].values()
            missing = [v["item_id"] for v in variants if not v["available"] and v["item_id"] != item["item_id"]]
            if missing:
                method = order["payment_history"][0]["payment_method_id"]
                wanted = {"item_ids": [item["item_id"]], "payment_method_id": method}
                return {"order_id": order["order_id"], **wanted}, missing[0]
    raise AssertionError("nothing is sold out")


REFUSALS = refusals()


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_refusal_says_why_and_changes_nothing(case: str, bench: Bench, shop: Faulty) -> None:
    tool, args, error, message = REFUSALS[case]
    with pytest.raises(error) as refusal:
        await bench.call(f"woocommerce.{tool}", **args)
    assert message in str(refusal.value)
    assert refusal.value.tool == f"woocommerce.{tool}"
    assert [request for request in shop.requests if request.startswith("PUT")] == []


async def test_changed_items_are_final(bench: Bench) -> None:
    action = one_of_each()["modify_pending_order_items"]
    await apply(bench, action)
    again = bench.with_(idempotency_key="key-2")
    for tool, args in (
        ("change_order_items", action.arguments),
        ("cancel_order", {"order_id": action.arguments["order_id"], "reason": "no longer needed"}),
    ):
        with pytest.raises(ToolDenied, match="changed already"):
            await again.call(f"woocommerce.{tool}", **args)


async def test_a_write_to_somebody_elses_order_is_denied_and_changes_nothing(bench: Bench, shop: Faulty) -> None:
    stranger = bench.with_(pins=Pins(customer=2, customer_required=True))
    action = one_of_each()["cancel_pending_order"]
    with pytest.raises(ToolDenied):
        await apply(stranger, action)
    with pytest.raises(ToolDenied):
        await apply(stranger, one_of_each()["modify_user_address"])
    assert not any(request.startswith("PUT") for request in shop.requests)
