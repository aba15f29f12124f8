"""The page on the copy of a store: its commands and its cell run, its tables and settings are there."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from anyio.from_thread import start_blocking_portal
from loopback import listening
from own_database import own_database
from served_gateway import ServedGateway, environment, served
from starlette.types import ASGIApp
from typer.testing import CliRunner

from demo import tau
from demo.shop.app import create_app
from demo.shop.auth import Key
from demo.shop.seed import Seed, build
from gateway.cli import app
from gateway.settings import ShopSettings, TenantSettings
from gateway.settings_sync import SyncSettings
from servers.registry import load_registry
from servers.woocommerce.sync.copy import TABLES

PAGE = (Path(__file__).parents[2] / "docs" / "sync.md").read_text()

pytestmark = pytest.mark.timeout(300)


def block(language: str, holding: str = "") -> str:
    [found] = [each for each in re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S) if holding in each]
    return str(found)


@dataclass(frozen=True)
class Reader:
    gateway: ServedGateway
    database_url: str

    def count(self, table: str) -> int:
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        assert row is not None
        return int(row[0])


def _shop() -> ASGIApp:
    seed = build(tau.load_data())
    products = dict(sorted(seed.products.items())[:3])
    variations = {id: each for id, each in seed.variations.items() if each["parent_id"] in products}
    customers, orders = dict(sorted(seed.customers.items())[:4]), dict(sorted(seed.orders.items())[:5])
    return create_app(
        Seed(seed.categories, products, variations, customers, orders), [Key("ck_reader", "cs_reader")], ""
    )


@pytest.fixture(scope="module")
def reader(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    data = tmp_path_factory.mktemp("reader") / ".omniops"
    with (
        own_database(postgres) as url,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(listening(_shop())) as shop,
    ):
        keys = {"URL": shop, "CONSUMER_KEY": "ck_reader", "CONSUMER_SECRET": "cs_reader"}
        more = {f"OMNIOPS_TENANTS__ACME__SHOP__{name}": value for name, value in keys.items()}
        with served(data, environment(url, **more)) as gateway:
            yield Reader(gateway, url)


def test_the_commands_work_in_order(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reader.gateway.data_dir.parent)
    monkeypatch.setenv("COLUMNS", "240")
    told = []
    for line in block("sh").splitlines():
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/omniops"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{line}: {done.output} {done.exception!r}"
        told.append(done.output)
    everything, products, orders, runs = told
    assert '"products": {"created": 3' in re.sub(r"\s+", " ", everything).replace("{ ", "{")
    assert reader.count("store_order") == 5
    assert reader.count("store_customer") == 4
    assert "sync_store: " in everything, "progress is shown"
    assert '"products"' in products
    assert '"customers"' not in products
    assert '"unchanged": 5' in orders
    assert runs.count("woocommerce.sync_") == 3


def test_the_cell_works(reader: Reader) -> None:
    with reader.gateway.client() as http:
        id = str(http.post("/v1/sessions", json={"tenant": "acme", "role": "operator"}).json()["id"])
        answer = http.post(f"/v1/sessions/{id}/cells", json={"code": block("python")}).raise_for_status()
        http.delete(f"/v1/sessions/{id}").raise_for_status()
    printed: Any = answer.text
    assert "'failed': 0" in printed, printed
    assert reader.count("store_product") == 3


def test_the_tables_are_those_of_the_code(reader: Reader) -> None:
    rows = re.findall(r"^\| `(store_\w+)` \| [^|]+ \| (.*) \|$", PAGE, re.M)
    assert {name for name, _ in rows} == {*(table.name for table in TABLES.values()), "store_order_item"}
    columns = {name: set(re.findall(r"`(\w+)`", text)) for name, text in rows}
    for table in TABLES.values():
        assert columns[table.name] == set(table.columns)
    with psycopg.connect(reader.database_url) as connection:
        found = connection.execute("SELECT * FROM store_order_item LIMIT 0").description
    assert columns["store_order_item"] | {"tenant", "order_id"} == {column.name for column in found or ()}


def test_the_settings_are_the_defaults() -> None:
    given = tomllib.loads(block("toml", "shop.sync"))["tenants"]["acme"]["shop"]["sync"]
    shop = ShopSettings(url="https://shop.example.com", consumer_key="ck", consumer_secret="cs", sync=given)  # type: ignore[arg-type]
    assert shop.sync == SyncSettings()


def test_the_schedule_is_understood() -> None:
    [schedule] = TenantSettings(**tomllib.loads(block("toml", "schedules"))["tenants"]["acme"]).schedules
    assert load_registry().get(str(schedule.tool)).workload == "sync"
