"""Loading and searching the catalogue, and handing over, in a real Postgres with the real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from shop_server import Faulty, recording, replaying, serving
from tool_bench import KEY, Bench

from demo.tau import load_data
from gateway.db import Database
from servers.catalog.embedding import MiniLm
from servers.catalog.load import LoadReport, load_catalog, product_row
from servers.context import Shop
from servers.errors import ToolDenied, ToolError, ToolNotFound


async def load(bench: Bench, database: Database, embedder: MiniLm) -> LoadReport:
    shop = bench.context.shop
    assert shop is not None
    return await load_catalog(shop, database.tenant("retail"), embedder, "retail", bench.context.http)


@pytest.fixture
async def catalog(bench: Bench, database: Database, embedder: MiniLm) -> Bench:
    """Tools over the loaded catalogue of the retail shop."""
    await load(bench, database, embedder)
    return bench.with_(database=database.tenant("retail"), embedder=embedder)


async def test_a_load_brings_every_product_with_its_variants(
    bench: Bench, database: Database, embedder: MiniLm
) -> None:
    products = load_data()["products"]
    report = await load(bench, database, embedder)
    assert (report.products, report.created) == (len(products), len(products))
    assert report.variants == sum(len(p["variants"]) for p in products.values())
    rows = await database.fetch("SELECT id, jsonb_array_length(variants) AS n FROM product")
    assert {r["id"]: r["n"] for r in rows} == {int(i): len(p["variants"]) for i, p in products.items()}


async def test_a_second_load_embeds_and_writes_nothing(bench: Bench, database: Database, embedder: MiniLm) -> None:
    await load(bench, database, embedder)
    before = await database.fetch("SELECT id, xmin::text FROM product ORDER BY id")
    report = await load(bench, database, embedder)
    assert (report.created, report.updated, report.deleted) == (0, 0, 0)
    assert report.unchanged == report.products
    assert await database.fetch("SELECT id, xmin::text FROM product ORDER BY id") == before


async def test_a_load_repairs_what_differs_from_the_store(bench: Bench, database: Database, embedder: MiniLm) -> None:
    await load(bench, database, embedder)
    [changed, lost] = [r["id"] for r in await database.fetch("SELECT id FROM product ORDER BY id LIMIT 2")]
    await database.execute("UPDATE product SET name = 'old', content_hash = 'old' WHERE id = %s", (changed,))
    await database.execute("DELETE FROM product WHERE id = %s", (lost,))
    await database.execute(
        "INSERT INTO product (tenant, id, name, slug, permalink, type, categories, description, attributes,"
        " variants, in_stock, words, embedding, content_hash) SELECT tenant, 1, 'gone', '', '', type, categories, '',"
        " attributes, variants, in_stock, words, embedding, 'x' FROM product LIMIT 1"
    )
    report = await load(bench, database, embedder)
    assert (report.created, report.updated, report.deleted) == (1, 1, 1)
    rows = await database.fetch("SELECT id, name FROM product")
    assert {r["id"]: r["name"] for r in rows} == {int(i): p["name"] for i, p in load_data()["products"].items()}


async def test_a_load_that_fails_changes_nothing(
    bench: Bench, shop: Faulty, database: Database, embedder: MiniLm
) -> None:
    await load(bench, database, embedder)
    await database.execute("UPDATE product SET content_hash = 'old'")
    shop.arm("refused", at=20, times=10_000)
    with pytest.raises((ToolError, ExceptionGroup)):
        await load(bench, database, embedder)
    assert await database.fetch("SELECT DISTINCT content_hash FROM product") == [{"content_hash": "old"}]


async def test_a_real_stores_products_can_be_loaded(
    http: httpx.AsyncClient, database: Database, embedder: MiniLm, bench: Bench
) -> None:
    answers = {"GET products": "05"}
    for product in recording("05")["response"]["json"]:
        answers[f"GET products/{product['id']}/variations"] = "37" if product["type"] != "variable" else "20"
    with serving(replaying(answers)) as url:
        shop = Shop(url, KEY.consumer_key, KEY.consumer_secret)
        report = await load_catalog(shop, database.tenant("wp"), embedder, "wp", http)
    assert report.products == 18
    tools = bench.with_(database=database.tenant("wp"), embedder=embedder)
    hits = await tools.call("catalog.search_products", query="something warm with a hood", limit=3)
    assert any("Hoodie" in hit["name"] for hit in hits)


def test_the_model_reports_to_nobody(tmp_path: Path) -> None:
    """What its library would report it keeps in the home folder first."""
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    program = "import asyncio; from servers.catalog.embedding import MiniLm; asyncio.run(MiniLm().embed(['a']))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], env=environment, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == []
    subprocess.run([sys.executable, "-c", "import onnxruntime"], env=environment, check=True, timeout=60)
    assert list(tmp_path.rglob("*.db"))  # so it would be seen


def test_a_stores_markup_and_missing_prices_become_plain_values() -> None:
    grouped = next(p for p in recording("05")["response"]["json"] if p["type"] == "grouped")
    row = product_row(grouped, [])
    assert "<" not in row.description
    assert row.variants == []
    priceless = product_row(dict(grouped) | {"price": ""}, [])
    assert (priceless.price_from, priceless.price_to) == (None, None)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("warm clothing for cold weather", {"Fleece Jacket"}),
        ("listen to music without wires", {"Wireless Earbuds", "Bluetooth Speaker", "Headphones"}),
        ("a machine to clean my carpet", {"Vacuum Cleaner"}),
        ("boil water for tea", {"Electric Kettle", "Tea Kettle"}),
        ("fleece jacket", {"Fleece Jacket"}),
    ],
)
async def test_search_finds_by_meaning(query: str, wanted: set[str], catalog: Bench) -> None:
    hits = await catalog.call("catalog.search_products", query=query, limit=3)
    assert hits[0]["name"] in wanted
    assert [h["score"] for h in hits] == sorted((h["score"] for h in hits), reverse=True)


async def test_a_category_lists_its_products_whatever_the_case(catalog: Bench) -> None:
    hits = await catalog.call("catalog.search_by_category", category="clothing")
    assert [h["name"] for h in hits] == ["Fleece Jacket", "T-Shirt"]


async def test_no_category_lists_the_whole_catalogue(catalog: Bench) -> None:
    hits = await catalog.call("catalog.search_by_category")
    assert len(hits) == len(load_data()["products"])
    assert len(json.dumps(hits)) < 12_000, "a list is for reading"


async def test_an_unknown_category_is_answered_with_the_likely_one(catalog: Bench) -> None:
    with pytest.raises(ToolNotFound, match="Did you mean 'Clothing'") as error:
        await catalog.call("catalog.search_by_category", category="Clothes")
    assert "Kitchen" in error.value.hint


async def test_a_page_has_description_options_and_variants(catalog: Bench) -> None:
    raw = load_data()["products"]["9523456873"]
    page = await catalog.call("catalog.get_complete_page_details", product_id=9523456873)
    prices = [v["price"] for v in raw["variants"].values()]
    assert (page["name"], page["price_from"], page["price_to"]) == ("T-Shirt", str(min(prices)), str(max(prices)))
    assert set(page["attributes"]["size"]) == {v["options"]["size"] for v in raw["variants"].values()}
    live = await catalog.call("woocommerce.get_product_details", product_id=9523456873)
    assert page["variants"] == live["variants"]
    with pytest.raises(ToolNotFound):
        await catalog.call("catalog.get_complete_page_details", product_id=1)


async def test_a_tenants_catalogue_is_its_own(catalog: Bench, database: Database) -> None:
    other = catalog.with_(tenant="other", database=database.tenant("other"))
    assert await other.call("catalog.search_products", query="t-shirt") == []
    assert await other.call("catalog.search_by_category") == []
    with pytest.raises(ToolNotFound):
        await other.call("catalog.get_complete_page_details", product_id=9523456873)


async def test_a_tenant_cannot_write_rows_of_another(database: Database) -> None:
    with pytest.raises(Exception, match="row-level security"):
        async with database.tenant("a").transaction() as rows:
            await rows.execute(
                "INSERT INTO handover (tenant, session, summary, idempotency_key) VALUES ('b', 's', 'x', 'k')"
            )


async def test_tools_see_no_table_but_theirs(database: Database) -> None:
    for table in ("session", "cell", "call", "migration"):
        with pytest.raises(Exception, match="permission denied"):
            async with database.tenant("a").transaction() as rows:
                await rows.fetch(f"SELECT * FROM {table}")


async def test_a_hand_over_is_kept_once(bench: Bench, database: Database) -> None:
    tools = bench.with_(database=database.tenant("retail"))
    first = await tools.call("support.hand_over", summary="wants a person")
    assert first["status"] == "waiting"
    assert await tools.with_(resuming=True).call("support.hand_over", summary="wants a person") == first
    second = await tools.with_(idempotency_key="key-2").call("support.hand_over", summary="again")
    assert second["id"] != first["id"]
    rows = await database.fetch("SELECT tenant, session, summary FROM handover ORDER BY id")
    assert rows[0] == {"tenant": "retail", "session": "s1", "summary": "wants a person"}
    assert len(rows) == 2


async def test_without_a_database_the_tool_says_so(bench: Bench) -> None:
    with pytest.raises(ToolDenied, match="No database"):
        await bench.call("support.hand_over", summary="x")


async def test_like_texts_have_like_vectors_whatever_else_is_embedded() -> None:
    embedder = MiniLm()
    texts = ["a warm jacket", "vacuum cleaner", "fleece jacket", "x " * 2000]
    together = await embedder.embed(texts)
    alone = [(await embedder.embed([text]))[0] for text in texts]

    def product(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert all(len(v) == embedder.dimensions for v in together)
    assert all(product(a, b) == pytest.approx(1, abs=1e-3) for a, b in zip(together, alone, strict=True))
    assert product(together[0], together[2]) > 0.5 > product(together[0], together[1])
    assert await embedder.embed([]) == []
