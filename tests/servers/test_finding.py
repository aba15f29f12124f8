"""Tools are found by what they do: in other words than theirs, and only those that the role may call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from servers.finding import finder as finder_module
from servers.finding.finder import Finders
from servers.finding.words import words
from servers.registry import Registry, load_registry
from servers.tool import EVERYBODY, OPERATOR, Parameter, Role, Tool


async def nothing(*_: Any, **__: Any) -> dict[str, Any]:
    return {}


def made(name: str, doc: str, *parameters: str, roles: tuple[Role, ...] = EVERYBODY) -> Tool:
    server, _, short = name.partition(".")
    return Tool(
        server=server,
        name=short,
        doc=doc,
        parameters=tuple(Parameter(p, str) for p in parameters),
        returns=dict,
        effect="read",
        roles=roles,
        implementation=nothing,
    )


def registry_of(*tools: Tool) -> Registry:
    return Registry(tools, dict.fromkeys((tool.server for tool in tools), ""))


def names(tools: Sequence[Tool]) -> list[str]:
    return [tool.qualified_name for tool in tools]


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("getHTTPResponse2XX", ["get", "http", "respons", "2", "xx"]),
        ("list_all_order-notes", ["list", "order", "note"]),
        ("the customer's orders", ["custom", "order"]),
        ("Ｆｕｌｌ", ["full"]),
        ("发送邮件 мир", ["发送邮件", "мир"]),
        ("", []),
    ],
)
def test_a_text_is_split_into_words_without_endings(text: str, split: list[str]) -> None:
    assert words(text) == split


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("give the buyer their money back", "woocommerce.refund_order"),
        ("reimburse part of an order", "woocommerce.refund_order"),
        ("show the notes of an order", "woocommerce.list_order_notes"),
        ("pass the conversation on to a person", "support.hand_over"),
        ("remove a voucher", "woocommerce.trash_coupon"),
    ],
)
def test_what_is_said_in_other_words_is_found(query: str, first: str) -> None:
    best = Finders().of(load_registry()).find(query, limit=3)
    assert first in names(best)


def test_an_order_in_a_tools_own_words_is_not_taken_for_a_question() -> None:
    finder = Finders().of(load_registry())
    for query, first in (("refund an order", "refund_order"), ("refund part of order 42", "refund_order")):
        assert names(finder.find(query))[0] == f"woocommerce.{first}"


def test_a_name_counts_more_than_a_description() -> None:
    long = "Look at the weather. " + "The forecast of a forecast is a forecast. " * 20
    finder = Finders().of(registry_of(made("a.look", long), made("b.forecast", "Tomorrow.")))
    assert names(finder.find("forecast")) == ["b.forecast", "a.look"]


def test_a_parameter_is_found() -> None:
    finder = Finders().of(registry_of(made("a.one", "Do it.", "iban"), made("a.two", "Do it.", "colour")))
    assert names(finder.find("iban")) == ["a.one"]


def test_a_role_finds_what_it_would_find_if_there_were_nothing_else() -> None:
    mine = [made("shop.order", "One order.", "id"), made("shop.note", "One note of an order.", "id")]
    secret = [made(f"staff.note_{i}", f"Secret note {i} of an order.", roles=OPERATOR) for i in range(40)]
    everything, alone = Finders().of(registry_of(*secret, *mine)), Finders().of(registry_of(*mine))
    for query in ("note", "order", "secret", "id of a note", "staff"):
        assert names(everything.find(query, "agent", 50)) == names(alone.find(query, "agent", 50))
    assert everything.find("note", "nobody") == []  # type: ignore[arg-type]
    assert len(everything.find("note", "operator", 50)) == 41


def test_equal_tools_are_in_the_same_order_whatever_order_they_came_in() -> None:
    tools = [made(f"s{i}.same", "The same.") for i in range(20)]
    forward, backward = (Finders().of(registry_of(*order)).find("same", limit=5) for order in (tools, tools[::-1]))
    assert names(forward) == names(backward) == [f"s{i}.same" for i in range(5)]


STRANGE = ["", " ", "\0", "?!", "the of and", "x" * 100_000, "a b " * 50_000, "\ud800", "(((", "\\", "' OR 1=1 --"]


@pytest.mark.parametrize("query", STRANGE)
def test_no_query_is_too_strange(query: str) -> None:
    finder = Finders().of(registry_of(made("air.fly", "Fly there."), made("sea.swim", "Swim there.")))
    assert finder.find(query) == []
    assert names(finder.find(f"fly {query}")) == ["air.fly"]


def test_what_stands_beyond_the_length_of_a_query_is_not_read() -> None:
    finder = Finders().of(registry_of(made("air.fly", "Fly there.")))
    assert finder.find("x" * finder_module.MAX_QUERY + " fly") == []


def test_several_roles_find_what_any_of_them_may_call_and_one_server_its_own() -> None:
    tools = [made(f"{server}.{role}_note", "A note.", roles=(role,)) for server in "ab" for role in EVERYBODY]
    finder = Finders().of(registry_of(*tools))
    both = frozenset({"agent", "analyst"})
    assert set(names(finder.find("note", both))) == {f"{s}.{r}_note" for s in "ab" for r in both}
    assert set(names(finder.find("note", both, server="b"))) == {"b.agent_note", "b.analyst_note"}
    assert set(names(finder.find("note", server="b"))) == {f"b.{r}_note" for r in EVERYBODY}
    assert finder.find("note", frozenset()) == []
    assert finder.find("note", server="c") == []


def test_the_questions_that_the_ranker_was_tuned_with_are_not_those_that_measure_it() -> None:
    folder = Path(__file__).parents[2] / "benchmarks"
    measured, tuned = (
        [line.split("\t") for line in (folder / name).read_text().splitlines()]
        for name in ("questions.tsv", "questions_dev.tsv")
    )
    assert (len(measured), len(tuned)) == (200, 100)
    assert not {question for question, _ in measured} & {question for question, _ in tuned}
    assert not {tool for _, right in measured for tool in right.split()} & {
        tool for _, right in tuned for tool in right.split()
    }


def test_nothing_is_found_among_nothing() -> None:
    assert Finders().of(Registry((), {})).find("anything") == []


def test_a_snapshot_is_read_once_and_of_the_next_one_only_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    part_of = finder_module.part_of
    monkeypatch.setattr(finder_module, "part_of", lambda entries: (read.append(len(entries)), part_of(entries))[1])
    finders = Finders()
    shop, crm = [made("shop.a", "One."), made("shop.b", "Two.")], [made("crm.a", "Three.")]
    first = registry_of(*shop, *crm)
    assert finders.ready(first) is None
    assert finders.of(first) is finders.of(first) is finders.ready(first)
    assert read == [2, 1]
    changed = finders.of(registry_of(*shop, made("crm.a", "Four.")))
    assert read == [2, 1, 1]
    assert names(changed.find("four")) == ["crm.a"]
    assert changed.find("three") == []


def shops() -> list[Tool]:
    """Two services that have the same tools."""
    made_tools = []
    for server in ("stripe", "postmarkapp"):
        made_tools += [
            made(f"{server}.get_items", "All items.", "limit"),
            made(f"{server}.get_items_id", "One item.", "id"),
            made(f"{server}.post_items", "Create an item.", "text"),
            made(f"{server}.put_items_id", "Update an item.", "id", "text"),
            made(f"{server}.delete_items_id", "Delete an item.", "id"),
        ]
    return made_tools


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("every item of Stripe", "stripe.get_items"),
        ("which items has stripe", "stripe.get_items"),
        ("one item in Postmark", "postmarkapp.get_items_id"),
        ("new item for Stripe", "stripe.post_items"),
        ("throw an item out of Stripe", "stripe.delete_items_id"),
        ("correct Postmark's item", "postmarkapp.put_items_id"),
    ],
)
def test_the_service_that_is_named_and_the_deed_that_is_wanted_decide(query: str, first: str) -> None:
    finder = Finders().of(registry_of(*shops()))
    assert names(finder.find(query))[0] == first
    server = first.partition(".")[0]
    assert {name.partition(".")[0] for name in names(finder.find(query, limit=5))} == {server}


def test_a_server_that_a_role_has_nothing_of_is_not_named_to_it() -> None:
    hidden = [made("acme_corp.note", "A note of Acme.", roles=OPERATOR)]
    mine = [made("crm.acme_note", "A note on Acme."), made("crm.note", "A note.")]
    both, alone = Finders().of(registry_of(*hidden, *mine)), Finders().of(registry_of(*mine))
    for query in ("note on Acme", "acme", "Acme Corp note"):
        assert names(both.find(query, "agent")) == names(alone.find(query, "agent"))


def test_two_words_find_what_has_them_as_one() -> None:
    finder = Finders().of(registry_of(made("air.get_airquality", "Now."), made("sea.get_quality", "Of water.")))
    assert names(finder.find("air quality of today"))[0] == "air.get_airquality"
