"""What the store itself has of a person: part of the export, and said to be missing where the store does not answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from gateway_world import ShopProcess, own_database, running_shop, settings_for
from gdpr_world import contents, export, json_lines, opened

from gateway.runtime import Gateway, open_gateway
from gateway.types import Grant
from servers.errors import UpstreamError

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRANT = Grant(tenant="shop", principal="ada", session="asking", role="operator")


@pytest.fixture(scope="module")
def shop() -> AsyncIterator[ShopProcess]:
    with running_shop() as shop:
        yield shop  # type: ignore[misc]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(postgres: str, shop: ShopProcess, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    with own_database(postgres) as url:
        more = {"pool": {"provisioner": "local", "warm": 0, "preload": ()}, "gdpr": {"look_s": 3600}}
        settings = settings_for(tmp_path_factory.mktemp("store"), url, shop, **more)
        async with open_gateway(settings) as gateway:
            yield gateway


async def test_account_and_orders_come_from_the_store_found_by_e_mail(gateway: Gateway, shop: ShopProcess) -> None:
    state = shop.state()
    orders = state["orders"].values() if isinstance(state["orders"], dict) else state["orders"]
    order = next(each for each in orders if each["customer_id"])
    customer, email = order["customer_id"], order["billing"]["email"]
    theirs = {each["id"] for each in orders if each["customer_id"] == customer}
    report = await export(gateway, GRANT, email.upper())
    files = contents(opened(gateway.data_dir.path, "shop", report["export"]))
    manifest = json.loads(files["manifest.json"])
    assert manifest["subject"] == {"emails": [email], "customer_ids": [customer]}
    [account] = json_lines(files["store/customers.ndjson"])
    assert (account["id"], account["email"]) == (customer, email)
    assert {each["id"] for each in json_lines(files["store/orders.ndjson"])} == theirs
    assert {each["customer_id"] for each in json_lines(files["store/orders.ndjson"])} == {customer}
    assert {each["order"] for each in json_lines(files["store/notes.ndjson"])} <= theirs
    assert "store/reviews" in manifest, (manifest["incomplete"], manifest["files"])
    assert manifest["complete"] is True


async def test_a_store_that_does_not_answer_makes_an_export_incomplete_and_an_erasure_wait(
    gateway: Gateway, shop: ShopProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured = gateway.settings.tenants["shop"]
    assert configured.shop is not None
    away = configured.model_copy(update={"shop": configured.shop.model_copy(update={"url": "http://127.0.0.1:9"})})
    monkeypatch.setitem(gateway.contexts._tenants, "shop", away)
    report = await export(gateway, GRANT, "bo@mail.example", 7)
    manifest = json.loads(contents(opened(gateway.data_dir.path, "shop", report["export"]))["manifest.json"])
    assert manifest["complete"] is False
    assert {each.partition(":")[0] for each in report["incomplete"]} >= {"store, customers", "store, orders"}
    assert "127.0.0.1:9" in report["incomplete"][0]
    with pytest.raises(UpstreamError, match="Not all ids"):
        async for _ in gateway.office.for_call(GRANT, "k").erase("bo@mail.example", 7, ""):
            pass
    assert await gateway.database.fetch("SELECT FROM gdpr_erasure") == []
