"""Every task of the package: the scripted cells, run with the product's tools, against the package's own tools."""

from __future__ import annotations

import ast
import contextlib
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from shop_double import Conversation, ShopDouble

from demo import check, tau
from demo.model.script import Script
from demo.model.solution import customer_message, solve
from demo.services import POLICY
from gateway.agent.prompt import cells_prompt
from gateway.settings import AgentSettings
from servers.registry import load_registry

TASKS = tau.load_tasks()
#: The tasks about which the reference is wrong; see `tau.mixes_items`.
MIXED = {"20", "21", "36", "37", "100"}


def solved(task: tau.Task, reference: tau.Reference) -> tuple[Script, tau.RetailData]:
    """The task's script, and what the reference makes of the shop."""
    outcome = reference.run(task.actions)
    return solve(task, tau.load_data(), outcome.refused), outcome.state


@contextlib.contextmanager
def corrected(reference: tau.Reference) -> Iterator[tau.Reference]:
    """The reference with its one mistake put right: each changed item gets its own price and options."""
    wrong = reference._tools.modify_pending_order_items

    def right(tools: Any, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str) -> Any:
        order = wrong(tools, order_id, item_ids, new_item_ids, payment_method_id)
        for item in order.items:
            if item.item_id in new_item_ids:
                variant = tools.db.products[item.product_id].variants[item.item_id]
                item.price, item.options = variant.price, variant.options
        return order

    right.__dict__.update(wrong.__dict__)
    reference._tools.modify_pending_order_items = right
    try:
        yield reference
    finally:
        reference._tools.modify_pending_order_items = wrong


@cache
def prompt() -> str:
    everyday = AgentSettings().everyday_tools
    return cells_prompt(load_registry(), everyday, shop="demo", policy=POLICY.read_text())


def untold(code: str, told: str) -> list[object]:
    """What a cell names and nobody has told the model: a script that knows more than its prompt would be a cheat."""
    tree = ast.parse(code)
    own_words = {
        id(each)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("reply", "hand_over")
        for each in ast.walk(call)
    }
    named = [
        each.value
        for each in ast.walk(tree)
        if isinstance(each, ast.Constant) and isinstance(each.value, str | int) and id(each) not in own_words
    ]
    return [value for value in named if len(str(value)) > 1 and str(value).lower() not in told]


def play(script: Script, conversation: Conversation) -> list[str]:
    """Run the script's cells; where they went otherwise than the script says, or knew what they could not."""
    surprises = []
    told = f"{prompt()}\n{script.message}".lower()
    for step in script.steps:
        before = len(conversation.calls)
        if unknown := untold(step.code, told):
            surprises.append(f"nobody has told the model {unknown}, in:\n{step.code}")
        shown, error = conversation.run(step.code)
        told += shown.lower()
        if (error is not None) != step.refused:
            surprises.append(f"error {error!r}, refused {step.refused}, in:\n{step.code}")
        if conversation.calls[before:] != list(step.calls):
            surprises.append(f"calls {conversation.calls[before:]} instead of {step.calls}")
    if conversation.replies not in ([], [script.answer]):
        surprises.append(f"replies {conversation.replies}")
    return surprises


@pytest.mark.parametrize("task", [t for t in TASKS if t.id not in MIXED], ids=lambda task: task.id)
def test_cells_leave_the_shop_as_the_reference_does(
    task: tau.Task, reference: tau.Reference, conversation: Conversation, shop: ShopDouble
) -> None:
    script, expected = solved(task, reference)
    assert play(script, conversation) == []
    assert check.differences(expected, shop.state()) == []


@pytest.mark.parametrize("task", [t for t in TASKS if t.id in MIXED], ids=lambda task: task.id)
def test_excluded_task_agrees_once_the_references_mistake_is_corrected(
    task: tau.Task, reference: tau.Reference, conversation: Conversation, shop: ShopDouble
) -> None:
    script, mistaken = solved(task, reference)
    assert play(script, conversation) == []
    assert check.differences(mistaken, shop.state()) != []
    with corrected(reference) as right:
        assert check.differences(right.run(task.actions).state, shop.state()) == []


def test_the_rule_names_exactly_the_tasks_that_the_reference_gets_wrong() -> None:
    assert {task.id for task in TASKS if tau.mixes_items(task)} == MIXED


def test_direct_calls_alone_leave_the_same_state(
    reference: tau.Reference, conversation: Conversation, shop: ShopDouble
) -> None:
    script, expected = solved(next(task for task in TASKS if task.id == "98"), reference)
    for call, _ in script.calls:
        conversation.call(call.tool, call.arguments)
    assert check.differences(expected, shop.state()) == []


def test_messages_tell_the_tasks_apart() -> None:
    assert len({customer_message(task) for task in TASKS}) == len(TASKS)


def test_a_state_that_differs_is_reported_with_its_place(reference: tau.Reference, shop: ShopDouble) -> None:
    expected = reference.run(TASKS[0].actions).state
    found = check.differences(expected, shop.state())
    assert "orders.#W2378156.status: the shop has 'delivered', the reference 'exchange requested'" in found
    assert len(found) == 5


def test_reference_reports_what_it_refuses(reference: tau.Reference) -> None:
    task = next(task for task in TASKS if task.id == "12")
    refused = reference.run(task.actions).refused
    assert list(refused.values()) == ["Payment method should be the original payment method"]
    assert [task.actions[position].name for position in refused] == ["return_delivered_order_items"]


def test_importing_the_reference_leaves_the_environment_alone() -> None:
    before = dict(os.environ)
    tau.Reference()
    assert dict(os.environ) == before


def test_a_cell_that_knows_what_nobody_told_is_found() -> None:
    code = 'from servers.support import reply\nprint(orders["W1"]["colour"])\nreply(text="Done, 4711.")'
    assert untold(code, "order w1") == ["colour"]


def test_the_answer_comes_from_the_last_cell_where_nothing_is_left_to_be_seen(reference: tau.Reference) -> None:
    asked, unasked = (next(task for task in TASKS if task.id == id) for id in ("54", "0"))
    assert "reply(" not in solved(asked, reference)[0].steps[-1].code
    assert "reply(" in solved(unasked, reference)[0].steps[-1].code
