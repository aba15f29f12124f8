"""What the tools return: the part of WooCommerce's objects that a conversation needs, and how it is read from them.

Money is a string as the store sends it. A key that is `NotRequired` is absent when the store has no such value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

#: One object of wc/v3, as JSON has it.
Raw = Mapping[str, Any]


def _is(text: str) -> Meta:
    return Meta(description=text)


class Address(TypedDict):
    address_1: str
    address_2: str
    city: str
    state: str
    postcode: str
    country: str


class PaymentMethod(TypedDict):
    id: Annotated[str, _is("such as 'gift_card_1725971'")]
    source: Annotated[str, _is("gift_card, credit_card or paypal")]
    brand: NotRequired[str]
    last_four: NotRequired[str]
    balance: NotRequired[Annotated[str, _is("gift cards only, such as '46.00'")]]


class Payment(TypedDict):
    transaction_type: Annotated[str, _is("payment or refund")]
    amount: str
    payment_method_id: str


class LineItem(TypedDict):
    id: Annotated[int, _is("the line; tools want item_id")]
    item_id: Annotated[int, _is("the variant that was bought")]
    product_id: int
    name: str
    quantity: int
    price: Annotated[str, _is("of one")]
    options: dict[str, str]


class Shipment(TypedDict):
    tracking_ids: list[str]
    item_ids: list[int]


class Order(TypedDict):
    id: int
    number: str
    status: Annotated[
        str, _is("pending (can still be changed), processing, completed (delivered), cancelled, return-requested, ...")
    ]
    customer_id: int
    currency: str
    total: str
    date_created: str
    shipping: Address
    line_items: list[LineItem]
    payments: list[Payment]
    shipments: list[Shipment]
    items_modified: NotRequired[Annotated[bool, _is("true: items were changed once, which ends further changes")]]
    cancel_reason: NotRequired[str]
    return_items: NotRequired[list[int]]
    return_payment_method_id: NotRequired[str]
    exchange_items: NotRequired[list[int]]
    exchange_new_items: NotRequired[list[int]]
    exchange_payment_method_id: NotRequired[str]
    exchange_price_difference: NotRequired[Annotated[str, _is("to pay; negative: to be refunded")]]


class Customer(TypedDict):
    id: int
    username: str
    email: str
    first_name: str
    last_name: str
    address: Address
    payment_methods: list[PaymentMethod]


class Variant(TypedDict):
    item_id: int
    options: dict[str, str]
    price: str
    in_stock: bool


class Product(TypedDict):
    id: int
    name: str
    type: Annotated[str, _is("simple, variable, grouped or external")]
    permalink: str
    categories: list[str]
    price: Annotated[str, _is("lowest, where there are variants")]
    in_stock: bool
    variants: Annotated[list[Variant], _is("empty for a simple product, whose item_id is its id")]


# The order's and customer's own fields that shops keep in meta_data.
PAYMENTS = "_payment_history"
PAYMENT_METHODS = "_payment_methods"
TRACKING = "_tracking"
ITEMS_MODIFIED = "_items_modified"
CANCEL_REASON = "_cancel_reason"
RETURN_ITEMS = "_return_items"
RETURN_METHOD = "_return_payment_method_id"
EXCHANGE_ITEMS = "_exchange_items"
EXCHANGE_NEW_ITEMS = "_exchange_new_items"
EXCHANGE_METHOD = "_exchange_payment_method_id"
EXCHANGE_DIFFERENCE = "_exchange_price_difference"


def meta_of(raw: Raw) -> dict[str, Any]:
    """meta_data by key; of two entries with one key the later counts."""
    return {entry["key"]: entry["value"] for entry in raw.get("meta_data") or ()}


def meta_update(raw: Raw, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """meta_data for a PUT that sets `values`: by id where the object has the key, so that no key comes twice."""
    ids = {entry["key"]: entry["id"] for entry in raw.get("meta_data") or () if entry.get("id")}
    return [{"id": ids[k], "key": k, "value": v} if k in ids else {"key": k, "value": v} for k, v in values.items()]


def money(amount: Decimal) -> str:
    return f"{amount:.2f}"


def unit_price(line: Raw) -> Decimal:
    """What one piece of an order's line cost, after discounts."""
    return (Decimal(str(line["total"])) / max(int(line["quantity"]), 1)).quantize(Decimal("0.01"))


def item_id_of(line: Raw) -> int:
    return int(line.get("variation_id") or line["product_id"])


def order_view(raw: Raw) -> Order:
    meta = meta_of(raw)
    view = Order(
        id=int(raw["id"]),
        number=str(raw["number"]),
        status=str(raw["status"]),
        customer_id=int(raw["customer_id"]),
        currency=str(raw.get("currency", "")),
        total=str(raw["total"]),
        date_created=str(raw.get("date_created") or ""),
        shipping=_address(raw.get("shipping") or {}),
        line_items=[_line_view(line) for line in raw["line_items"]],
        payments=[_payment(p) for p in meta.get(PAYMENTS) or ()],
        shipments=[_shipment(s) for s in meta.get(TRACKING) or ()],
    )
    if meta.get(ITEMS_MODIFIED):
        view["items_modified"] = True
    if meta.get(CANCEL_REASON):
        view["cancel_reason"] = str(meta[CANCEL_REASON])
    if meta.get(RETURN_ITEMS):
        view["return_items"] = _ids(meta[RETURN_ITEMS])
        view["return_payment_method_id"] = str(meta.get(RETURN_METHOD, ""))
    if meta.get(EXCHANGE_ITEMS):
        view["exchange_items"] = _ids(meta[EXCHANGE_ITEMS])
        view["exchange_new_items"] = _ids(meta.get(EXCHANGE_NEW_ITEMS, ()))
        view["exchange_payment_method_id"] = str(meta.get(EXCHANGE_METHOD, ""))
        view["exchange_price_difference"] = str(meta.get(EXCHANGE_DIFFERENCE, ""))
    return view


def customer_view(raw: Raw) -> Customer:
    shipping, billing = raw.get("shipping") or {}, raw.get("billing") or {}
    return Customer(
        id=int(raw["id"]),
        username=str(raw.get("username", "")),
        email=str(raw["email"]),
        first_name=str(raw.get("first_name", "")),
        last_name=str(raw.get("last_name", "")),
        address=_address(shipping if shipping.get("address_1") else billing),
        payment_methods=[_payment_method(m) for m in payment_methods(raw)],
    )


def product_view(raw: Raw, variations: Sequence[Raw]) -> Product:
    return Product(
        id=int(raw["id"]),
        name=str(raw["name"]),
        type=str(raw["type"]),
        permalink=str(raw.get("permalink", "")),
        categories=[str(c["name"]) for c in raw.get("categories") or ()],
        price=str(raw.get("price", "")),
        in_stock=raw.get("stock_status") != "outofstock",
        variants=[variant_view(v) for v in variations],
    )


def variant_view(raw: Raw) -> Variant:
    return Variant(
        item_id=int(raw["id"]),
        options={str(a["name"]): str(a["option"]) for a in raw.get("attributes") or ()},
        price=str(raw["price"]),
        in_stock=raw.get("stock_status") != "outofstock",
    )


def payment_methods(raw_customer: Raw) -> list[dict[str, Any]]:
    """The payment methods that the shop keeps for a customer; a fresh list."""
    return [dict(method) for method in meta_of(raw_customer).get(PAYMENT_METHODS) or ()]


def _address(raw: Raw) -> Address:
    return Address(
        address_1=str(raw.get("address_1", "")),
        address_2=str(raw.get("address_2", "")),
        city=str(raw.get("city", "")),
        state=str(raw.get("state", "")),
        postcode=str(raw.get("postcode", "")),
        country=str(raw.get("country", "")),
    )


def _line_view(raw: Raw) -> LineItem:
    return LineItem(
        id=int(raw["id"]),
        item_id=item_id_of(raw),
        product_id=int(raw["product_id"]),
        name=str(raw["name"]),
        quantity=int(raw["quantity"]),
        price=money(unit_price(raw)),
        options={
            str(m.get("display_key") or m["key"]): str(m.get("display_value") or m["value"])
            for m in raw.get("meta_data") or ()
            if not str(m["key"]).startswith("_")
        },
    )


def _payment(raw: Raw) -> Payment:
    return Payment(
        transaction_type=str(raw["transaction_type"]),
        amount=str(raw["amount"]),
        payment_method_id=str(raw["payment_method_id"]),
    )


def _payment_method(raw: Raw) -> PaymentMethod:
    view = PaymentMethod(id=str(raw["id"]), source=str(raw["source"]))
    if raw.get("brand"):
        view["brand"] = str(raw["brand"])
    if raw.get("last_four"):
        view["last_four"] = str(raw["last_four"])
    if raw.get("balance") is not None:
        view["balance"] = str(raw["balance"])
    return view


def _shipment(raw: Raw) -> Shipment:
    tracking = raw.get("tracking_id") or []
    return Shipment(
        tracking_ids=[tracking] if isinstance(tracking, str) else [str(t) for t in tracking],
        item_ids=_ids(raw.get("item_ids") or ()),
    )


def _ids(values: Sequence[object]) -> list[int]:
    return [int(str(value)) for value in values]
