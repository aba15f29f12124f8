"""The store's own reports, and what it is."""

from __future__ import annotations

from html import unescape
from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolInputError
from ...tool import STAFF, tool
from ..arguments import Day
from ..client import Object, Parameters, store_of

Period = Literal["week", "month", "last_month", "year"]


class SalesOfDay(TypedDict):
    period: Annotated[str, Meta(description="a day, or a month where the report is grouped by months")]
    sales: str
    orders: int
    items: int
    tax: str
    shipping: str
    discount: str
    refunds: str
    customers: Annotated[int, Meta(description="new accounts")]


class SalesReport(TypedDict):
    total_sales: Annotated[str, Meta(description="with tax and shipping, less refunds")]
    net_sales: str
    average_sales: Annotated[str, Meta(description="net, per day or month")]
    total_orders: int
    total_items: int
    total_tax: str
    total_shipping: str
    total_refunds: str
    total_discount: str
    grouped_by: Annotated[str, Meta(description="day or month")]
    periods: list[SalesOfDay]


class TopSeller(TypedDict):
    product_id: int
    name: str
    quantity: int


class Total(TypedDict):
    slug: str
    name: str
    total: int


class StoreInfo(TypedDict):
    woocommerce: Annotated[str, Meta(description="version")]
    wordpress: str
    php: str
    currency: Annotated[str, Meta(description="code, such as GBP")]
    currency_name: str
    currency_symbol: str


@tool(effect="read", roles=STAFF)
async def sales_report(
    ctx: ToolContext,
    *,
    period: Period | None = None,
    date_min: Day | None = None,
    date_max: Day | None = None,
) -> SalesReport:
    """Sales of a period, or of the days from `date_min` to `date_max`, in total and by day (a year: by month)."""
    [raw] = await store_of(ctx).get("reports/sales", _span(period, date_min, date_max))
    return SalesReport(
        total_sales=str(raw["total_sales"]),
        net_sales=str(raw["net_sales"]),
        average_sales=str(raw["average_sales"]),
        total_orders=int(raw["total_orders"]),
        total_items=int(raw["total_items"]),
        total_tax=str(raw["total_tax"]),
        total_shipping=str(raw["total_shipping"]),
        # The one amount that the store gives as a number.
        total_refunds=f"{float(raw['total_refunds']):.2f}",
        total_discount=str(raw["total_discount"]),
        grouped_by=str(raw["totals_grouped_by"]),
        # PHP has one kind of list and mapping: no periods come as [].
        periods=[_period(name, values) for name, values in dict(raw["totals"] or {}).items()],
    )


@tool(effect="read", roles=STAFF)
async def top_sellers(
    ctx: ToolContext,
    *,
    period: Period | None = None,
    date_min: Day | None = None,
    date_max: Day | None = None,
) -> list[TopSeller]:
    """The products that sold most pieces in a period, best first."""
    rows: list[Object] = await store_of(ctx).get("reports/top_sellers", _span(period, date_min, date_max))
    return [
        TopSeller(product_id=int(raw["product_id"]), name=unescape(str(raw["name"])), quantity=int(raw["quantity"]))
        for raw in rows
    ]


@tool(effect="read", roles=STAFF)
async def totals(
    ctx: ToolContext, *, of: Literal["orders", "products", "customers", "coupons", "reviews"]
) -> list[Total]:
    """How many orders there are by status, products by type, customers by paying or not, coupons by type."""
    rows: list[Object] = await store_of(ctx).get(f"reports/{of}/totals")
    return [Total(slug=str(raw["slug"]), name=str(raw["name"]), total=int(raw["total"])) for raw in rows]


@tool(effect="read", roles=STAFF)
async def store_info(ctx: ToolContext) -> StoreInfo:
    """The store's versions and currency."""
    store = store_of(ctx)
    # All of the status takes seconds, and holds paths and plugins.
    wanted = "environment.version,environment.wp_version,environment.php_version,settings.currency"
    status: Object = await store.get("system_status", {"_fields": wanted})
    currency = await store.object("data/currencies/current")
    environment = status["environment"]
    return StoreInfo(
        woocommerce=str(environment["version"]),
        wordpress=str(environment["wp_version"]),
        php=str(environment["php_version"]),
        currency=str(status["settings"]["currency"]),
        currency_name=str(currency["name"]),
        currency_symbol=unescape(str(currency["symbol"])),
    )


def _span(period: str | None, date_min: str | None, date_max: str | None) -> Parameters:
    """
    Raises:
        ToolInputError: neither a period nor days, or both.
    """
    if (period is None) == (date_min is None):
        raise ToolInputError("Give either period, or date_min and perhaps date_max.")
    if period is not None and date_max is not None:
        raise ToolInputError("date_max goes with date_min, not with period.")
    given = {"period": period, "date_min": date_min, "date_max": date_max}
    return {name: value for name, value in given.items() if value is not None}


def _period(name: str, raw: Object) -> SalesOfDay:
    return SalesOfDay(
        period=name,
        sales=str(raw["sales"]),
        orders=int(raw["orders"]),
        items=int(raw["items"]),
        tax=str(raw["tax"]),
        shipping=str(raw["shipping"]),
        discount=str(raw["discount"]),
        refunds=str(raw.get("refunds") or "0.00"),
        customers=int(raw["customers"]),
    )
