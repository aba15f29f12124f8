"""Reports on orders, figures held against pandas': on a small file with all kinds of dirt and on a real one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import analytics_check as check
import httpx
import pandas as pd
import pytest
from tool_bench import Bench, context_for

from gateway.db import Database
from servers.analytics.files import orders_of
from servers.analytics.load import Line, PlacedOrder, write_orders
from servers.registry import Registry

REAL = (
    Path(os.environ.get("SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "orders"
    / "uci_online_retail.parquet"
)
#: The real file is not in a clone: it is not ours to commit. SHARED_DATA names its folder.
SOURCES = ["small", *(["real"] if REAL.exists() else [])]

COLUMNS = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
#: Every kind of dirt that the real file has, and a line of an order that is far from its others.
SMALL = [
    ("1001", "22423", "CAKESTAND", 2, "2026-01-05 10:00", 12.75, 7, "France"),
    ("1001", "22423", "CAKESTAND", 2, "2026-01-05 10:00", 12.75, 7, "France"),  # twice
    ("1001", "22423", "CAKESTAND", 1, "2026-01-05 10:00", 12.75, 7, "France"),  # not twice: another quantity
    ("1001", "POST", "POSTAGE", 1, "2026-01-05 10:00", 18.0, 7, "France"),
    ("1002", "85123a", "HEART", 10, "2026-02-01 09:00", 2.55, 8, "Spain"),
    ("1003", "85123A", "HEART", 1, "2026-02-02 09:00", 2.55, None, "Spain"),  # nobody; the code in capitals
    ("C1004", "22423", "CAKESTAND", -1, "2026-02-03 09:00", 12.75, 7, "France"),
    ("1005", "71053", "LANTERN", -30, "2026-02-04 09:00", 0.0, None, "France"),  # a correction of stock
    ("1006", "71053", "LANTERN", 3, "2026-03-01 09:00", 0.0, 7, "France"),  # for nothing
    ("1007", "TEST001", "This is a test", 5, "2026-03-02 09:00", 4.5, 9, "France"),
    ("A1008", "B", "Adjust bad debt", 1, "2026-03-03 09:00", -99.0, None, "France"),
    ("1009", "71053", "LANTERN", 3, "2026-03-04 09:00", 3.39, 7, "France"),
    ("1002", "22423", "CAKESTAND", 1, "2026-02-01 09:00", 12.75, 8, "Spain"),
]


@pytest.fixture
async def tools(database: Database, registry: Registry) -> AsyncIterator[Bench]:
    await database.execute("TRUNCATE store_order, store_order_item")
    async with httpx.AsyncClient() as http:
        yield Bench(registry, context_for("http://127.0.0.1:1", http)).with_(database=database.tenant("retail"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.csv"
    pd.DataFrame(SMALL, columns=COLUMNS).astype({"CustomerID": "Int64"}).to_csv(path, index=False)
    return path


def read(path: Path) -> pd.DataFrame:
    found = pd.read_csv(path, parse_dates=["InvoiceDate"]) if path.suffix == ".csv" else pd.read_parquet(path)
    return pd.DataFrame(
        {
            "number": found["InvoiceNo"].astype(str),
            "sku": found["StockCode"].astype(str),
            "name": found["Description"].astype(object).fillna("").astype(str),
            "quantity": found["Quantity"],
            "price": found["UnitPrice"],
            "created": found["InvoiceDate"],
            "customer": found["CustomerID"],
        }
    )


async def load(database: Database, path: Path, tenant: str = "retail") -> int:
    found = [await write_orders(database.tenant(tenant), tenant, batch) for batch in orders_of(path)]
    return sum(each.written for each in found)


@pytest.mark.parametrize("source", SOURCES)
async def test_the_figures_are_what_pandas_reckons(
    tools: Bench, database: Database, small: Path, tmp_path: Path, source: str
) -> None:
    path = small
    if source == "real":
        # every fortieth invoice: all of them take a minute to load on a busy machine
        whole = pd.read_parquet(REAL)
        path = tmp_path / "part.parquet"
        whole[whole["InvoiceNo"].str.extract(r"(\d+)")[0].astype(int) % 40 == 0].to_parquet(path)
    await load(database, path)
    lines = read(path)
    await _sales(tools, lines)
    await _retention(tools, lines)


async def _sales(tools: Bench, lines: pd.DataFrame) -> None:
    ours, theirs = await tools.call("analytics.sales_report"), check.sales(lines)
    for name in ("revenue", "returned", "other", "orders", "customers", "units"):
        assert ours[name] == pytest.approx(theirs[name], abs=0.011), name
    assert {p["period"]: p["revenue"] for p in ours["periods"] if p["revenue"]} == pytest.approx(
        theirs["months"], abs=0.011
    )
    assert {p["sku"]: p["revenue"] for p in ours["top_products"]} == pytest.approx(theirs["products"], abs=0.011)
    stream = tools.registry.get("analytics.stream_order_lines").stream(tools.context, {})
    rows = pd.concat([part.to_pandas() async for part in stream])
    assert dict(rows["kind"].value_counts()) == theirs["kinds"]


async def _retention(tools: Bench, lines: pd.DataFrame) -> None:
    ours, theirs = await tools.call("analytics.customer_retention"), check.retention(lines)
    assert (ours["customers"], ours["repeat_customers"]) == (theirs["customers"], theirs["repeat"])
    cells = {(each["month"], n): value for each in ours["cohorts"] for n, value in enumerate(each["active"]) if value}
    assert cells == theirs["cells"]


async def test_dirt_is_counted_and_said(tools: Bench, database: Database, small: Path) -> None:
    assert await load(database, small) == 9
    found = await tools.call("analytics.sales_report")
    assert (found["revenue"], found["returned"], found["net"]) == (89.22, 12.75, 76.47)
    assert {each["what"].partition(" (")[0]: each["rows"] for each in found["dirt"]} == {
        "lines below zero": 1,
        "lines of orders that are not paid, or cancelled before": 1,
        "test lines": 1,
        "lines that repeat another of their order in every field": 1,
        "stock corrections": 1,
        "lines without a price": 1,
        "lines that are no goods": 1,
        "sold lines without a customer": 1,
    }
    kept = await tools.call("analytics.customer_retention")
    assert {each["what"].partition(" (")[0]: each["rows"] for each in kept["dirt"]} == {
        "orders that are not paid": 1,
        "orders of nothing or less": 3,
        "orders without a customer": 1,
    }


def placed(id: int, status: str, total: str, currency: str = "EUR", day: int = 1) -> PlacedOrder:
    line = Line(sku="A", name="A", quantity="1", total=total)
    created = datetime(2026, 5, day, tzinfo=UTC)
    return PlacedOrder(
        id=id,
        number=str(id),
        customer=5,
        status=status,
        currency=currency,
        created=created,
        country="FR",
        lines=(line,),
    )


async def test_a_refunded_order_is_sold_and_taken_back(tools: Bench, database: Database) -> None:
    orders = [
        placed(1, "completed", "10"),
        placed(2, "refunded", "30", day=2),
        placed(3, "pending", "500"),
        placed(4, "completed", "70", "USD"),
    ]
    await write_orders(database.tenant("retail"), "retail", orders)
    found = await tools.call("analytics.sales_report", by="day")
    assert (found["currency"], found["revenue"], found["returned"], found["net"]) == ("EUR", 40, 30, 10)
    assert [(p["period"], p["revenue"]) for p in found["periods"]] == [("2026-05-01", 10), ("2026-05-02", 30)]
    assert {each["rule"] for each in found["dirt"]} == {"left out", "left out: nothing is converted"}
    other = await tools.call("analytics.sales_report", currency="USD", since="2026-05-01", until="2026-05-02")
    assert (other["revenue"], other["orders"]) == (70, 1)


async def test_of_orders_with_one_number_the_first_stays(tools: Bench, database: Database) -> None:
    both = [placed(1, "completed", "10"), placed(1, "completed", "99")]
    for written in (1, 0):
        found = await write_orders(database.tenant("retail"), "retail", both)
        assert (found.written, found.left) == (written, 2 - written)
    assert (await tools.call("analytics.sales_report"))["revenue"] == 10


async def test_a_first_order_before_the_span_is_no_first_one(tools: Bench, database: Database) -> None:
    orders = [placed(1, "completed", "10"), placed(2, "completed", "10", day=20)]
    await write_orders(database.tenant("retail"), "retail", orders)
    assert (await tools.call("analytics.customer_retention", since="2026-05-10"))["customers"] == 0
    assert (await tools.call("analytics.customer_retention"))["median_days_to_second_order"] == 19


async def test_a_tenant_sees_its_own_orders_alone(tools: Bench, database: Database, small: Path) -> None:
    await load(database, small, "rival")
    assert (await tools.call("analytics.sales_report"))["notes"] == ["There are no orders in this span."]
    assert (await tools.call("analytics.customer_retention"))["customers"] == 0
