"""The calls of a cell turn, counted as the direct turn that they would have been."""

from __future__ import annotations

import json
from typing import Any

from actor_doubles import GRANT, Tools, function
from conversation import Turns
from model_double import Endpoint, calls, says

from gateway.agent.counterfactual import direct_turn
from gateway.agent.direct import DirectActor
from gateway.tokens import Ledger, TurnTokens
from gateway.types import CallRecord
from servers.errors import ToolInputError

FUNCTIONS = {"shop.lookup": function("shop__lookup", order_id={"type": "string"})}


def record(order_id: str, **changed: Any) -> CallRecord:
    fields: dict[str, Any] = {
        "session": "s1",
        "cell": "c1",
        "tool": "shop.lookup",
        "args": {"order_id": order_id},
        "occurrence": 0,
        "effect": "read",
        "state": "applied",
        "replayed": False,
        "result": {"id": order_id, "status": "pending"},
    }
    return CallRecord(**(fields | changed))


async def counted(*records: CallRecord) -> TurnTokens:
    tokens, _ = await direct_turn(
        system="Call functions.",
        functions=FUNCTIONS,
        history=[],
        message="Where are my orders?",
        calls=records,
        answer="Both are pending.",
        ledger=Ledger(),
    )
    return tokens


async def test_it_equals_what_the_direct_arm_really_sends(double: Endpoint, direct_turns: Turns, tools: Tools) -> None:
    arguments = [json.dumps({"order_id": name}, separators=(",", ":")) for name in ("W1", "W2")]
    double.script = [*(calls(("shop__lookup", text)) for text in arguments), says("Both are pending.")]
    real = await direct_turns.run("Where are my orders?")
    imagined = await counted(record("W1"), record("W2"))
    assert imagined.requests == real.tokens.requests


async def test_a_failed_call_costs_its_error(double: Endpoint, direct: DirectActor, direct_turns: Turns) -> None:
    double.script = [calls(("shop__lookup", '{"order_id":5}')), says("Both are pending.")]
    real = await direct_turns.run("Where are my orders?")
    error = ToolInputError("lookup: order_id must be a string", hint="order_id='W1'")
    failed = {"type": "ToolInputError", "message": error.message, "retryable": False, "hint": error.hint}
    imagined = await counted(record("", args={"order_id": 5}, state="failed", result=None, error=failed))
    assert imagined.requests == real.tokens.requests


async def test_calls_answered_from_the_journal_count_once() -> None:
    once = await counted(record("W1"))
    again = await counted(record("W1"), record("W1", replayed=True))
    assert once == again


async def test_a_turn_without_calls_is_one_request() -> None:
    assert len((await counted()).requests) == 1


async def test_messages_carry_over_to_the_next_turn() -> None:
    ledger = Ledger()
    common: dict[str, Any] = {"system": "Call functions.", "functions": FUNCTIONS, "answer": "Yes.", "ledger": ledger}
    first, messages = await direct_turn(history=[], message="One?", calls=[record("W1")], **common)
    second, _ = await direct_turn(history=messages, message="Two?", calls=[], **common)
    assert GRANT.session not in repr(messages)
    assert second.requests[0].input > first.requests[-1].input
    assert len(ledger.requests) == 3
