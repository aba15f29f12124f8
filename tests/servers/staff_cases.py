"""Calls of the staff's tools: for each tool one that works, what has to be there before it, and one that is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tool_bench import Bench

from demo.tau import load_data
from servers.errors import ToolError, ToolInputError, ToolNotFound

PRODUCT = 9523456873
VARIATION = int(next(iter(load_data()["products"][str(PRODUCT)]["variants"])))
ORDER = 2378156
CUSTOMER = 2
SECRET = "0123456789abcdef0123456789abcdef"

Args = dict[str, Any]
Before = Callable[[Bench], Awaitable[Args]]


async def nothing(bench: Bench) -> Args:
    return {}


def made(tool: str, name: str, /, **args: Any) -> Before:
    """Something is made before by another call; the argument `name` is its id."""

    async def before(bench: Bench) -> Args:
        other = bench.with_(idempotency_key="before")
        return {name: (await other.call(f"woocommerce.{tool}", **args))["id"]}

    return before


async def trashed(bench: Bench) -> Args:
    product = await MUG(bench)
    await bench.with_(idempotency_key="trash").call("woocommerce.trash_product", **product)
    return product


async def counted(bench: Bench) -> Args:
    product = await MUG(bench)
    await bench.with_(idempotency_key="count").call("woocommerce.set_stock", **product, quantity=7)
    return product


MUG = made("create_product", "product_id", name="Mug", sku="mug-1", regular_price="9.99", stock_quantity=7)
BARE = made("create_product", "product_id", name="Bare", sku="bare-1")
COUPON = made("create_coupon", "coupon_id", code="OLD", discount_type="percent", amount="5", usage_limit=1)
CATEGORY = made("create_category", "category_id", name="Old things")
NOTE = made("add_order_note", "note_id", order_id=ORDER, note="to be deleted")
REFUND = made("refund_order", "refund_id", order_id=ORDER, amount="1.00")
WEBHOOK = made("create_webhook", "webhook_id", topic="order.updated", delivery_url="https://hooks.example.com/a")
NEW_CUSTOMER = made("create_customer", "customer_id", email="old@example.com")
CONTACT = {
    "first_name": "Ann",
    "last_name": "Lee",
    "company": "",
    "address_1": "1 St",
    "address_2": "",
    "city": "Leeds",
    "state": "",
    "postcode": "LS1 1AA",
    "country": "GB",
    "email": "ann@example.com",
    "phone": "01130000000",
}
LINES = [{"product_id": PRODUCT, "item_id": VARIATION, "quantity": 2}]


@dataclass(frozen=True)
class Good:
    """A call that works: `shows` is part of its result (of the first of a list)."""

    args: Args
    shows: Args = field(default_factory=dict)
    before: Before = nothing


@dataclass(frozen=True)
class Bad:
    """A call that is refused."""

    args: Args
    error: type[ToolError]
    told: str
    before: Before = nothing


async def arguments(bench: Bench, tool: str, case: Good | Bad) -> Args:
    """The call's arguments, once what it needs is there."""
    known = {parameter.name for parameter in bench.registry.get(f"woocommerce.{tool}").parameters}
    there = await case.before(bench)
    return {name: value for name, value in there.items() if name in known} | case.args


READS: dict[str, Good] = {
    "list_products": Good({"search": "mug", "status": "draft"}, {"sku": "mug-1", "stock_quantity": 7}, MUG),
    "count_products": Good({"status": "publish"}),
    "get_product": Good({"product_id": PRODUCT}, {"id": PRODUCT, "type": "variable"}),
    "list_variations": Good({"product_id": PRODUCT, "limit": 3}, {"product_id": PRODUCT}),
    "get_variation": Good({"product_id": PRODUCT, "variation_id": VARIATION}, {"id": VARIATION}),
    "list_categories": Good({"search": "Shoes"}, {"name": "Shoes", "parent": 0}),
    "find_orders": Good({"status": "pending,processing", "limit": 5}, {"currency": "USD", "refunded": "0.00"}),
    "count_orders": Good({"status": "cancelled"}),
    "get_order": Good({"order_id": "#W2378156"}, {"id": ORDER, "status": "completed"}),
    "list_order_notes": Good({"order_id": ORDER}, {"note": "to be deleted", "for_customer": False}, NOTE),
    "list_refunds": Good({"order_id": ORDER}, {"amount": "1.00", "paid_back": False}, REFUND),
    "find_customers": Good({"search": "Rossi", "limit": 5}, {"last_name": "Rossi"}),
    "get_account": Good({"customer_id": CUSTOMER}, {"id": CUSTOMER}),
    "list_coupons": Good({"code": "old"}, {"code": "old", "amount": "5.00", "usage_limit": 1}, COUPON),
    "get_coupon": Good({}, {"code": "old"}, COUPON),
    "list_stock": Good({"stock_status": "instock", "limit": 5}, {"variation_id": 0, "stock_status": "instock"}),
    "get_stock": Good({"product_id": PRODUCT}, {"product_id": PRODUCT, "variation_id": 0}),
    "list_webhooks": Good({}, {"topic": "order.updated", "status": "active"}, WEBHOOK),
    "sales_report": Good({"date_min": "2026-01-05", "date_max": "2026-01-06"}, {"grouped_by": "day"}),
    "top_sellers": Good({"date_min": "2026-01-01", "date_max": "2026-12-31"}),
    "totals": Good({"of": "orders"}, {"slug": "auto-draft", "total": 0}),
    "store_info": Good({}, {"woocommerce": "11.0.1", "currency": "USD", "currency_symbol": "$"}),
}

WRITES: dict[str, Good] = {
    "create_product": Good(
        {"name": "Rig Mug", "sku": "rig-mug-1", "regular_price": "9.99", "stock_quantity": 7},
        {"status": "draft", "sku": "rig-mug-1", "price": "9.99", "stock_quantity": 7},
    ),
    "update_product": Good(
        {"sale_price": "7.50", "status": "publish"}, {"price": "7.50", "regular_price": "9.99"}, MUG
    ),
    "trash_product": Good({}, {"name": "Mug", "permanently": False}, MUG),
    "restore_product": Good({"status": "publish"}, {"status": "publish", "name": "Mug"}, trashed),
    "delete_product": Good({}, {"name": "Mug", "permanently": True}, MUG),
    "create_variation": Good(
        {"product_id": PRODUCT, "options": {"color": "pink", "size": "S"}, "regular_price": "50.00", "sku": "pink-s"},
        {"sku": "pink-s", "price": "50.00", "options": {"color": "pink", "size": "S"}},
    ),
    "update_variation": Good(
        {"product_id": PRODUCT, "variation_id": VARIATION, "regular_price": "44.00"}, {"regular_price": "44.00"}
    ),
    "delete_variation": Good({"product_id": PRODUCT, "variation_id": VARIATION}, {"permanently": True}),
    "create_category": Good({"name": "New things"}, {"name": "New things", "slug": "new-things"}),
    "update_category": Good({"name": "Old & dear"}, {"name": "Old & dear"}, CATEGORY),
    "delete_category": Good({}, {"name": "Old things", "permanently": True}, CATEGORY),
    "create_order": Good(
        {"lines": LINES, "customer_id": CUSTOMER, "billing": CONTACT, "shipping": CONTACT, "shipping_cost": "4.00"},
        {"status": "pending", "items": 2, "shipping_total": "4.00", "email": "ann@example.com"},
    ),
    "set_order_status": Good({"order_id": ORDER, "status": "on-hold"}, {"status": "on-hold"}),
    "update_order": Good({"order_id": ORDER, "customer_note": "Ring twice"}, {"customer_note": "Ring twice"}),
    "trash_order": Good({"order_id": ORDER}, {"name": "W2378156", "permanently": False}),
    "delete_order": Good({"order_id": ORDER}, {"name": "W2378156", "permanently": True}),
    "add_order_note": Good({"order_id": ORDER, "note": "Called <them> & more"}, {"for_customer": False}),
    "send_order_note": Good({"order_id": ORDER, "note": "It is on its way."}, {"for_customer": True}),
    "delete_order_note": Good({"order_id": ORDER}, {"name": "to be deleted"}, NOTE),
    "refund_order": Good({"order_id": ORDER, "amount": "5.00", "reason": "damaged"}, {"amount": "5.00"}),
    "delete_refund": Good({"order_id": ORDER}, {"name": "1.00"}, REFUND),
    "create_customer": Good(
        {"email": "new@example.com", "first_name": "New", "billing": CONTACT}, {"email": "new@example.com"}
    ),
    "update_customer": Good({"customer_id": CUSTOMER, "first_name": "Anne"}, {"first_name": "Anne"}),
    "delete_customer": Good({}, {"name": "old@example.com"}, NEW_CUSTOMER),
    "create_coupon": Good(
        {"code": "10OFF", "discount_type": "percent", "amount": "10", "usage_limit": 100, "date_expires": "2030-01-01"},
        {"code": "10off", "amount": "10.00", "usage_limit": 100, "date_expires": "2030-01-01T00:00:00"},
    ),
    "update_coupon": Good({"amount": "6"}, {"amount": "6.00"}, COUPON),
    "trash_coupon": Good({}, {"name": "old"}, COUPON),
    "set_stock": Good({"quantity": 3}, {"stock_quantity": 3}, MUG),
    "adjust_stock": Good({"by": -2}, {"stock_quantity": 5}, counted),
    "create_webhook": Good(
        {"topic": "product.updated", "delivery_url": "https://hooks.example.com/b"},
        {"topic": "product.updated", "status": "active", "name": "product.updated"},
    ),
    "update_webhook": Good({"status": "paused"}, {"status": "paused"}, WEBHOOK),
    "delete_webhook": Good({}, {"permanently": True}, WEBHOOK),
    "batch_products": Good(
        {
            "create": [
                {"name": "A", "sku": "b-a", "regular_price": "1.00", "status": "publish"},
                {"name": "B", "sku": "b-b", "regular_price": "", "status": "draft"},
            ],
            "update": [{"id": PRODUCT, "name": "T-Shirt 2"}, {"id": 999999, "name": "nope"}],
        },
        {"updated": [PRODUCT]},
    ),
    "batch_variations": Good(
        {"product_id": PRODUCT, "update": [{"id": VARIATION, "stock_quantity": 4}]}, {"updated": [VARIATION]}
    ),
    "batch_order_status": Good({"update": [{"id": ORDER, "status": "on-hold"}]}, {"updated": [ORDER], "failed": []}),
}

NOWHERE = 999_999

BAD: dict[str, Bad] = {
    "list_products": Bad({"modified_after": "not-a-date"}, ToolInputError, "no time in ISO 8601"),
    "count_products": Bad({"status": "gone"}, ToolInputError, "status is 'gone'"),
    "get_product": Bad({"product_id": NOWHERE}, ToolNotFound, "Invalid ID."),
    "list_variations": Bad({"product_id": NOWHERE}, ToolNotFound, "Invalid ID."),
    "get_variation": Bad({"product_id": PRODUCT, "variation_id": NOWHERE}, ToolNotFound, "Invalid ID."),
    "list_categories": Bad({"limit": 0}, ToolInputError, "limit is 0"),
    "find_orders": Bad({"status": "teleported"}, ToolInputError, "status[0] is not one of"),
    "count_orders": Bad({"after": "yesterday"}, ToolInputError, "no time in ISO 8601"),
    "get_order": Bad({"order_id": NOWHERE}, ToolNotFound, "There is no order 999999"),
    "list_order_notes": Bad({"order_id": NOWHERE}, ToolNotFound, "There is no order"),
    "list_refunds": Bad({"order_id": "../products"}, ToolInputError, "is no order number"),
    "find_customers": Bad({"orderby": "age"}, ToolInputError, "orderby is 'age'"),
    "get_account": Bad({"customer_id": NOWHERE}, ToolNotFound, "Invalid resource ID."),
    "list_coupons": Bad({"limit": 1001}, ToolInputError, "limit is 1001"),
    "get_coupon": Bad({"coupon_id": NOWHERE}, ToolNotFound, "Invalid ID."),
    "list_stock": Bad({"at_most": -1}, ToolInputError, "at_most is -1"),
    "get_stock": Bad({"product_id": NOWHERE}, ToolNotFound, "Invalid ID."),
    "list_webhooks": Bad({"status": "dead"}, ToolInputError, "status is 'dead'"),
    "sales_report": Bad({}, ToolInputError, "either period, or date_min"),
    "top_sellers": Bad({"period": "week", "date_max": "2026-01-01"}, ToolInputError, "date_max goes with date_min"),
    "totals": Bad({"of": "moons"}, ToolInputError, "of is 'moons'"),
    "store_info": Bad({"verbose": True}, ToolInputError, "unknown argument 'verbose'"),
    "create_product": Bad({"name": "Mug 2", "sku": "mug-1"}, ToolInputError, "Invalid or duplicated SKU.", MUG),
    "update_product": Bad({"product_id": PRODUCT}, ToolInputError, "Nothing to change"),
    "trash_product": Bad({}, ToolInputError, "is in the trash already", trashed),
    "restore_product": Bad({}, ToolInputError, "is not in the trash", MUG),
    "delete_product": Bad({"product_id": NOWHERE}, ToolNotFound, "There is no product 999999"),
    "create_variation": Bad(
        {"options": {"color": "red"}, "regular_price": "5"}, ToolInputError, "only variable products", MUG
    ),
    "update_variation": Bad(
        {"product_id": PRODUCT, "variation_id": VARIATION, "regular_price": "9,99"}, ToolInputError, "regular_price is"
    ),
    "delete_variation": Bad({"product_id": PRODUCT, "variation_id": NOWHERE}, ToolNotFound, "no variation 999999"),
    "create_category": Bad({"name": "shoes"}, ToolInputError, "There is a category 'shoes' below 0 already"),
    "update_category": Bad({"category_id": NOWHERE, "name": "x"}, ToolNotFound, "Invalid ID."),
    "delete_category": Bad({"category_id": NOWHERE}, ToolNotFound, "There is no category 999999"),
    "create_order": Bad(
        {"lines": [{"product_id": NOWHERE, "item_id": NOWHERE, "quantity": 1}]}, ToolInputError, "Product ID or SKU"
    ),
    "set_order_status": Bad({"order_id": ORDER, "status": "teleported"}, ToolInputError, "status is 'teleported'"),
    "update_order": Bad({"order_id": ORDER}, ToolInputError, "Nothing to change"),
    "trash_order": Bad({"order_id": NOWHERE}, ToolNotFound, "There is no order"),
    "delete_order": Bad({"order_id": NOWHERE}, ToolNotFound, "There is no order 999999"),
    "add_order_note": Bad(
        {"order_id": ORDER, "note": "to be  deleted"}, ToolInputError, "the same note on order W2378156 already", NOTE
    ),
    "send_order_note": Bad({"order_id": ORDER, "note": ""}, ToolInputError, "note is ''"),
    "delete_order_note": Bad({"order_id": ORDER, "note_id": NOWHERE}, ToolNotFound, "There is no note 999999"),
    "refund_order": Bad({"order_id": ORDER, "amount": "5000.00"}, ToolInputError, "left to be refunded, not 5000.00"),
    "delete_refund": Bad({"order_id": ORDER, "refund_id": NOWHERE}, ToolNotFound, "There is no refund 999999"),
    "create_customer": Bad({"email": "old@example.com"}, ToolInputError, "already registered", NEW_CUSTOMER),
    "update_customer": Bad({"customer_id": CUSTOMER, "email": "no address"}, ToolInputError, "email is 'no address'"),
    "delete_customer": Bad({"customer_id": NOWHERE}, ToolNotFound, "There is no customer 999999"),
    "create_coupon": Bad(
        {"code": "old", "discount_type": "percent", "amount": "1", "usage_limit": 1},
        ToolInputError,
        "already exists",
        COUPON,
    ),
    "update_coupon": Bad({"amount": "101"}, ToolInputError, "takes off 100 at most", COUPON),
    "trash_coupon": Bad({"coupon_id": NOWHERE}, ToolNotFound, "There is no coupon 999999"),
    "set_stock": Bad({"product_id": PRODUCT, "quantity": -1}, ToolInputError, "quantity is -1"),
    "adjust_stock": Bad({"by": -8}, ToolInputError, "There are 7 pieces of 'Mug', too few", counted),
    "create_webhook": Bad(
        {"topic": "order.updated", "delivery_url": "https://hooks.example.com/a"},
        ToolInputError,
        "There is a webhook of order.updated to that URL already",
        WEBHOOK,
    ),
    "update_webhook": Bad({"webhook_id": NOWHERE, "status": "paused"}, ToolInputError, "Invalid ID."),
    "delete_webhook": Bad({"webhook_id": NOWHERE}, ToolNotFound, "There is no webhook 999999"),
    "batch_products": Bad({}, ToolInputError, "The batch is empty"),
    "batch_variations": Bad({"product_id": PRODUCT, "update": [{"id": 1}]}, ToolInputError, "update[0] needs an id"),
    "batch_order_status": Bad(
        {"update": [{"id": ORDER, "status": "on-hold"}] * 2}, ToolInputError, "An id is given twice"
    ),
}

#: Beside those of the table.
MORE_BAD: dict[str, tuple[str, Bad]] = {
    "bare stock": ("adjust_stock", Bad({"by": 1}, ToolInputError, "does not count 'Bare'", BARE)),
    "percent": (
        "create_coupon",
        Bad(
            {"code": "x", "discount_type": "percent", "amount": "101", "usage_limit": 1}, ToolInputError, "100 at most"
        ),
    ),
    "unknown coupon": (
        "create_order",
        Bad({"lines": LINES, "coupon_codes": ["nope"]}, ToolInputError, 'Coupon "nope" does not exist!'),
    ),
    "zero refund": ("refund_order", Bad({"order_id": ORDER, "amount": "0"}, ToolInputError, "not 0.00")),
    "open line": (
        "create_webhook",
        Bad({"topic": "order.created", "delivery_url": "http://evil.example.com/x"}, ToolInputError, "delivery_url is"),
    ),
    "split sku": ("create_product", Bad({"name": "x", "sku": "a,b"}, ToolInputError, "sku is 'a,b'")),
    "stripped sku": ("create_product", Bad({"name": "x", "sku": " a"}, ToolInputError, "sku is ' a'")),
    "stripped code": (
        "create_coupon",
        Bad(
            {"code": "<b>", "discount_type": "percent", "amount": "1", "usage_limit": 1},
            ToolInputError,
            "code is '<b>'",
        ),
    ),
    "two skus": (
        "batch_products",
        Bad(
            {"create": [{"name": "A", "sku": "a", "regular_price": "1", "status": "draft"}] * 2},
            ToolInputError,
            "A SKU is given twice",
        ),
    ),
    "other parent": (
        "get_variation",
        Bad({"product_id": PRODUCT + 1, "variation_id": VARIATION}, ToolNotFound, "Invalid ID."),
    ),
}
