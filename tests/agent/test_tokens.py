"""Token counts of payloads, and the ledger's arithmetic."""

from __future__ import annotations

import asyncio
from typing import Any

import bpe_openai
import pytest
from actor_doubles import function

from gateway.tokens import (
    Ledger,
    Prices,
    RequestTokens,
    TurnTokens,
    Usage,
    count_message,
    count_text,
    count_tools,
    median,
    p90,
)

SYSTEM = {"role": "system", "content": "You answer customers."}
USER = {"role": "user", "content": "Where is my order?"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "run_cell", "arguments": '{"code": "1 + 1"}'}}],
}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "status: ok\nvalue: 2"}
PRICES = Prices(input=2.0, cached=0.5, output=8.0)


def exact(text: str) -> int:
    return len(bpe_openai.get_encoding("o200k_base").encode_ordinary(text))


@pytest.mark.parametrize("text", ["", "hello", "Grüße, 世界 🎉", "<|endoftext|>", "a\n" * 1000])
def test_text_is_counted_as_the_tokenizer_does(text: str) -> None:
    assert count_text(text) == exact(text)


@pytest.mark.parametrize(
    "text", ["line of text\n" * 150_000, "x" * 2_000_000, "no line end " * 100_000, "\n" * 500_000]
)
def test_texts_beyond_the_tokenizers_limit_are_counted(text: str) -> None:
    pieces = [text[i : i + 100_000] for i in range(0, len(text), 100_000)]
    close = sum(exact(piece) for piece in pieces)
    assert abs(count_text(text) - close) <= 2 * len(pieces)


def test_a_message_is_framed_by_three_tokens_and_its_role() -> None:
    assert count_message(USER) == 3 + exact("user") + exact("Where is my order?")


def test_a_call_counts_its_name_and_arguments() -> None:
    assert count_message(CALL) == 3 + exact("assistant") + 3 + exact("run_cell") + exact('{"code": "1 + 1"}')


def test_text_parts_count_and_pictures_do_not() -> None:
    parts = [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert count_message({"role": "user", "content": parts}) == count_message({"role": "user", "content": "hello"})


def test_functions_count_as_the_cookbook_says() -> None:
    # the cookbook's own example ("How to count tokens with tiktoken"), for which gpt-4o's API reports 101
    schema = {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {
                "type": "string",
                "description": "The unit of temperature to return",
                "enum": ["celsius", "fahrenheit"],
            },
        },
        "required": ["location"],
    }
    weather = {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": schema,
        },
    }
    messages = [
        {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
        {"role": "user", "content": "What's the weather like in San Francisco?"},
    ]
    assert count_tools([weather]) + sum(count_message(m) for m in messages) + 3 == 101


def test_no_functions_cost_nothing() -> None:
    assert count_tools([]) == 0


def test_nested_and_referenced_types_count() -> None:
    def with_property(schema: dict[str, Any]) -> int:
        tool = function("f", item=schema)
        tool["function"]["parameters"]["$defs"] = {
            "Item": {"type": "object", "properties": {"sku": {"type": "string"}, "next": {"$ref": "#/$defs/Item"}}}
        }
        return count_tools([tool])

    plain = with_property({"type": "object"})
    assert with_property({"$ref": "#/$defs/Item"}) > plain
    assert with_property({"type": "array", "items": {"$ref": "#/$defs/Item"}}) > plain
    assert with_property({"anyOf": [{"$ref": "#/$defs/Item"}, {"type": "null"}]}) > plain
    assert with_property({"enum": ["red", "green"]}) > with_property({"enum": ["red"]})


async def test_a_request_is_split_into_definitions_results_and_turns() -> None:
    tools = [function("run_cell", code={"type": "string"})]
    counted = (await Ledger().count([SYSTEM, USER, CALL, RESULT], tools)).tokens
    assert counted.definitions == count_tools(tools) + count_message(SYSTEM)
    assert counted.results == count_message(RESULT)
    assert counted.turns == count_message(USER) + count_message(CALL) + 3
    assert counted.input == counted.definitions + counted.results + counted.turns


async def test_reused_counts_are_those_of_a_fresh_ledger() -> None:
    ledger = Ledger()
    await ledger.record(await ledger.count([SYSTEM, USER], []), CALL)
    again = (await ledger.count([SYSTEM, USER, CALL, RESULT], [])).tokens
    fresh = (await Ledger().count([SYSTEM, USER, CALL, RESULT], [])).tokens
    assert (again.definitions, again.results, again.turns) == (fresh.definitions, fresh.results, fresh.turns)


async def test_a_changed_message_is_counted_anew() -> None:
    ledger = Ledger()
    await ledger.record(await ledger.count([SYSTEM, USER], []), None)
    longer = {"role": "user", "content": "Where is my order, which I placed a week ago?"}
    assert (await ledger.count([SYSTEM, longer], [])).tokens.turns == count_message(longer) + 3


def long_system(words: int) -> dict[str, Any]:
    return {"role": "system", "content": "word " * words}


async def test_the_prefix_of_the_previous_request_is_cached_in_steps() -> None:
    ledger = Ledger()
    system = long_system(1500)
    first = await ledger.record(await ledger.count([system, USER], []), CALL)
    second = (await ledger.count([system, USER, CALL, RESULT], [])).tokens
    assert first.cached == 0
    assert second.cached == (count_message(system) + count_message(USER)) // 128 * 128


async def test_short_prompts_are_not_cached() -> None:
    ledger = Ledger()
    await ledger.record(await ledger.count([SYSTEM, USER], []), CALL)
    assert (await ledger.count([SYSTEM, USER, CALL, RESULT], [])).tokens.cached == 0


async def test_other_functions_or_another_system_message_end_the_cache() -> None:
    ledger = Ledger()
    system = long_system(1500)
    await ledger.record(await ledger.count([system, USER], []), CALL)
    assert (await ledger.count([system, USER, CALL, RESULT], [function("f")])).tokens.cached == 0
    assert (await ledger.count([long_system(1501), USER, CALL, RESULT], [])).tokens.cached == 0


async def test_a_counted_request_that_was_not_sent_leaves_no_trace() -> None:
    ledger = Ledger()
    await ledger.count([long_system(1500), USER], [])
    assert ledger.requests == []
    assert (await ledger.count([long_system(1500), USER], [])).tokens.cached == 0


async def test_output_is_what_the_model_wrote() -> None:
    ledger = Ledger()
    entry = await ledger.record(await ledger.count([SYSTEM, USER], []), CALL)
    assert entry.output == 3 + exact("run_cell") + exact('{"code": "1 + 1"}')


async def test_counting_megabytes_leaves_the_event_loop_free() -> None:
    huge = {"role": "tool", "tool_call_id": "a", "content": "some result text\n" * 300_000}
    counting = asyncio.create_task(Ledger().count([SYSTEM, USER, CALL, huge], []))
    turns_of_the_loop = 0
    while not counting.done():
        await asyncio.sleep(0)
        turns_of_the_loop += 1
    assert turns_of_the_loop > 10
    assert counting.result().tokens.results > 1_000_000


def test_dollars_with_and_without_caching() -> None:
    request = RequestTokens(definitions=1_000_000, results=0, turns=0, cached=400_000, output=100_000)
    assert request.dollars(PRICES, caching=False) == pytest.approx(2.0 + 0.8)
    assert request.dollars(PRICES) == pytest.approx(1.2 + 0.2 + 0.8)


def test_limits_go_by_the_larger_figure() -> None:
    own = RequestTokens(definitions=100, results=0, turns=0, cached=0, output=10)
    more = RequestTokens(100, 0, 0, 0, 10, reported=Usage(input=300, cached=200, output=20))
    less = RequestTokens(100, 0, 0, 0, 10, reported=Usage(input=1, cached=0, output=1))
    assert (own.spent, more.spent, less.spent) == (110, 320, 110)
    assert more.dollars_at_most(PRICES) == pytest.approx((100 * 2.0 + 200 * 0.5 + 20 * 8.0) / 1e6)
    assert less.dollars_at_most(PRICES) == own.dollars_at_most(PRICES)


def test_a_turn_adds_up() -> None:
    turn = TurnTokens((RequestTokens(10, 1, 2, 0, 5), RequestTokens(10, 4, 6, 8, 7)))
    assert (turn.definitions, turn.results, turn.turns, turn.cached, turn.input, turn.output) == (20, 5, 8, 8, 33, 12)
    assert turn.as_dict(PRICES)["requests"] == 2


def test_median_and_p90() -> None:
    values = [float(n) for n in range(1, 12)]
    assert median(values) == 6
    assert p90(values) == 10
    assert p90([3.0]) == 3.0
