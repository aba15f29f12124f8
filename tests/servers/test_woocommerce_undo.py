"""What people are shown of a write to the store before it is made, and the call that takes it back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from staff_cases import SECRET, WRITES, arguments
from tool_bench import Bench

from servers.preview import Done
from servers.registry import Registry, load_registry
from servers.tool import Tool

_STAFF = {tool.name: tool for tool in load_registry().of_server("woocommerce") if tool.name in WRITES}
SHOWN = [name for name, tool in _STAFF.items() if tool.preview is not None]
UNDONE = [name for name, tool in _STAFF.items() if tool.undo is not None]
#: They have no target, or no fields that anybody could compare.
PLAIN = {"send_order_note"}


@pytest.fixture
def desk(bench: Bench) -> Bench:
    assert bench.context.shop is not None
    return bench.with_(shop=replace(bench.context.shop, webhook_secret=SECRET))


async def preview_of(desk: Bench, tool: Tool, args: dict[str, Any]) -> Any:
    assert tool.preview is not None
    return await tool.preview(desk.context, **tool.validate(args))


@pytest.mark.parametrize("name", SHOWN)
async def test_a_preview_says_what_the_call_then_does(name: str, desk: Bench, written: Any) -> None:
    tool = desk.registry.get(f"woocommerce.{name}")
    args = await arguments(desk, name, WRITES[name])
    before = written()
    preview = await preview_of(desk, tool, args)
    assert written() == before  # it has only looked
    assert preview.target
    assert name in PLAIN or preview.before != preview.after
    await desk.with_(idempotency_key=f"call-{name}").call(tool.qualified_name, **args)
    if preview.before.keys() == preview.after.keys() and tool.effect == "write" and "trash" not in name:
        assert (await preview_of(desk, tool, args)).before == preview.after


@pytest.mark.parametrize("name", UNDONE)
async def test_what_a_tool_did_is_taken_back_by_its_undo(name: str, desk: Bench) -> None:
    tool = desk.registry.get(f"woocommerce.{name}")
    args = await arguments(desk, name, WRITES[name])
    preview = None if tool.preview is None else await preview_of(desk, tool, args)
    result = await desk.with_(idempotency_key=f"call-{name}").call(tool.qualified_name, **args)
    assert tool.undo is not None
    plain = msgspec.to_builtins(tool.validate(args))
    undo = tool.undo(Done(plain, result, {} if preview is None else preview.before))
    assert undo is not None
    assert desk.registry.get(f"woocommerce.{undo.tool}").effect != "read"
    await desk.with_(idempotency_key=f"undo-{name}").call(f"woocommerce.{undo.tool}", **undo.args)
    if preview is not None:
        assert (await preview_of(desk, tool, args)).before == preview.before


def test_without_the_former_values_nothing_is_guessed(registry: Registry) -> None:
    for name, args in (
        ("update_product", {"product_id": 1, "regular_price": "2.00"}),
        ("set_order_status", {"order_id": 1, "status": "completed"}),
        ("set_stock", {"product_id": 1, "variation_id": None, "quantity": 3}),
    ):
        undo = registry.get(f"woocommerce.{name}").undo
        assert undo is not None
        assert undo(Done(args, {}, {})) is None
    undo = registry.get("woocommerce.update_product").undo
    assert undo is not None
    assert undo(Done({"product_id": 1, "name": "x"}, {}, {"name": "cut…"})) is None


def test_critical_tools_of_the_store_show_what_they_do(registry: Registry) -> None:
    silent = {t.name for t in registry.of_server("woocommerce") if t.effect == "critical" and t.preview is None}
    assert silent == {"create_webhook", "delete_order_note"}


async def test_a_cancellation_shows_whose_order_and_how_much(desk: Bench) -> None:
    (order,) = await desk.call("woocommerce.find_orders", status="pending", limit=1)
    tool = desk.registry.get("woocommerce.cancel_order")
    preview = await preview_of(desk, tool, {"order_id": order["id"], "reason": "no longer needed"})
    assert (preview.amount, preview.before, preview.after) == (
        order["total"],
        {"status": "pending"},
        {"status": "cancelled"},
    )
    assert str(order["number"]) in preview.target
