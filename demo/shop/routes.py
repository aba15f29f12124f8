"""The routes of wc/v3 that this shop has, and what each does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from demo.shop import lists, parameters, templates
from demo.shop.parameters import read_body, read_query
from demo.shop.responses import API, ShopError, linked, no_route, only_fields, page_headers
from demo.shop.seed import Resource, money
from demo.shop.store import Store, Table, now


@dataclass(frozen=True)
class Request:
    """One request, as far as a route needs it. `known`: the caller has authenticated."""

    store: Store
    base: str
    path: str
    query: tuple[tuple[str, str], ...]
    body: Mapping[str, Any]
    known: bool
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Answer]

COLLECTION = "GET, POST"
ITEM = "GET, POST, PUT, PATCH, DELETE"


@dataclass(frozen=True)
class Route:
    """`allow` is what a store says it allows there, even where this shop knows less."""

    pattern: re.Pattern[str]
    handlers: Mapping[str, Handler]
    allow: str


def find(routes: Iterable[Route], path: str, method: str) -> tuple[Route, Handler, tuple[int, ...]]:
    """The route of a path below wc/v3. Raises ShopError."""
    for route in routes:
        matched = route.pattern.fullmatch(path)
        if matched and method in route.handlers:
            return route, route.handlers[method], tuple(int(each) for each in matched.groups())
    raise no_route()


def permit(request: Request, verb: str) -> None:
    if request.known:
        return
    code, message = {
        "list": ("woocommerce_rest_cannot_view", "Sorry, you cannot list resources."),
        "view": ("woocommerce_rest_cannot_view", "Sorry, you cannot view this resource."),
        "edit": ("woocommerce_rest_cannot_edit", "Sorry, you are not allowed to edit this resource."),
        "delete": ("woocommerce_rest_cannot_delete", "Sorry, you are not allowed to delete this resource."),
        "batch": ("woocommerce_rest_cannot_batch", "Sorry, you are not allowed to batch manipulate this resource."),
        "create": ("woocommerce_rest_cannot_create", "Sorry, you are not allowed to create resources."),
    }[verb]
    raise ShopError(401, code, message)


def existing(table: Table, key: int, kind: str, *, status: int = 404) -> Resource:
    resource = table.get(key)
    if resource is None:
        raise ShopError(status, f"woocommerce_rest_{kind}invalid_id", "Invalid ID.")
    return resource


def listed(
    request: Request,
    accepted: Mapping[str, parameters.Parameter],
    select: Callable[[Mapping[str, Any]], list[Resource]],
    collection: str,
    up: str = "",
) -> Answer:
    values = read_query(request.query, accepted)
    permit(request, "list")
    rows = select(values)
    body = [linked(each, request.base, collection, up) for each in lists.page(rows, values)]
    url = f"{request.base}{API}{request.path}"
    headers = page_headers(len(rows), values["page"], values["per_page"], url, request.query)
    return Answer(only_fields(body, values["_fields"]), headers=headers)


def single(request: Request, table: Table, kind: str, collection: str) -> Answer:
    values = read_query(request.query, parameters.ONE)
    permit(request, "view")
    resource = existing(table, request.ids[-1], kind)
    return Answer(only_fields(linked(resource, request.base, collection), values["_fields"]))


def list_products(request: Request) -> Answer:
    rows = request.store.products
    return listed(request, parameters.PRODUCTS, lambda values: lists.products(rows, values), "/products")


def get_product(request: Request) -> Answer:
    return single(request, request.store.products, "product_", "/products")


def list_variations(request: Request) -> Answer:
    parent = request.ids[0]
    if request.known:
        existing(request.store.products, parent, "product_")
    rows = [each for each in request.store.variations if each["parent_id"] == parent]
    home = f"/products/{parent}"
    return listed(
        request, parameters.VARIATIONS, lambda values: lists.products(rows, values), f"{home}/variations", up=home
    )


def get_variation(request: Request) -> Answer:
    values = read_query(request.query, parameters.ONE)
    permit(request, "view")
    parent, key = request.ids
    variation = existing(request.store.variations, key, "product_variation_")
    if variation["parent_id"] != parent:
        raise ShopError(404, "woocommerce_rest_product_variation_invalid_id", "Invalid ID.")
    home = f"/products/{parent}"
    return Answer(only_fields(linked(variation, request.base, f"{home}/variations", up=home), values["_fields"]))


def list_categories(request: Request) -> Answer:
    rows = request.store.categories
    return listed(request, parameters.CATEGORIES, lambda values: lists.categories(rows, values), "/products/categories")


def get_category(request: Request) -> Answer:
    if request.known and request.store.categories.get(request.ids[0]) is None:
        raise ShopError(404, "woocommerce_rest_term_invalid", "Resource does not exist.")
    return single(request, request.store.categories, "term_", "/products/categories")


def list_customers(request: Request) -> Answer:
    rows = request.store.customers
    return listed(request, parameters.CUSTOMERS, lambda values: lists.customers(rows, values), "/customers")


def get_customer(request: Request) -> Answer:
    if request.known and request.store.customers.get(request.ids[0]) is None:
        raise ShopError(404, "woocommerce_rest_invalid_id", "Invalid resource ID.")
    return single(request, request.store.customers, "", "/customers")


def put_customer(request: Request) -> Answer:
    posted = read_body(request.body, parameters.CUSTOMER_BODY)
    permit(request, "edit")
    existing(request.store.customers, request.ids[0], "", status=400)
    customer = request.store.customers.edit(request.ids[0])
    customer |= {name: posted[name] for name in ("email", "first_name", "last_name") if name in posted}
    merge_addresses(customer, posted)
    customer["meta_data"] = request.store.merge_meta(customer["meta_data"], posted.get("meta_data", []))
    request.store.customers.put(customer)
    return Answer(linked(customer, request.base, "/customers"))


def list_orders(request: Request) -> Answer:
    rows = request.store.orders
    return listed(request, parameters.ORDERS, lambda values: lists.orders(rows, values), "/orders")


def get_order(request: Request) -> Answer:
    return single(request, request.store.orders, "shop_order_", "/orders")


def put_order(request: Request) -> Answer:
    posted = read_body(request.body, parameters.ORDER_BODY)
    permit(request, "edit")
    store = request.store
    existing(store.orders, request.ids[0], "shop_order_", status=400)
    order = store.orders.edit(request.ids[0])
    plain = ("payment_method", "payment_method_title", "customer_note", "transaction_id")
    order |= {name: posted[name] for name in plain if name in posted}
    merge_addresses(order, posted)
    try:
        order["line_items"] = store.merge_lines(order["line_items"], posted.get("line_items", []))
    except LookupError as error:
        raise ShopError(400, str(error.args[0]), "Order item ID provided is not associated with order.") from None
    order["total"] = money(sum(float(line["total"]) for line in order["line_items"]))
    order["meta_data"] = store.merge_meta(order["meta_data"], posted.get("meta_data", []))
    if posted.get("status", order["status"]) != order["status"]:
        change_status(order, posted["status"])
    store.orders.put(order)
    return Answer(linked(order, request.base, "/orders"))


def change_status(order: Resource, status: str) -> None:
    order["status"] = status
    order["is_editable"] = status in ("pending", "on-hold", "auto-draft")
    if status == "completed":
        order["date_completed"] = order["date_completed_gmt"] = now()


def merge_addresses(resource: Resource, posted: Mapping[str, Any]) -> None:
    for name, known in (("billing", templates.BILLING), ("shipping", templates.SHIPPING)):
        given = {key: value for key, value in posted.get(name, {}).items() if key in known}
        resource[name] = resource[name] | given


def list_notes(request: Request) -> Answer:
    permit(request, "list")
    order = request.ids[0]
    existing(request.store.orders, order, "shop_order_")
    rows = reversed(request.store.notes.get(order, []))
    return Answer([linked(each, request.base, f"/orders/{order}/notes", up=f"/orders/{order}") for each in rows])


def create_note(request: Request) -> Answer:
    posted = read_body(request.body, parameters.NOTE_BODY)
    permit(request, "create")
    require(posted, "note")
    order = request.ids[0]
    existing(request.store.orders, order, "shop_order_")
    note = templates.NOTE | {"id": request.store.new_id(), "date_created": now(), "date_created_gmt": now()} | posted
    request.store.notes.setdefault(order, []).append(note)
    home = f"/orders/{order}"
    location = {"location": f"{request.base}{API}{home}/notes/{note['id']}"}
    return Answer(linked(note, request.base, f"{home}/notes", up=home), 201, location)


def list_refunds(request: Request) -> Answer:
    permit(request, "list")
    order = request.ids[0]
    existing(request.store.orders, order, "shop_order_")
    rows = reversed(request.store.refunds.get(order, []))
    return Answer([linked(each, request.base, f"/orders/{order}/refunds", up=f"/orders/{order}") for each in rows])


def create_refund(request: Request) -> Answer:
    """A refund of an amount. Too much is a 500 whose `data` is a number, and `Location` a pattern, as recorded."""
    posted = read_body(request.body, parameters.REFUND_BODY)
    permit(request, "create")
    require(posted, "amount")
    store, key = request.store, request.ids[0]
    existing(store.orders, key, "shop_order_")
    order = store.orders.edit(key)
    left = float(order["total"]) + sum(float(each["total"]) for each in order["refunds"])
    amount = float(posted["amount"])
    if not 0 < amount <= round(left, 2):
        raise ShopError(500, "woocommerce_rest_cannot_create_order_refund", "Invalid refund amount.", 500)
    kind = "full" if amount == round(left, 2) else "partial"
    refund = templates.REFUND | {
        "id": store.new_id(),
        "date_created": now(),
        "date_created_gmt": now(),
        "amount": money(amount),
        "reason": posted.get("reason", ""),
        "meta_data": store.merge_meta([], [{"key": "_refund_type", "value": kind}, *posted.get("meta_data", [])]),
    }
    store.refunds.setdefault(key, []).append(refund)
    order["refunds"] = [{"id": refund["id"], "reason": refund["reason"], "total": money(-amount)}, *order["refunds"]]
    store.orders.put(order)
    home = f"/orders/{key}"
    location = {"location": rf"{request.base}{API}/orders/(?P<order_id>[\d]+)/refunds/{refund['id']}"}
    return Answer(linked(refund, request.base, f"{home}/refunds", up=home), 201, location)


def require(posted: Mapping[str, Any], name: str) -> None:
    if not posted.get(name):
        raise ShopError(400, "rest_missing_callback_param", f"Missing parameter(s): {name}", {"params": [name]})


def route_of(pattern: str, allow: str, handlers: Mapping[str, Handler]) -> Route:
    return Route(re.compile(pattern), handlers, allow)


ROUTES = (
    route_of(r"/products", COLLECTION, {"GET": list_products}),
    route_of(r"/products/categories", COLLECTION, {"GET": list_categories}),
    route_of(r"/products/categories/(\d+)", ITEM, {"GET": get_category}),
    route_of(r"/products/(\d+)", ITEM, {"GET": get_product}),
    route_of(r"/products/(\d+)/variations", COLLECTION, {"GET": list_variations}),
    route_of(r"/products/(\d+)/variations/(\d+)", ITEM, {"GET": get_variation}),
    route_of(r"/customers", COLLECTION, {"GET": list_customers}),
    route_of(r"/customers/(\d+)", ITEM, {"GET": get_customer, "PUT": put_customer}),
    route_of(r"/orders", COLLECTION, {"GET": list_orders}),
    route_of(r"/orders/(\d+)", ITEM, {"GET": get_order, "PUT": put_order}),
    route_of(r"/orders/(\d+)/notes", COLLECTION, {"GET": list_notes, "POST": create_note}),
    route_of(r"/orders/(\d+)/refunds", COLLECTION, {"GET": list_refunds, "POST": create_refund}),
)
