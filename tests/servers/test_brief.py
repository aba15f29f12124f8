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


def test_a_key_that_may_be_absent_is_marked(text: str) -> None:
    assert "cancel_reason?" in text
