"""What a chat front end gets of a turn: words that cannot be taken back, and ends that are no answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.agent.types import TurnResult
from gateway.completions.answers import Head, Spoken, completion_of, finish_of
from gateway.tokens import RequestTokens, TurnTokens, Usage


def spoken(*words: tuple[int, int, str], answer: str, live: bool = True) -> str:
    made = Spoken(live=live)
    sent = "".join(made.words(*each) for each in words)
    sent += made.answer(answer)
    sent += made.answer(answer)  # told by the event, and again by the result
    assert sent == made.said
    return sent


@pytest.mark.parametrize("live", [True, False])
def test_an_answer_is_said_once(live: bool) -> None:
    assert spoken((1, 1, "Hello "), (1, 1, "there."), answer="Hello there.", live=live) == "Hello there."
    assert spoken(answer="Hello there.", live=live) == "Hello there."


def test_words_before_a_cell_and_of_an_attempt_that_broke_off_stay_apart() -> None:
    words = ((1, 1, "Let me look."), (2, 1, "You ha"), (2, 2, "You have two."))
    assert spoken(*words, answer="You have two.") == "Let me look.\n\nYou ha\n\nYou have two."
    assert spoken(*words, answer="You have two.", live=False) == "You have two."
    assert spoken((1, 1, " \n"), (2, 1, "\n"), (2, 1, "Two."), answer="Two.").strip() == "Two."


def test_an_answer_that_is_not_the_models_words_follows_them() -> None:
    assert spoken((1, 1, "Doing it."), answer="A colleague has to see it.") == "Doing it.\n\nA colleague has to see it."


def result(reason: Any, answer: str = "", message: str = "") -> TurnResult:
    request = RequestTokens(definitions=50, results=0, turns=50, cached=10, output=7)
    told = RequestTokens(1, 1, 1, 0, 1, reported=Usage(input=1000, cached=900, output=20))
    tokens = TurnTokens((request, told))
    return TurnResult("s", reason, answer, message, (), (), tokens, "cells", "", 1.0)


def test_usage_is_the_endpoints_own_where_it_says_and_that_of_all_requests() -> None:
    usage = completion_of(Head.new("shop"), result("answered", "Yes."), "stop").usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (1100, 27, 1127)
    assert usage.prompt_tokens_details.cached_tokens == 910


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("answered", "stop"), ("paused", "stop"), ("max_steps", "length"), ("max_dollars", "length")]
    + [(reason, None) for reason in ("model_error", "bad_replies", "sandbox_down", "cancelled")],
)
def test_every_end_is_one_that_clients_know_or_an_error(reason: str, finish: str | None) -> None:
    assert finish_of(result(reason)) == finish


def test_texts_that_are_no_unicode_can_be_sent() -> None:
    completion = completion_of(Head.new("shop"), result("max_steps", message="a \ud83d b"), "length")
    assert json.loads(completion.model_dump_json())["choices"][0]["message"]["content"].startswith("a ")
    Spoken(live=True).words(1, 1, "\ud83d").encode()
