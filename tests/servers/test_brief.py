"""The stubs that a model's prompt holds: complete, and each thing said once."""

from __future__ import annotations

import pytest

from servers.brief import brief
from servers.registry import load_registry


@pytest.fixture(scope="module")
def text() -> str:
    registry = load_registry()
    names = ("catalog.get_complete_page_details", "woocommerce.lookup_order", "woocommerce.get_product_details")
    writes = ("woocommerce.return_items", "woocommerce.exchange_items")
    return brief(registry.get(name) for name in (*names, *writes))


def test_every_tool_stands_with_its_parameters_effect_and_first_line(text: str) -> None:
    assert (
        "\nreturn_items(order_id: int | str, item_ids: list[int], payment_method_id) -> Order"
        "  [write] Request the return of items of a completed (delivered) order."
    ) in text


def test_a_default_is_shown() -> None:
    assert "list_orders(customer_id: int, status='any', limit: int=20)" in brief(
        [load_registry().get("woocommerce.list_orders")]
    )


def test_types_that_results_are_made_of_stand_before_the_tools(text: str) -> None:
    assert text.index("LineItem{") < text.index("\nOrder{") < text.index("lookup_order(")


def test_a_type_that_two_servers_share_is_said_once(text: str) -> None:
    assert text.count("Variant{") == 1


def test_a_parameter_that_tools_share_is_described_once(text: str) -> None:
    assert text.count("payment_method_id: one of the customer's payment_methods") == 1


def test_a_key_that_may_be_absent_is_marked_where_it_is_described_and_else_left_out(text: str) -> None:
    assert "items_modified?: bool (true: " in text
    assert "cancel_reason" not in text
    assert ", ...}" in text


def test_what_only_reads_is_not_marked(text: str) -> None:
    assert "[read]" not in text
    assert "[write]" in text


def test_parameters_that_are_a_types_keys_are_named_by_it() -> None:
    registry = load_registry()
    text = brief(registry.get(f"woocommerce.{name}") for name in ("lookup_order", "change_order_address"))
    assert "change_order_address(order_id: int | str, **Address) -> Order" in text
