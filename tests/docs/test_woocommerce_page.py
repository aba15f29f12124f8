"""The page on WooCommerce says what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import ShopSettings
from servers.reference import table
from servers.registry import load_registry
from servers.woocommerce import batch, client, create
from servers.woocommerce.arguments import Limit
from servers.woocommerce.deliveries import signature, topic_secret
from servers.woocommerce.tools import batches

PAGE = (Path(__file__).parents[2] / "docs" / "woocommerce.md").read_text()


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return str(found)


def test_the_table_is_the_registrys() -> None:
    assert PAGE.endswith("\n\n" + table(load_registry(), "woocommerce")), "run python -m servers.reference woocommerce"


def test_the_settings_are_understood_and_those_not_needed_are_the_defaults() -> None:
    given = tomllib.loads(block("toml"))["tenants"]["acme"]["shop"]
    shop = ShopSettings(**given)
    bare = ShopSettings(**{name: given[name] for name in ("url", "consumer_key", "consumer_secret")})
    for name in ("timeout_s", "in_flight", "requests_per_s"):
        assert getattr(shop, name) == getattr(bare, name)


def test_the_figures_are_the_codes() -> None:
    [meta] = Limit.__metadata__  # type: ignore[attr-defined]
    assert f"at most {meta.le:,} rows. Pages hold {client.PAGE_SIZE}" in PAGE
    assert f"at most {batches.MOST:,} items" in PAGE
    assert batch.BATCH_SIZE == 100
    assert f"among the {create.SCAN_PAGES * client.PAGE_SIZE:,} newest" in PAGE
    assert client.READ_ATTEMPTS == 3
    assert f"up to {client.LONGEST_WAIT:g} s" in PAGE


def test_the_receiver_takes_what_is_genuine(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    space: dict[str, Any] = {"WEBHOOK_SECRET": secret}
    exec(compile(block("python"), "docs/woocommerce.md", "exec"), space)
    body, topic = b'{"id":7,"name":"Mug"}', "product.updated"
    headers = {
        "X-WC-Webhook-Source": "https://shop.example.com/",
        "X-WC-Webhook-Topic": topic,
        "X-WC-Webhook-ID": "1",
        "X-WC-Webhook-Signature": signature(topic_secret(secret, topic), body),
    }
    assert space["receive"](headers, body) == 200
    assert capsys.readouterr().out == "product.updated 7\n"
    assert space["receive"](headers, body) == 409
    assert space["receive"](headers, body + b" ") == 401
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert space["receive"](form, b"webhook_id=2") == 200
