"""Order lines as what they are: sold, taken back, or none of the business. The rules, in the database."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

#: Orders in these states are sales. In WooCommerce a wire that has not come is "on-hold".
PAID = ("processing", "completed", "on-hold", "refunded")

#: Codes of lines that are no goods: postage, fees, discounts, samples, corrections by hand.
NOT_GOODS = ("POST", "DOT", "C2", "M", "D", "S", "B", "CRUK", "AMAZONFEE", "BANK CHARGES")

Codes = Annotated[
    list[Annotated[str, Meta(max_length=60)]],
    Meta(description="codes of lines that are no goods; []: the usual ones, such as POST", max_length=200),
]

#: What becomes of each kind of line, for people.
RULES = {
    "unpaid": ("lines of orders that are not paid, or cancelled before", "left out"),
    "currency": ("lines in another currency", "left out: nothing is converted"),
    "test": ("test lines (code or name begins with 'test')", "left out"),
    "duplicate": ("lines that repeat another of their order in every field", "left out: counted once"),
    "correction": ("stock corrections (below zero, without a price)", "left out"),
    "free": ("lines without a price", "left out: neither revenue nor units"),
    "other": ("lines that are no goods (postage, fees, discounts, samples)", "their sum is `other`, not revenue"),
}

#: A row per line, with its `kind`. A line with less than nothing is taken back; a refunded order's lines are sold, and
#: taken back as well ("whole").
LINES = """
line AS MATERIALIZED (
    SELECT id, customer_id, created_at, country, sku, name, quantity, total, status = 'refunded' AND total > 0 AS whole,
           CASE WHEN NOT status = ANY(%(paid)s) THEN 'unpaid'
                WHEN currency <> %(currency)s THEN 'currency'
                WHEN sku ILIKE 'test%%' OR name ILIKE 'test%%' THEN 'test'
                WHEN row_number() OVER (PARTITION BY id, sku COLLATE "C", quantity, total, product_id, variation_id,
                                                     name COLLATE "C" ORDER BY line) > 1 THEN 'duplicate'
                WHEN upper(sku) = ANY(%(not_goods)s) THEN 'other'
                WHEN total = 0 AND quantity < 0 THEN 'correction'
                WHEN total = 0 THEN 'free'
                WHEN total < 0 OR quantity < 0 THEN 'returned'
                ELSE 'sold' END AS kind
    FROM (SELECT id, customer_id, created_at, status, currency, coalesce(data -> 'billing' ->> 'country', '') AS country
          FROM store_order WHERE created_at >= %(since)s AND created_at < %(until)s) o
    JOIN (SELECT order_id AS id, line, product_id, variation_id, sku, name, quantity, total
          FROM store_order_item) l USING (id)
)"""

#: What orders are in, most of them.
CURRENCY = """SELECT currency, count(*) AS orders FROM store_order
WHERE created_at >= %(since)s AND created_at < %(until)s GROUP BY currency ORDER BY 2 DESC, 1 LIMIT 1"""
