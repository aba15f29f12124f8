"""Return types learned from results: what is kept, what is never kept, and how it grows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from foreign_world import undeclared
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.foreign.observing import LIMITS, Seen, is_data, merged, observe, with_observed
from servers.foreign.record import Definition
from servers.foreign.tool import foreign_tool
from servers.rendering import pyi, stub
from servers.tool import Tool


async def call(ctx: object, args: dict[str, Any]) -> Any:
    return args


def learned(*results: object, **declared: Any) -> Tool:
    seen = Seen()
    for result in results:
        seen = merged(seen, observe(result))
    return with_observed(foreign_tool("things", Definition("get-thing", "Get it.", {}, **declared), call=call), seen)


def returns(*results: object) -> str:
    return learned(*results).signature.removeprefix("get_thing() -> ")


def test_keys_of_all_results_are_known_and_may_be_absent() -> None:
    tool = learned({"id": 1, "owner": {"name": "A"}}, {"id": "x", "tags": ["a"], "owner": None})
    assert tool.signature == "get_thing() -> GetThingResult"
    assert pyi("", [tool]).split("\n\n")[2:4] == [
        "class GetThingResult(TypedDict):\n"
        '    """observed, n=2"""\n'
        "    id: NotRequired[int | str]\n"
        "    owner: NotRequired[GetThingResultOwner | None]\n"
        "    tags: NotRequired[list[str]]",
        'class GetThingResultOwner(TypedDict):\n    """observed, n=2"""\n    name: NotRequired[str]',
    ]
    assert "Return type: observed, n=2" in stub(tool)


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ([[1, 2.5]], "list[float]"),
        ([[]], "list[Any]"),
        ([{}], "dict[str, Any]"),
        ([None, "a"], "str | None"),
        ([{"anna@example.com": 1, "bob@example.com": 2}], "dict[str, int]"),
        ([{"2026-01-02": {"high": 1.0}}], "dict[str, GetThingResultValue]"),
        ([{"Anna": {"age": 1}, "Bob": {"age": 2}, "Cy": {"age": 3}}], "dict[str, GetThingResultValue]"),
        ([{f"k{'abcdefghijklmnopqrstuvwxyz'[n % 26]}{'xyz'[n // 26]}": n for n in range(40)}], "dict[str, int]"),
        ([{"id": 1}, {"4711": 2}], "dict[str, int]"),
        ([{chr(97 + n) * (m + 1): m for m in range(3)} for n in range(25)], "dict[str, int]"),
    ],
)
def test_results_have_a_type(results: list[object], text: str) -> None:
    assert returns(*results) == text


def test_declared_result_is_not_replaced() -> None:
    tool = learned({"id": 1}, output_schema={"type": "object"})
    assert tool.signature == "get_thing() -> dict[str, Any]"


@pytest.mark.parametrize(
    "key", ["id", "created_at", "@type", "$schema", "nextPageToken", "sha256", "line1", "x-total", "URL"]
)
def test_names_of_fields_are_kept(key: str) -> None:
    assert not is_data(key)


@pytest.mark.parametrize(
    "key",
    [
        "a@b.example",
        "+41 44 123",
        "1234",
        "Anna Meier",
        "cus_NffrFeUfNV2Hib9",
        "2026-01-02",
        "",
        "x" * 50,
        "a\nb",
        "\u202e",
    ],
)
def test_names_that_are_data_are_not_kept(key: str) -> None:
    assert is_data(key)
    assert key not in msgspec.json.encode(observe({key: 1})).decode() or key == ""


SECRET = "Meier-4711-secret"
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.just(SECRET)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from("abcdef"), st.text()), inner, max_size=6)
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(values, min_size=1, max_size=5))
def test_no_value_is_kept_and_the_order_of_two_is_no_matter(results: list[Any]) -> None:
    tool = learned(*results)
    text = pyi("", [tool])
    assert SECRET not in text
    assert undeclared(text, [tool]) == []
    seen = [observe(result) for result in results]
    assert msgspec.json.decode(msgspec.json.encode(seen), type=list[Seen]) == seen
    assert SECRET not in msgspec.json.encode(seen).decode()
    assert merged(seen[0], seen[-1]) == merged(seen[-1], seen[0])


def test_size_is_bounded_whatever_comes() -> None:
    deep: Any = "x"
    for _ in range(3_000):
        deep = {"a": [deep]}
    wide = {f"{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}": [{"x": n}] * 10_000 for n in range(600)}
    seen = merged(observe(deep), observe(wide))
    assert len(msgspec.json.encode(seen)) < 10_000
    assert LIMITS.depth < 20
