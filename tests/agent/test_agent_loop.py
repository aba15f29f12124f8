"""Turns: a real endpoint plays the model; every turn ends in order, with its reason."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from actor_doubles import Notebook, Tools
from conversation import SYSTEM, Turns
from model_double import KEY, Endpoint, calls, chunk, fails, never_answers, runs, says, stream, trickles, usage

from gateway.agent.direct import DirectActor
from gateway.agent.types import Message, TurnResult
from kernel_pool.types import Exit, ExitReason, IsolationUnavailable, KernelGone, PoolExhausted, StartFailed


def assert_valid_history(messages: list[Message]) -> None:
    """What the API insists on: every call is answered right after it, by its id; no id twice; roles make sense."""
    open_calls: list[str] = []
    seen: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in open_calls
            open_calls.remove(message["tool_call_id"])
            continue
        assert open_calls == []
        for call in message.get("tool_calls", ()):
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            assert call["id"] not in seen
            seen.add(call["id"])
            open_calls.append(call["id"])
    assert open_calls == []
    assert messages[0]["role"] == "user"
    assert messages[-1]["role"] == "assistant"


def assert_ended(turns: Turns, result: TurnResult, reason: str) -> None:
    assert result.reason == reason
    assert turns.events[-1].kind == "end"
    assert turns.events[-1].data["reason"] == reason
    assert bool(result.message) == (reason != "answered")
    assert_valid_history(turns.history)
    assert KEY not in repr(turns.events) + repr(result)


async def test_plain_text_is_the_answer(double: Endpoint, turns: Turns) -> None:
    double.script = [says("It is on its way.")]
    result = await turns.run("Where is my order?")
    assert_ended(turns, result, "answered")
    assert result.answer == "It is on its way."
    assert turns.heard("answer") == [{"text": "It is on its way."}]
    assert "".join(str(event["text"]) for event in turns.heard("text")) == "It is on its way."


async def test_a_request_holds_system_history_and_message(double: Endpoint, turns: Turns) -> None:
    double.script = [says("Hello.")]
    await turns.run("Hi")
    await turns.run("And?")
    assert double.requests[1]["messages"] == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And?"},
    ]


async def test_state_stays_from_cell_to_cell(double: Endpoint, turns: Turns, notebook: Notebook) -> None:
    double.script = [runs("total = 41"), runs("total += 1\nprint(total)"), says("42.")]
    result = await turns.run()
    assert_ended(turns, result, "answered")
    assert "42" in double.requests[2]["messages"][-1]["content"]
    assert [run.code for step in result.steps for run in step.runs] == notebook.ran
    assert [event["status"] for event in turns.heard("cell")] == ["ok", "ok"]
    assert [event["code"] for event in turns.heard("step")] == notebook.ran


async def test_a_failing_cell_is_shown_and_the_loop_goes_on(double: Endpoint, turns: Turns) -> None:
    double.script = [runs("1 / 0"), runs("print('better')"), says("Done.")]
    result = await turns.run()
    assert_ended(turns, result, "answered")
    assert "ZeroDivisionError" in double.requests[1]["messages"][-1]["content"]
    assert "better" in double.requests[2]["messages"][-1]["content"]


async def test_several_cells_in_one_reply_run_in_order(double: Endpoint, turns: Turns, notebook: Notebook) -> None:
    double.script = [runs("a = 1", "b = a + 1", "print(b)"), says("2")]
    result = await turns.run()
    assert_ended(turns, result, "answered")
    assert notebook.ran == ["a = 1", "b = a + 1", "print(b)"]
    assert [m["role"] for m in double.requests[1]["messages"][-3:]] == ["tool"] * 3


async def test_a_cell_may_answer_and_no_further_request_is_made(double: Endpoint, turns: Turns) -> None:
    double.script = [runs("total = 42\nreply(f'It is {total}.')"), says("And?")]
    result = await turns.run()
    assert_ended(turns, result, "answered")
    assert result.answer == "It is 42."
    assert len(double.requests) == 1
    assert turns.heard("answer") == [{"text": "It is 42."}]
    assert [event["text"] for event in turns.heard("text")] == ["It is 42."]
    assert [call for step in result.steps for call in step.calls] == []
    await turns.run("And?")
    assert double.requests[1]["messages"][-2] == {"role": "assistant", "content": "It is 42."}


async def test_what_a_cell_answered_before_it_failed_is_not_sent(double: Endpoint, turns: Turns) -> None:
    double.script = [runs("reply('Cancelled.')\n1 / 0"), says("I could not cancel it.")]
    result = await turns.run()
    assert_ended(turns, result, "answered")
    assert result.answer == "I could not cancel it."
    assert "Cancelled." not in repr(turns.events[1:])


async def test_the_last_cell_of_a_reply_has_the_word(double: Endpoint, turns: Turns) -> None:
    double.script = [runs("reply('First.')", "x = 1"), says("Second.")]
    assert (await turns.run()).answer == "Second."
    double.script = [runs("reply('First.')", "reply('Again.')\nreply('Third.')")]
    assert (await turns.run()).answer == "Third."


async def test_an_endless_loop_of_cells_ends_at_the_step_limit(double: Endpoint, turns: Turns) -> None:
    double.script = [runs("print('again')")]
    result = await turns.run(max_steps=4)
    assert_ended(turns, result, "max_steps")
    assert len(double.requests) == 4
    assert "4 steps" in result.message


BAD = {
    "malformed JSON": calls(("run_cell", '{"code": "print(1)')),
    "no object": calls(("run_cell", '["print(1)"]')),
    "wrong type": calls(("run_cell", '{"code": 5}')),
    "wrong name of the argument": calls(("run_cell", '{"source": "print(1)"}')),
    "additional argument": calls(("run_cell", '{"code": "print(1)", "timeout": 5}')),
    "empty code": calls(("run_cell", '{"code": "  \\n"}')),
    "no arguments": calls(("run_cell", "")),
    "unknown function": calls(("run_shell", '{"code": "ls"}')),
    "illegal name": calls(("run cell; ü", "{}")),
    "empty reply": stream(chunk({}, "stop")),
    "blank reply": says("  \n "),
    "answer cut off": says("I would like to tell", finish="length"),
    "call cut off": calls(("run_cell", '{"code": "print('), finish="length"),
    "deeply nested arguments": calls(("run_cell", "[" * 100_000)),
}


@pytest.mark.parametrize("play", BAD.values(), ids=BAD.keys())
async def test_bad_replies_in_a_row_end_the_turn(double: Endpoint, turns: Turns, notebook: Notebook, play: Any) -> None:
    double.script = [play]
    result = await turns.run(max_bad_replies=3)
    assert_ended(turns, result, "bad_replies")
    assert len(double.requests) == 3
    assert len(turns.heard("error")) == 3
    assert notebook.ran == []


@pytest.mark.parametrize("play", BAD.values(), ids=BAD.keys())
async def test_a_model_that_recovers_goes_on(double: Endpoint, turns: Turns, play: Any) -> None:
    double.script = [play, play, runs("print('good')"), play, play, says("Done.")]
    result = await turns.run(max_bad_replies=3)
    assert_ended(turns, result, "answered")
    assert [bool(step.fault) for step in result.steps] == [True, True, False, True, True, False]


async def test_the_model_is_told_what_was_wrong(double: Endpoint, turns: Turns) -> None:
    double.script = [calls(("run_cel", "{}")), calls(("run_cell", "{oops")), says("Done.")]
    await turns.run()
    assert "Did you mean run_cell?" in double.requests[1]["messages"][-1]["content"]
    assert "not valid JSON" in double.requests[2]["messages"][-1]["content"]


async def test_good_calls_run_beside_a_bad_one(double: Endpoint, turns: Turns, notebook: Notebook) -> None:
    double.script = [calls(("nonsense", "{}"), ("run_cell", '{"code": "print(7)"}')), says("7")]
    result = await turns.run(max_bad_replies=1)
    assert_ended(turns, result, "answered")
    assert notebook.ran == ["print(7)"]
    first, second = double.requests[1]["messages"][-2:]
    assert "no function 'nonsense'" in first["content"]
    assert "7" in second["content"]


async def test_raw_line_ends_in_arguments_are_understood(double: Endpoint, turns: Turns, notebook: Notebook) -> None:
    double.script = [calls(("run_cell", '{"code": "a = 1\nprint(a)"}')), says("1")]
    await turns.run()
    assert notebook.ran == ["a = 1\nprint(a)"]


async def test_ids_that_an_endpoint_repeats_are_made_unique(double: Endpoint, turns: Turns) -> None:
    double.script = [runs("1"), runs("2", "3"), says("Done.")]
    await turns.run()
    double.script = [runs("4"), says("Done.")]
    await turns.run()
    assert_valid_history(turns.history)


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (never_answers, "0.3 s"),
        (trickles(chunk({"content": "."})), "0.3 s"),
        (fails(500), "500"),
        (fails(401, f"bad key {KEY}"), "OPENAI_API_KEY"),
        (stream(chunk({"content": "half"})), "broke off"),
    ],
    ids=["no answer", "trickle", "500", "401", "truncated"],
)
async def test_a_failing_model_ends_the_turn(double: Endpoint, turns: Turns, play: Any, words: str) -> None:
    double.script = [runs("print(1)"), play]
    result = await turns.run(settings={"timeout_s": 0.3, "retries": 1})
    assert_ended(turns, result, "model_error")
    assert words in result.message
    assert turns.heard("error")[0]["message"] == result.message


async def test_a_filtered_reply_ends_the_turn(double: Endpoint, turns: Turns) -> None:
    double.script = [stream(chunk({"content": "Well, "}), chunk({}, "content_filter"))]
    result = await turns.run()
    assert_ended(turns, result, "model_error")
    assert "content filter" in result.message


async def test_a_request_that_would_break_the_token_limit_is_not_sent(double: Endpoint, turns: Turns) -> None:
    double.script = [runs("print('word ' * 5000)"), says("never")]
    result = await turns.run(max_tokens=4000)
    assert_ended(turns, result, "max_tokens")
    assert len(double.requests) == 1
    assert result.tokens.spent <= 4000


async def test_the_reply_may_only_be_as_long_as_the_limits_leave(double: Endpoint, turns: Turns) -> None:
    double.script = [says("Hello.")]
    result = await turns.run(max_tokens=400)
    assert result.reason == "answered"
    assert double.requests[0]["max_completion_tokens"] == 400 - result.tokens.input


async def test_money_limits_the_reply_and_then_the_turn(double: Endpoint, turns: Turns) -> None:
    double.script = [runs("print('word ' * 5000)"), says("never")]
    result = await turns.run(max_dollars=0.01, settings={"price_input": 2.0, "price_output": 8.0})
    assert_ended(turns, result, "max_dollars")
    assert len(double.requests) == 1
    left = 0.01 - result.tokens.requests[0].input * 2.0 / 1e6
    assert double.requests[0]["max_completion_tokens"] == int(left / 8.0 * 1e6)


async def test_what_the_endpoint_reports_counts_against_the_limits(double: Endpoint, turns: Turns) -> None:
    expensive = stream(
        chunk(
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "run_cell", "arguments": '{"code": "1"}'}}]}
        ),
        chunk({}, "tool_calls"),
        usage(190_000, 0, 9_990),
    )
    double.script = [expensive]
    result = await turns.run(max_tokens=200_000)
    assert_ended(turns, result, "max_tokens")
    assert len(double.requests) == 1


async def test_free_models_have_no_money_limit(double: Endpoint, turns: Turns) -> None:
    double.script = [says("Hello.")]
    result = await turns.run(max_dollars=0.000001, settings={"price_input": 0, "price_output": 0})
    assert_ended(turns, result, "answered")


async def test_time_up_while_the_model_thinks_ends_the_turn(double: Endpoint, turns: Turns) -> None:
    double.script = [runs("print(1)"), never_answers]
    result = await turns.run(max_seconds=1)
    assert_ended(turns, result, "max_seconds")
    assert len(result.tokens.requests) == 2


async def test_time_up_in_a_cell_interrupts_it(double: Endpoint, turns: Turns, notebook: Notebook) -> None:
    double.script = [runs("import asyncio; await asyncio.sleep(3600)")]
    result = await turns.run(max_seconds=1)
    assert_ended(turns, result, "max_seconds")
    assert notebook.interrupts == 1
    assert result.steps[-1].runs[0].result.status == "interrupted"


async def test_cancelling_interrupts_the_cell_and_returns(double: Endpoint, turns: Turns, notebook: Notebook) -> None:
    double.script = [runs("import asyncio; await asyncio.sleep(3600)", "print('second')")]
    task = asyncio.create_task(turns.run())
    await notebook.running.wait()
    task.cancel()
    result = await task
    assert_ended(turns, result, "cancelled")
    assert notebook.interrupts == 1
    assert len(notebook.ran) == 1
    assert result.steps[-1].runs[0].result.status == "interrupted"


async def test_cancelling_while_the_model_thinks_returns(double: Endpoint, turns: Turns) -> None:
    double.script = [never_answers]
    task = asyncio.create_task(turns.run())
    while not double.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    result = await task
    assert_ended(turns, result, "cancelled")
    assert not task.cancelling()


async def test_cancelling_before_the_first_call_leaves_a_valid_history(
    double: Endpoint, direct_turns: Turns, tools: Tools
) -> None:
    double.script = [calls(("shop__lookup", '{"order_id": "W1"}'))]
    waiting = asyncio.Event()

    async def begin_cell(session: str, cell: str) -> None:
        waiting.set()
        await asyncio.sleep(3600)

    tools.begin_cell = begin_cell  # type: ignore[method-assign]
    task = asyncio.create_task(direct_turns.run())
    await waiting.wait()
    task.cancel()
    assert_ended(direct_turns, await task, "cancelled")


async def test_a_cancelled_conversation_can_go_on(double: Endpoint, turns: Turns, notebook: Notebook) -> None:
    double.script = [runs("x = 5\nimport asyncio; await asyncio.sleep(3600)"), runs("print(x)"), says("5")]
    task = asyncio.create_task(turns.run())
    await notebook.running.wait()
    task.cancel()
    await task
    result = await turns.run("Go on")
    assert_ended(turns, result, "answered")
    assert result.answer == "5"


DOWN = [
    PoolExhausted("all 32 kernels are in use"),
    StartFailed("the template did not come up"),
    IsolationUnavailable("user namespaces are closed"),
    KernelGone(Exit(ExitReason.MEMORY, "over 512 MiB")),
]


@pytest.mark.parametrize("down", DOWN, ids=lambda error: type(error).__name__)
async def test_without_a_kernel_the_turn_goes_on_with_direct_calls(
    double: Endpoint, turns: Turns, notebook: Notebook, direct: DirectActor, tools: Tools, down: Any
) -> None:
    notebook.down = down
    double.script = [runs("print(1)"), calls(("shop__lookup", '{"order_id": "W1"}')), says("Pending.")]
    result = await turns.run(fallback=direct)
    assert_ended(turns, result, "answered")
    assert result.mode == "direct"
    assert result.fallback == str(down)
    assert turns.heard("fallback") == [{"step": 1, "mode": "direct", "reason": str(down)}]
    assert [tool["function"]["name"] for tool in double.requests[1]["tools"]] == ["shop__lookup"]
    assert double.requests[1]["messages"][0]["content"] == "Call functions."
    assert [step.mode for step in result.steps] == ["cells", "direct", "direct"]
    assert len(tools.cells) == 1


async def test_without_a_kernel_and_a_fallback_the_turn_ends(
    double: Endpoint, turns: Turns, notebook: Notebook
) -> None:
    notebook.down = DOWN[0]
    double.script = [runs("print(1)", "print(2)")]
    result = await turns.run()
    assert_ended(turns, result, "sandbox_down")
    assert "all 32 kernels" in result.message


async def test_each_request_is_in_the_ledger(double: Endpoint, turns: Turns) -> None:
    double.script = [runs("print('x ' * 50)"), says("Done.")]
    result = await turns.run()
    first, second = result.tokens.requests
    assert first.results == 0
    assert second.results > 50
    assert second.definitions == first.definitions
    assert second.turns > first.turns
    assert result.tokens.output == first.output + second.output > 0
    end = turns.heard("end")[0]
    assert isinstance(end["usage"], dict)
    assert end["usage"]["input"] == result.tokens.input


async def test_the_prefix_is_the_same_in_every_request(double: Endpoint, turns: Turns) -> None:
    double.script = [runs("print(1)"), says("One."), runs("1 / 0"), calls(("run_cell", "{")), says("Two.")]
    await turns.run("first")
    await turns.run("second")
    for earlier, later in zip(double.requests, double.requests[1:], strict=False):
        assert later["tools"] == earlier["tools"]
        assert later["messages"][: len(earlier["messages"])] == earlier["messages"]
