"""Tokens: whose they are, where they stand in a request."""

from __future__ import annotations

import pytest

from gateway.auth import Principal, Tokens, token_of


@pytest.mark.parametrize(
    ("header", "query", "token"),
    [
        ("Bearer abc", "", "abc"),
        ("token abc", "def", "abc"),
        ("TOKEN  abc ", "", "abc"),
        ("Basic abc", "def", "def"),
        ("", "def", "def"),
        ("", "", ""),
        ("Bearer", "", ""),
    ],
)
def test_the_headers_token_goes_before_the_querys(header: str, query: str, token: str) -> None:
    assert token_of(header, query) == token


def test_each_token_has_its_principal() -> None:
    tokens = Tokens("operator-token", {"shop": "shop-token"})
    assert tokens.principal("operator-token") == Principal("operator", "admin", unlimited=True)
    assert tokens.principal("shop-token") == Principal("tenant:shop", "tenant", "shop")
    for wrong in ("", "operator-toke", "operator-token ", "\ud800", "x" * 100_000):
        assert tokens.principal(wrong) is None


def test_only_the_operator_reaches_every_tenant() -> None:
    assert Principal("operator", "admin").may_reach("shop")
    assert Principal("a", "agent", "shop").may_reach("shop")
    assert not Principal("a", "agent", "shop").may_reach("other")


@pytest.mark.parametrize("tenants", [{"a": "same", "b": "same"}, {"a": "operator"}, {"a": ""}])
def test_a_token_cannot_stand_for_two_or_be_empty(tenants: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="token"):
        Tokens("operator", tenants)
