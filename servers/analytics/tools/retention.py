"""Customers who come back, by the month of their first order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...tool import STAFF
from ...work import Progress, Report, work
from ..conversations import one
from ..orders import PAID
from ..span import Dirt, Since, Until, dirt, rate, span_of


class Cohort(TypedDict):
    month: Annotated[str, Meta(description="of their first order")]
    customers: int
    active: Annotated[list[int], Meta(description="customers with an order in that month, the next, and so on")]


class Retention(Report):
    since: str
    until: str
    customers: int
    repeat_customers: int
    repeat_rate: float
    orders_per_customer: float
    median_days_to_second_order: float | None
    cohorts: list[Cohort]
    kept: Annotated[
        list[float],
        Meta(description="share of customers with an order so many months after their first, of those it could be of"),
    ]
    dirt: list[Dirt]
    notes: list[str]


_RETENTION = """
WITH given AS MATERIALIZED (
    SELECT customer_id, created_at,
           CASE WHEN NOT status = ANY(%(paid)s) THEN 'unpaid' WHEN total <= 0 THEN 'below'
                WHEN customer_id = 0 THEN 'nobody' ELSE 'good' END AS kind
    FROM store_order WHERE created_at < %(until)s
),
placed AS MATERIALIZED (
    SELECT customer_id, created_at, min(created_at) OVER w AS first,
           row_number() OVER (PARTITION BY customer_id ORDER BY created_at) AS n
    FROM given WHERE kind = 'good' WINDOW w AS (PARTITION BY customer_id)
),
counted AS MATERIALIZED (SELECT * FROM placed WHERE first >= %(since)s),
-- a span with an open end: from the first month to the last that has an order
month AS (
    SELECT customer_id, to_char(first AT TIME ZONE 'UTC', 'YYYY-MM') AS cohort,
           (extract(year FROM age(date_trunc('month', created_at AT TIME ZONE 'UTC'),
                                  date_trunc('month', first AT TIME ZONE 'UTC'))) * 12
            + extract(month FROM age(date_trunc('month', created_at AT TIME ZONE 'UTC'),
                                     date_trunc('month', first AT TIME ZONE 'UTC'))))::int AS later
    FROM counted
)
SELECT (SELECT jsonb_build_object('rows', count(*), 'bytes', count(*) * 160) FROM given) AS weight,
  (SELECT jsonb_build_object('customers', count(DISTINCT customer_id), 'orders', count(*),
     'repeat', count(DISTINCT customer_id) FILTER (WHERE n = 2),
     'days', percentile_cont(.5) WITHIN GROUP (ORDER BY extract(epoch FROM created_at - first)::float8 / 86400)
             FILTER (WHERE n = 2),
     'last', to_char(max(created_at) AT TIME ZONE 'UTC', 'YYYY-MM')) FROM counted) AS totals,
  (SELECT coalesce(jsonb_agg(m ORDER BY cohort, later), '[]') FROM (
     SELECT cohort, later, count(DISTINCT customer_id) AS n FROM month GROUP BY cohort, later) m) AS months,
  (SELECT coalesce(jsonb_object_agg(kind, n), '{}') FROM (
     SELECT kind, count(*) AS n FROM given WHERE created_at >= %(since)s GROUP BY kind) k) AS kinds
"""

#: Cohorts in a report, the last ones.
_COHORTS = 36


@work(workload="report", effect="read", roles=STAFF)
async def customer_retention(
    ctx: ToolContext, *, since: Since = "", until: Until = ""
) -> AsyncIterator[Progress | Retention]:
    """Customers by the month of their first order, and how many ordered again in each month after.

    Customers are counted whose first order, of all that are known, was in the span; their orders up to its end. An
    order counts that is paid, above zero and whose customer is known.
    """
    span = span_of(since, until)
    found = await one(ctx, _RETENTION, {**span.parameters, "paid": list(PAID)})
    totals, kinds = found["totals"], found["kinds"]
    cohorts = _cohorts(found["months"], totals["last"] or "")
    notes = [] if totals["customers"] else ["There are no orders of known customers in this span."]
    if len(cohorts) > _COHORTS:
        notes.append(f"The last {_COHORTS} cohorts of {len(cohorts)} are shown; all of them count in the sums.")
    yield Retention(
        since=span.told[0],
        until=span.told[1],
        customers=totals["customers"],
        repeat_customers=totals["repeat"],
        repeat_rate=rate(totals["repeat"], totals["customers"]),
        orders_per_customer=round(totals["orders"] / totals["customers"], 2) if totals["customers"] else 0.0,
        median_days_to_second_order=None if totals["days"] is None else round(totals["days"], 1),
        cohorts=cohorts[-_COHORTS:],
        kept=_kept(cohorts),
        dirt=dirt(
            ("orders that are not paid", kinds.get("unpaid", 0), "left out"),
            ("orders of nothing or less (cancellations, corrections)", kinds.get("below", 0), "left out"),
            ("orders without a customer", kinds.get("nobody", 0), "left out: nobody knows who came back"),
        ),
        notes=[*notes, "The last month may not be over: its figures may still grow."] if cohorts else notes,
    )


def _cohorts(months: list[dict[str, int | str]], last: str) -> list[Cohort]:
    """A row per month that has first orders, up to the last month with orders; months without any are 0."""
    found: dict[str, dict[int, int]] = {}
    for row in months:
        found.setdefault(str(row["cohort"]), {})[int(row["later"])] = int(row["n"])
    return [
        Cohort(month=month, customers=active[0], active=[active.get(n, 0) for n in range(_between(month, last) + 1)])
        for month, active in found.items()
    ]


def _kept(cohorts: list[Cohort]) -> list[float]:
    longest = max((len(cohort["active"]) for cohort in cohorts), default=0)
    kept = []
    for n in range(longest):
        old = [cohort for cohort in cohorts if len(cohort["active"]) > n]
        kept.append(rate(sum(cohort["active"][n] for cohort in old), sum(cohort["customers"] for cohort in old)))
    return kept


def _between(month: str, last: str) -> int:
    (y0, m0), (y1, m1) = ((int(part) for part in text.split("-")) for text in (month, last))
    return (y1 - y0) * 12 + m1 - m0
