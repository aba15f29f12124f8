"""Secrets in every spelling in which they turn up."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from gateway.broker.scrub import Scrubber, secrets_of
from gateway.settings import load_settings

SECRET = 'pa"ss/wörd+1'


@pytest.mark.parametrize(
    "spelled",
    [
        SECRET,
        quote(SECRET, safe=""),
        json.dumps(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        f"postgresql://u:{SECRET}@host/x",
    ],
)
def test_a_known_secret_is_removed_however_it_is_spelled(spelled: str) -> None:
    cleaned = Scrubber([SECRET]).known(f"before {spelled} after")
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")
    assert "[secret]" in cleaned
    assert "rd+1" not in cleaned
    assert "rd%2B1" not in cleaned


def test_a_secret_that_begins_another_leaves_no_rest() -> None:
    assert Scrubber(["abcdef", "abcdefghi"]).known("x abcdefghi y abcdef") == "x [secret] y [secret]"


@pytest.mark.parametrize(
    "text",
    [
        "GET /orders?consumer_key=ck_1&consumer_secret=s3cr3t-one",
        "Authorization: Basic Y2tfMTpzM2NyM3Qtb25l",
        "Bearer s3cr3t-one.and.more",
        "postgresql://user:s3cr3t-one@db/x",
        "key cs_0123456789abcdef0123456789abcdef s3",
        "sk-proj-0123456789abcdef0123",
        "key omk_0123456789ab_s3cr3t-one-0123456789-0123456789-0123456789 of",
        "jwt eyJhbGciOi0123456789.eyJzdWIiOi0123456789.s3cr3t-one-0123456789",
    ],
)
def test_what_looks_like_a_credential_is_removed_from_errors(text: str) -> None:
    cleaned = Scrubber().text(text)
    assert "[secret]" in cleaned
    for part in ("s3cr3t-one", "Y2tfMTpz", "0123456789"):
        assert part not in cleaned


@pytest.mark.parametrize(
    "text", ["ticket ck_1", "the basic plan", "token economy", "https://shop.example/a:b", "order #W2611340, 12.30"]
)
def test_ordinary_words_stay(text: str) -> None:
    assert Scrubber(["ab"]).text(text) == text


def test_nested_data_is_cleaned_and_keeps_its_shape() -> None:
    cleaned = Scrubber(["hunter2222"]).tree({"hunter2222": [("a", 1, None, "is hunter2222")]})
    assert cleaned == {"[secret]": [["a", 1, None, "is [secret]"]]}


def test_every_secret_setting_is_known() -> None:
    shop = {"url": "https://x.example", "consumer_key": "ck_the_key", "consumer_secret": "cs_the_secret"}
    settings = load_settings(
        database_url="postgresql://user:db-password@host/x",
        openai_api_key="sk-the-key",
        server={"token": "the-token"},
        tenants={"acme": {"shop": shop}},
    )
    basic = base64.b64encode(b"ck_the_key:cs_the_secret").decode()
    assert {"db-password", "sk-the-key", "the-token", "ck_the_key", "cs_the_secret", basic} <= secrets_of(settings)
