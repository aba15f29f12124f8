"""What staff and their tools do with a shop: make, change, trash and delete objects, one by one or in batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from demo.shop import lists, parameters, templates
from demo.shop.parameters import read_body, read_query
from demo.shop.responses import API, ShopError, linked
from demo.shop.routes import (
    COLLECTION,
    ITEM,
    Answer,
    Handler,
    Request,
    change_status,
    existing,
    listed,
    merge_addresses,
    permit,
    put_order,
    require,
    route_of,
    single,
)
from demo.shop.seed import Resource, money, slug
from demo.shop.store import Table, now

#: Items of a batch, at most.
_BATCH = 100


def _made(request: Request, table: Table, resource: Resource, collection: str, up: str = "") -> Answer:
    moment = now()
    fresh = {name: moment for name in ("date_created", "date_created_gmt") if name in resource}
    made = resource | {"id": request.store.new_id()} | fresh
    table.put(made)
    location = {"location": f"{request.base}{API}{collection}/{made['id']}"}
    return Answer(_shown(request, made, collection, up), 201, location)


def _shown(request: Request, resource: Resource, collection: str, up: str = "") -> Resource:
    """As an answer to a write has it: products with two fields more."""
    shown = linked(resource, request.base, collection, up)
    if collection != "/products":
        return shown
    links = shown.pop("_links")
    template = {"permalink_template": f"{request.base}/product/%pagename%/", "generated_slug": slug(resource["name"])}
    return shown | template | {"_links": links}


def create_product(request: Request) -> Answer:
    posted = read_body(request.body, parameters.PRODUCT_BODY)
    permit(request, "create")
    product = templates.PRODUCT | {"type": "simple", "has_options": False, "name": posted.get("name", "Product")}
    product["slug"] = slug(product["name"])
    return _made(request, request.store.products, _sold(request, product, posted), "/products")


def put_product(request: Request) -> Answer:
    posted = read_body(request.body, parameters.PRODUCT_BODY)
    permit(request, "edit")
    table, key = request.store.products, request.ids[0]
    existing(table, key, "product_", status=400)
    table.put(_sold(request, table.edit(key), posted))
    return Answer(_shown(request, table.edit(key), "/products"))


def create_variation(request: Request) -> Answer:
    posted = read_body(request.body, parameters.VARIATION_BODY)
    permit(request, "create")
    parent = existing(request.store.products, request.ids[0], "product_")
    chosen = [{"id": 0, "slug": slug(a["name"]), **a} for a in posted.get("attributes", [])]
    name = ", ".join(a["option"] for a in chosen)
    variation = templates.VARIATION | {"parent_id": parent["id"], "attributes": chosen, "name": name}
    variation = _sold(request, variation, {k: v for k, v in posted.items() if k != "attributes"})
    home = f"/products/{parent['id']}"
    return _made(request, request.store.variations, variation, f"{home}/variations", up=home)


def put_variation(request: Request) -> Answer:
    posted = read_body(request.body, parameters.VARIATION_BODY)
    permit(request, "edit")
    table, (parent, key) = request.store.variations, request.ids
    if existing(table, key, "product_variation_", status=400)["parent_id"] != parent:
        raise ShopError(404, "woocommerce_rest_product_variation_invalid_id", "Invalid ID.")
    table.put(_sold(request, table.edit(key), posted))
    home = f"/products/{parent}"
    return Answer(linked(table.edit(key), request.base, f"{home}/variations", up=home))


def _sold(request: Request, resource: Resource, posted: Mapping[str, Any]) -> Resource:
    """A product or variation with what was posted, its price and stock status following. Raises ShopError."""
    store = request.store
    sku = posted.get("sku", "")
    other = next((p for t in (store.products, store.variations) for p in t if sku and p["sku"] == sku), None)
    if other is not None and other["id"] != resource["id"]:
        data = {"resource_id": other["id"], "unique_sku": f"{sku}-1"}
        raise ShopError(400, "product_invalid_sku", "Invalid or duplicated SKU.", data)
    given = {name: value for name, value in posted.items() if name not in ("meta_data", "categories")}
    sold = resource | given
    if "categories" in posted:
        known = [existing(store.categories, c["id"], "term_") for c in posted["categories"]]
        sold["categories"] = [{"id": c["id"], "name": c["name"], "slug": c["slug"]} for c in known]
    sold["on_sale"] = bool(sold["sale_price"])
    sold["price"] = sold["sale_price"] or sold["regular_price"]
    if not sold["manage_stock"]:
        sold["stock_quantity"] = None
    elif "stock_quantity" in posted:
        sold["stock_status"] = "instock" if posted["stock_quantity"] > 0 else "outofstock"
    return sold | {"meta_data": store.merge_meta(resource["meta_data"], posted.get("meta_data", []))}


def create_category(request: Request) -> Answer:
    posted = read_body(request.body, parameters.CATEGORY_BODY)
    permit(request, "create")
    require(posted, "name")
    table, parent = request.store.categories, posted.get("parent", 0)
    twin = next((c for c in table if c["name"].lower() == posted["name"].lower() and c["parent"] == parent), None)
    if twin is not None:
        message = "A term with the name provided already exists with this parent."
        raise ShopError(400, "term_exists", message, {"resource_id": twin["id"]})
    category = templates.CATEGORY | {"slug": slug(posted["name"])} | posted
    return _made(request, table, category, "/products/categories")


def put_category(request: Request) -> Answer:
    posted = read_body(request.body, parameters.CATEGORY_BODY)
    permit(request, "edit")
    table, key = request.store.categories, request.ids[0]
    existing(table, key, "term_")
    table.put(table.edit(key) | posted)
    return Answer(linked(table.edit(key), request.base, "/products/categories"))


def create_customer(request: Request) -> Answer:
    posted = read_body(request.body, parameters.NEW_CUSTOMER_BODY)
    permit(request, "create")
    require(posted, "email")
    table, email = request.store.customers, posted["email"]
    if any(each["email"].lower() == email.lower() for each in table):
        message = f"An account is already registered with {email}. Please log in or use a different email address."
        raise ShopError(400, "registration-error-email-exists", message)
    names = {name: posted.get(name, "") for name in ("first_name", "last_name")}
    username = posted.get("username") or email.partition("@")[0]
    customer = templates.CUSTOMER | {"email": email, "username": username, **names}
    merge_addresses(customer, posted)
    customer["meta_data"] = request.store.merge_meta([], posted.get("meta_data", []))
    return _made(request, table, customer, "/customers")


def create_order(request: Request) -> Answer:
    posted = read_body(request.body, parameters.NEW_ORDER_BODY)
    permit(request, "create")
    store = request.store
    order = templates.ORDER | {"created_via": "rest-api", "customer_id": posted.get("customer_id", 0)}
    if order["customer_id"] and store.customers.get(order["customer_id"]) is None:
        raise ShopError(400, "woocommerce_rest_invalid_customer_id", "Customer ID is invalid.")
    plain = ("payment_method", "payment_method_title", "customer_note", "transaction_id")
    order |= {name: posted[name] for name in plain if name in posted}
    merge_addresses(order, posted)
    try:
        order["line_items"] = store.merge_lines([], [_priced(request, line) for line in posted.get("line_items", [])])
    except LookupError as error:
        raise ShopError(400, str(error.args[0]), "Product ID or SKU is required.") from None
    order["shipping_lines"] = [
        templates.SHIPPING_LINE | {"id": store.new_id(), **line} for line in posted.get("shipping_lines", [])
    ]
    codes = [line["code"].lower() for line in posted.get("coupon_lines", [])]
    if unknown := [code for code in codes if not any(each["code"] == code for each in store.coupons)]:
        message = f'Coupon "{unknown[0]}" does not exist!'
        raise ShopError(400, "woocommerce_rest_invalid_coupon", message)
    order["coupon_lines"] = [{"id": store.new_id(), "code": code, "discount": "0.00"} for code in codes]
    order["shipping_total"] = money(sum(float(line["total"]) for line in order["shipping_lines"]))
    items = sum(float(line["total"]) for line in order["line_items"])
    order["total"] = money(items + float(order["shipping_total"]))
    order["meta_data"] = store.merge_meta([], posted.get("meta_data", []))
    change_status(order, "processing" if posted.get("set_paid") else posted.get("status", "pending"))
    if order["status"] in ("processing", "completed"):
        order["date_paid"] = order["date_paid_gmt"] = now()
    made = _made(request, store.orders, order, "/orders")
    numbered = store.orders.edit(made.body["id"]) | {"number": str(made.body["id"])}
    store.orders.put(numbered | {"order_key": f"wc_order_{numbered['id']}"})
    return replace(made, body=linked(store.orders.edit(numbered["id"]), request.base, "/orders"))


def _priced(request: Request, line: Mapping[str, Any]) -> dict[str, Any]:
    """A new line with the price that the shop has. Raises LookupError."""
    store = request.store
    variation = store.variations.get(line.get("variation_id") or 0)
    sold = variation or store.products.get(line.get("product_id") or 0)
    if sold is None:
        raise LookupError("woocommerce_rest_required_product_reference")
    total = money(float(sold["price"] or 0) * line.get("quantity", 1))
    return {"subtotal": total, "total": total, **line}


def list_coupons(request: Request) -> Answer:
    rows = request.store.coupons
    return listed(request, parameters.COUPONS, lambda values: lists.coupons(rows, values), "/coupons")


def get_coupon(request: Request) -> Answer:
    return single(request, request.store.coupons, "shop_coupon_", "/coupons")


def create_coupon(request: Request) -> Answer:
    posted = read_body(request.body, parameters.COUPON_BODY)
    permit(request, "create")
    require(posted, "code")
    code = posted["code"].lower()
    if any(each["code"] == code and each["status"] != "trash" for each in request.store.coupons):
        raise ShopError(400, "woocommerce_rest_coupon_code_already_exists", "The coupon code already exists")
    return _made(request, request.store.coupons, _discount(request, templates.COUPON, posted), "/coupons")


def put_coupon(request: Request) -> Answer:
    posted = read_body(request.body, parameters.COUPON_BODY)
    permit(request, "edit")
    table, key = request.store.coupons, request.ids[0]
    existing(table, key, "shop_coupon_", status=400)
    table.put(_discount(request, table.edit(key), posted))
    return Answer(linked(table.edit(key), request.base, "/coupons"))


def _discount(request: Request, coupon: Resource, posted: Mapping[str, Any]) -> Resource:
    given = dict(posted)
    given |= {name: money(float(posted[name])) for name in ("amount", "minimum_amount") if name in posted}
    if "date_expires_gmt" in posted:
        given["date_expires_gmt"] = given["date_expires"] = posted["date_expires_gmt"] or None
    if "code" in posted:
        given["code"] = posted["code"].lower()
    return coupon | given | {"meta_data": request.store.merge_meta(coupon["meta_data"], posted.get("meta_data", []))}


_HOOKS = {"order.updated": ["woocommerce_update_order", "woocommerce_order_refunded"]}


def list_webhooks(request: Request) -> Answer:
    rows = request.store.webhooks
    return listed(request, parameters.WEBHOOKS, lambda values: lists.webhooks(rows, values), "/webhooks")


def get_webhook(request: Request) -> Answer:
    return single(request, request.store.webhooks, "shop_webhook_", "/webhooks")


def create_webhook(request: Request) -> Answer:
    posted = read_body(request.body, parameters.WEBHOOK_BODY)
    permit(request, "create")
    topic = posted.get("topic", "")
    if not re.fullmatch(r"(coupon|customer|order|product)\.(created|updated|deleted|restored)|action\.\w+", topic):
        message = "Webhook topic is required and must be valid."
        raise ShopError(400, "woocommerce_rest_invalid_webhook_topic", message)
    if not posted.get("delivery_url", "").startswith(("http://", "https://")):
        message = "Webhook delivery URL must be a valid URL starting with http:// or https://."
        raise ShopError(400, "woocommerce_rest_invalid_webhook_delivery_url", message)
    resource, _, event = topic.partition(".")
    given = {name: value for name, value in posted.items() if name != "secret"}
    webhook = templates.WEBHOOK | {"resource": resource, "event": event, "hooks": _HOOKS.get(topic, [])} | given
    return _made(request, request.store.webhooks, webhook, "/webhooks")


def put_webhook(request: Request) -> Answer:
    posted = read_body(request.body, parameters.WEBHOOK_BODY)
    permit(request, "edit")
    table, key = request.store.webhooks, request.ids[0]
    existing(table, key, "shop_webhook_", status=400)
    table.put(table.edit(key) | {name: value for name, value in posted.items() if name != "secret"})
    return Answer(linked(table.edit(key), request.base, "/webhooks"))


def _deleting(table_of: Callable[[Request], Table], kind: str, collection: str, *, trash: bool) -> Handler:
    """Deletes for good with `force`; without, to the trash where the resource has one."""

    def delete(request: Request) -> Answer:
        values = read_query(request.query, parameters.DELETE)
        permit(request, "delete")
        table, key = table_of(request), request.ids[-1]
        before = existing(table, key, kind)
        if values["force"]:
            table.remove(key)
        elif not trash:
            raise ShopError(501, "woocommerce_rest_trash_not_supported", "This resource does not support trashing.")
        elif before["status"] == "trash":
            raise ShopError(410, "woocommerce_rest_already_trashed", "The object has already been deleted.")
        else:
            gone = table.edit(key) | {"status": "trash"}
            table.put(gone | ({"slug": f"{gone['slug']}__trashed"} if "slug" in gone else {}))
        return Answer(_shown(request, before, collection))

    return delete


def _listed_below(kept: Callable[[Request], dict[int, list[Resource]]], name: str) -> Mapping[str, Handler]:
    """One note or refund of an order: to be read, and deleted with `force`."""

    def find(request: Request) -> tuple[list[Resource], Resource]:
        order, key = request.ids
        existing(request.store.orders, order, "shop_order_")
        rows = kept(request).get(order, [])
        found = next((each for each in rows if each["id"] == key), None)
        if found is None:
            raise ShopError(404, f"woocommerce_rest_{name}_invalid_id", "Invalid resource ID.")
        return rows, found

    def get(request: Request) -> Answer:
        permit(request, "view")
        home = f"/orders/{request.ids[0]}"
        return Answer(linked(find(request)[1], request.base, f"{home}/{name}s", up=home))

    def delete(request: Request) -> Answer:
        permit(request, "delete")
        if not read_query(request.query, parameters.DELETE)["force"]:
            raise ShopError(501, "woocommerce_rest_trash_not_supported", "This resource does not support trashing.")
        rows, found = find(request)
        rows.remove(found)
        if name == "refund":
            order = request.store.orders.edit(request.ids[0])
            order["refunds"] = [each for each in order["refunds"] if each["id"] != found["id"]]
            request.store.orders.put(order)
        home = f"/orders/{request.ids[0]}"
        return Answer(linked(found, request.base, f"{home}/{name}s", up=home))

    return {"GET": get, "DELETE": delete}


def _batch(create: Handler | None, update: Handler, delete: Handler | None) -> Handler:
    """All of a batch, one by one; answered 200 whatever becomes of them."""

    def handle(request: Request) -> Answer:
        permit(request, "batch")
        posted = {name: request.body[name] for name in ("create", "update", "delete") if request.body.get(name)}
        if sum(len(items) for items in posted.values()) > _BATCH:
            message = f"Unable to accept more than {_BATCH} items for this request."
            raise ShopError(413, "woocommerce_rest_request_entity_too_large", message)
        answers: dict[str, list[Any]] = {}
        handlers = {"create": create, "update": update, "delete": delete}
        for name, items in posted.items():
            handler = handlers[name]
            answers[name] = [_item(request, handler, name, item) for item in items] if handler else []
        return Answer(answers or [])

    return handle


def _item(request: Request, handler: Handler, name: str, item: Any) -> Any:
    key = item if name == "delete" else item.get("id", 0)
    ids = (*request.ids, key) if name != "create" else request.ids
    body, query = ({}, (("force", "true"),)) if name == "delete" else (item, ())
    try:
        return handler(replace(request, body=body, ids=ids, query=query)).body
    except ShopError as error:
        return {"id": key, "error": error.body()}


_BATCHES = "POST, PUT, PATCH"
_delete_product = _deleting(lambda r: r.store.products, "product_", "/products", trash=True)
_delete_variation = _deleting(lambda r: r.store.variations, "product_variation_", "/variations", trash=False)
_delete_category = _deleting(lambda r: r.store.categories, "term_", "/products/categories", trash=False)
_delete_customer = _deleting(lambda r: r.store.customers, "", "/customers", trash=False)
_delete_order = _deleting(lambda r: r.store.orders, "shop_order_", "/orders", trash=True)
_delete_coupon = _deleting(lambda r: r.store.coupons, "shop_coupon_", "/coupons", trash=True)
_delete_webhook = _deleting(lambda r: r.store.webhooks, "shop_webhook_", "/webhooks", trash=False)


ROUTES = (
    route_of(r"/products", COLLECTION, {"POST": create_product}),
    route_of(r"/products/batch", _BATCHES, {"POST": _batch(create_product, put_product, _delete_product)}),
    route_of(r"/products/(\d+)", ITEM, {"PUT": put_product, "DELETE": _delete_product}),
    route_of(r"/products/(\d+)/variations", COLLECTION, {"POST": create_variation}),
    route_of(
        r"/products/(\d+)/variations/batch",
        _BATCHES,
        {"POST": _batch(create_variation, put_variation, _delete_variation)},
    ),
    route_of(r"/products/(\d+)/variations/(\d+)", ITEM, {"PUT": put_variation, "DELETE": _delete_variation}),
    route_of(r"/products/categories", COLLECTION, {"POST": create_category}),
    route_of(r"/products/categories/(\d+)", ITEM, {"PUT": put_category, "DELETE": _delete_category}),
    route_of(r"/customers", COLLECTION, {"POST": create_customer}),
    route_of(r"/customers/(\d+)", ITEM, {"DELETE": _delete_customer}),
    route_of(r"/orders", COLLECTION, {"POST": create_order}),
    route_of(r"/orders/batch", _BATCHES, {"POST": _batch(create_order, put_order, _delete_order)}),
    route_of(r"/orders/(\d+)", ITEM, {"DELETE": _delete_order}),
    route_of(r"/orders/(\d+)/notes/(\d+)", "GET, DELETE", _listed_below(lambda r: r.store.notes, "note")),
    route_of(r"/orders/(\d+)/refunds/(\d+)", "GET, DELETE", _listed_below(lambda r: r.store.refunds, "refund")),
    route_of(r"/coupons", COLLECTION, {"GET": list_coupons, "POST": create_coupon}),
    route_of(r"/coupons/(\d+)", ITEM, {"GET": get_coupon, "PUT": put_coupon, "DELETE": _delete_coupon}),
    route_of(r"/webhooks", COLLECTION, {"GET": list_webhooks, "POST": create_webhook}),
    route_of(r"/webhooks/(\d+)", ITEM, {"GET": get_webhook, "PUT": put_webhook, "DELETE": _delete_webhook}),
)
