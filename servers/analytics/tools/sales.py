"""Sales from orders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...database import database_of
from ...table import Table
from ...tool import STAFF, tool
from ...work import Progress, Report, work
from ..conversations import batches, one
from ..orders import CURRENCY, LINES, NOT_GOODS, PAID, RULES, Codes
from ..span import Dirt, Since, Span, Top, Until, dirt, span_of

Currency = Annotated[str, Meta(description="such as 'EUR'; '': the one that most orders are in", max_length=3)]


class Period(TypedDict):
    period: str
    revenue: float
    returned: float
    orders: int


class Product(TypedDict):
    sku: str
    name: str
    revenue: float
    units: float
    orders: int


class Country(TypedDict):
    country: str
    revenue: float
    orders: int


class Sales(Report):
    since: str
    until: str
    currency: str
    revenue: Annotated[float, Meta(description="of goods, before returns")]
    returned: Annotated[float, Meta(description="of goods, as a number above zero")]
    net: Annotated[float, Meta(description="revenue less returned")]
    other: Annotated[float, Meta(description="postage, fees, discounts and the like; not in revenue")]
    orders: int
    customers: Annotated[int, Meta(description="that are known")]
    units: float
    average_order: float
    periods: list[Period]
    top_products: list[Product]
    top_countries: list[Country]
    dirt: list[Dirt]
    notes: list[str]


_SALES = f"""
WITH {LINES},
money AS MATERIALIZED (
    SELECT id, customer_id, created_at, country, sku, name, quantity,
           CASE WHEN kind = 'sold' THEN total ELSE 0 END AS revenue,
           CASE WHEN kind = 'returned' THEN -total WHEN whole THEN total ELSE 0 END AS returned, kind
    FROM line WHERE kind IN ('sold', 'returned')
)
SELECT (SELECT jsonb_build_object('rows', count(*), 'bytes', coalesce(sum(octet_length(sku || name) + 140), 0))
        FROM line) AS weight,
  (SELECT jsonb_build_object('revenue', coalesce(round(sum(revenue), 2), 0),
     'returned', coalesce(round(sum(returned), 2), 0), 'orders', count(DISTINCT id) FILTER (WHERE kind = 'sold'),
     'customers', count(DISTINCT nullif(customer_id, 0)) FILTER (WHERE kind = 'sold'),
     'units', coalesce(sum(quantity) FILTER (WHERE kind = 'sold'), 0)) FROM money) AS totals,
  (SELECT coalesce(jsonb_agg(p ORDER BY period), '[]') FROM (
     SELECT to_char(date_trunc(%(by)s, created_at AT TIME ZONE 'UTC'), %(form)s) AS period,
            round(sum(revenue), 2) AS revenue, round(sum(returned), 2) AS returned,
            count(DISTINCT id) FILTER (WHERE kind = 'sold') AS orders
     FROM money GROUP BY 1 ORDER BY 1 DESC LIMIT %(periods)s) p) AS periods,
  (SELECT coalesce(jsonb_agg(p), '[]') FROM (
     SELECT upper(sku) AS sku, mode() WITHIN GROUP (ORDER BY name) AS name, round(sum(revenue), 2) AS revenue,
            sum(quantity) AS units, count(DISTINCT id) AS orders
     FROM money WHERE kind = 'sold' GROUP BY 1 ORDER BY 3 DESC, 1 LIMIT %(top)s) p) AS products,
  (SELECT coalesce(jsonb_agg(c), '[]') FROM (
     SELECT country, round(sum(revenue), 2) AS revenue, count(DISTINCT id) AS orders
     FROM money WHERE kind = 'sold' GROUP BY country ORDER BY 2 DESC, country LIMIT %(top)s) c) AS countries,
  (SELECT coalesce(jsonb_object_agg(kind, n), '{{}}') FROM (
     SELECT kind, count(*) AS n FROM line GROUP BY kind) k) AS kinds,
  (SELECT coalesce(round(sum(total), 2), 0) FROM line WHERE kind = 'other') AS other,
  (SELECT count(*) FROM line WHERE kind = 'sold' AND customer_id = 0) AS anonymous
"""  # noqa: S608 - put together from constants

_FORMS = {"day": "YYYY-MM-DD", "week": "YYYY-MM-DD", "month": "YYYY-MM"}
#: Periods in a report, the last ones.
_PERIODS = 60


@work(workload="report", effect="read", roles=STAFF)
async def sales_report(
    ctx: ToolContext,
    *,
    since: Since = "",
    until: Until = "",
    by: Literal["day", "week", "month"] = "month",
    currency: Currency = "",
    not_goods: Codes = [],  # noqa: B006 - never changed
    top: Top = 10,
) -> AsyncIterator[Progress | Sales]:
    """Sales from the orders that are kept here: revenue, returns, periods, best products and countries.

    `dirt` says what input was left out and by which rule. A return counts in the period in which it was made.
    """
    span = span_of(since, until)
    found_currency = currency or await main_currency(ctx, span)
    asked = _parameters(span, found_currency, not_goods) | {"by": by, "form": _FORMS[by], "top": top}
    found = await one(ctx, _SALES, asked | {"periods": _PERIODS})
    totals = found["totals"]
    yield Sales(
        since=span.told[0],
        until=span.told[1],
        currency=found_currency,
        revenue=totals["revenue"],
        returned=totals["returned"],
        net=round(totals["revenue"] - totals["returned"], 2),
        other=float(found["other"]),
        orders=totals["orders"],
        customers=totals["customers"],
        units=totals["units"],
        average_order=round(totals["revenue"] / totals["orders"], 2) if totals["orders"] else 0.0,
        periods=found["periods"],
        top_products=found["products"],
        top_countries=found["countries"],
        dirt=_dirt(found["kinds"], found["anonymous"]),
        notes=[] if found["kinds"] else ["There are no orders in this span."],
    )


def _dirt(kinds: dict[str, int], anonymous: int) -> list[Dirt]:
    found = [(RULES[kind][0], kinds.get(kind, 0), RULES[kind][1]) for kind in RULES]
    returned = ("lines below zero (cancellations, returns)", kinds.get("returned", 0), "their sum is `returned`")
    nobody = ("sold lines without a customer", anonymous, "counted in all sums, in no number of customers")
    return dirt(returned, *found, nobody)


def _parameters(span: Span, currency: str, not_goods: list[str]) -> dict[str, Any]:
    codes = [code.upper() for code in not_goods or NOT_GOODS]
    return {**span.parameters, "paid": list(PAID), "currency": currency, "not_goods": codes}


async def main_currency(ctx: ToolContext, span: Span) -> str:
    """ "" where there are no orders."""
    async with database_of(ctx).transaction() as rows:
        found = await rows.fetch(CURRENCY, span.parameters)
    return str(found[0]["currency"]) if found else ""


class OrderLine(TypedDict):
    order_id: int
    created: datetime
    customer: int | None
    country: str
    sku: str
    name: str
    quantity: float
    total: float
    kind: str


_TABLE = f"""WITH {LINES}
SELECT id AS order_id, created_at AS created, nullif(customer_id, 0) AS customer, country, sku, name,
       quantity::float8 AS quantity, total::float8 AS total, kind FROM line ORDER BY created_at, id"""  # noqa: S608 - put together from constants


@tool(effect="read", roles=STAFF)
async def stream_order_lines(
    ctx: ToolContext,
    *,
    since: Since = "",
    until: Until = "",
    currency: Currency = "",
    not_goods: Codes = [],  # noqa: B006 - never changed
) -> AsyncIterator[Table[OrderLine]]:
    """A row for each order line with what it counts as (`kind`), in tables: `pandas.concat(stream_order_lines())`.

    Kinds: sold, returned, other (no goods), and those that are left out: unpaid, currency, test, duplicate, correction,
    free.
    """
    span = span_of(since, until)
    asked = _parameters(span, currency or await main_currency(ctx, span), not_goods)
    async for batch in batches(ctx, _TABLE, asked):
        yield Table(batch)
