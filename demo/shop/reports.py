"""A shop's reports, and what it says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from demo.shop import parameters
from demo.shop.parameters import read_query
from demo.shop.responses import API, ShopError, only_fields
from demo.shop.routes import Answer, Request, permit, route_of
from demo.shop.seed import Resource, money

_SOLD = ("completed", "processing", "on-hold")
_STATUS = {
    "environment": {"version": "11.0.1", "wp_version": "7.0.4", "php_version": "8.2.36", "site_url": "hidden"},
    "settings": {"currency": "USD", "api_enabled": False},
}


def sales(request: Request) -> Answer:
    values = read_query(request.query, parameters.REPORT)
    permit(request, "list")
    first, last = _span(values)
    orders = [each for each in _sold(request.store.orders) if str(first) <= each["date_created"][:10] <= str(last)]
    by_year = values["period"] == "year"
    keys = [str(first + timedelta(days=n)) for n in range((last - first).days + 1)]
    totals: dict[str, dict[str, Any]] = {key[:7] if by_year else key: _period(()) for key in keys}
    for key in totals:
        totals[key] = _period([each for each in orders if each["date_created"].startswith(key)])
    whole = _period(orders)
    net = float(whole["sales"]) - float(whole["shipping"]) - float(whole["tax"]) - float(whole["refunds"])
    about = {"about": [{"href": f"{request.base}{API}/reports"}]}
    report = {
        "total_sales": money(float(whole["sales"]) - float(whole["refunds"])),
        "net_sales": money(net),
        "average_sales": money(net / max(len(totals), 1)),
        "total_orders": whole["orders"],
        "total_items": whole["items"],
        "total_tax": whole["tax"],
        "total_shipping": whole["shipping"],
        "total_refunds": round(float(whole["refunds"]), 2),
        "total_discount": whole["discount"],
        "totals_grouped_by": "month" if by_year else "day",
        "totals": totals or [],
        "total_customers": 0,
        "_links": about,
    }
    return Answer([report])


def top_sellers(request: Request) -> Answer:
    values = read_query(request.query, parameters.REPORT)
    permit(request, "list")
    first, last = _span(values)
    names: dict[int, str] = {}
    pieces: Counter[int] = Counter()
    for order in _sold(request.store.orders):
        if str(first) <= order["date_created"][:10] <= str(last):
            for line in order["line_items"]:
                names[line["product_id"]] = line["name"]
                pieces[line["product_id"]] += line["quantity"]
    rows = [{"name": names[id], "product_id": id, "quantity": count} for id, count in pieces.most_common(12)]
    return Answer(rows)


def order_totals(request: Request) -> Answer:
    permit(request, "list")
    counted = Counter(each["status"] for each in request.store.orders)
    return Answer([_total(status, counted[status]) for status in parameters.ORDER_STATUS])


def product_totals(request: Request) -> Answer:
    permit(request, "list")
    counted = Counter(each["type"] for each in request.store.products)
    return Answer([_total(kind, counted[kind]) for kind in ("external", "grouped", "simple", "variable")])


def system_status(request: Request) -> Answer:
    values = read_query(request.query, parameters.ONE)
    permit(request, "list")
    return Answer(only_fields(_STATUS, values["_fields"]))


def currency(request: Request) -> Answer:
    permit(request, "view")
    home = f"{request.base}{API}/data/currencies"
    links = {"self": [{"href": f"{home}/USD", "targetHints": {"allow": ["GET"]}}], "collection": [{"href": home}]}
    return Answer({"code": "USD", "name": "United States (US) dollar", "symbol": "&#36;", "_links": links})


def _span(values: Mapping[str, Any]) -> tuple[date, date]:
    """The first and the last day of a report. Raises ShopError."""
    today = datetime.now(UTC).date()
    if values["date_min"]:
        try:
            first = date.fromisoformat(values["date_min"])
            return first, date.fromisoformat(values["date_max"]) if values["date_max"] else today
        except ValueError:
            raise ShopError(400, "rest_invalid_param", "Invalid parameter(s): date_min") from None
    match values["period"]:
        case "month":
            return today.replace(day=1), today
        case "last_month":
            last = today.replace(day=1) - timedelta(days=1)
            return last.replace(day=1), last
        case "year":
            return today.replace(month=1, day=1), today
        case _:
            return today - timedelta(days=6), today


def _sold(orders: Iterable[Resource]) -> list[Resource]:
    return [each for each in orders if each["status"] in _SOLD]


def _period(orders: Iterable[Resource]) -> dict[str, Any]:
    orders = list(orders)
    return {
        "sales": money(sum(float(each["total"]) for each in orders)),
        "orders": len(orders),
        "items": sum(line["quantity"] for each in orders for line in each["line_items"]),
        "tax": "0.00",
        "shipping": money(sum(float(each["shipping_total"]) for each in orders)),
        "discount": "0.00",
        "customers": 0,
        "refunds": money(-sum(float(refund["total"]) for each in orders for refund in each["refunds"])),
    }


def _total(slug: str, total: int) -> dict[str, Any]:
    return {"slug": slug, "name": slug.replace("-", " ").capitalize(), "total": total}


ROUTES = (
    route_of(r"/reports/sales", "GET", {"GET": sales}),
    route_of(r"/reports/top_sellers", "GET", {"GET": top_sellers}),
    route_of(r"/reports/orders/totals", "GET", {"GET": order_totals}),
    route_of(r"/reports/products/totals", "GET", {"GET": product_totals}),
    route_of(r"/system_status", "GET", {"GET": system_status}),
    route_of(r"/data/currencies/current", "GET", {"GET": currency}),
)
