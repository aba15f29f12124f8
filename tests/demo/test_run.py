"""Which tasks are run, what is kept of them, and what people see."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from demo import results, tau
from demo.gateway import Event, Turn
from demo.results import Results, TaskResult
from demo.run import CHOSEN, choose
from demo.show import Screen

USAGE = {"input": 1000, "output": 100, "definitions": 600, "results": 300, "turns": 100, "dollars": 0.002}


def turn(mode: Any = "cells", factor: int = 1) -> Turn:
    made = Turn(mode)
    for kind, data in [
        ("step", {"step": 1, "code": "x = 1\n", "session": "s1"}),
        (
            "cell",
            {"step": 1, "envelope": "status: ok\nout: [bold]1[/bold]", "status": "ok", "ms": 3, "calls": [{}, {}]},
        ),
        ("answer", {"text": "Done."}),
        ("end", {"reason": "answered", "message": "", "usage": {k: v * factor for k, v in USAGE.items()}}),
    ]:
        made.take(Event(kind, data))
    return made


def summary(differences: list[str]) -> Results:
    cells, direct = results.arm(turn(), differences), results.arm(turn("direct", 3), [])
    task = TaskResult("7", "Please [exchange] it", "Done.", "s1.ipynb", cells, direct)
    return Results("scripted", True, 1.5, [task], {"20": "because"}, "/somewhere/transcripts")


def shown(make: Any) -> str:
    out = io.StringIO()
    make(Screen(Console(file=out, width=140, highlight=False)))
    return out.getvalue()


def test_the_default_choice_is_large_and_free_of_the_references_mistake() -> None:
    tasks, excluded = choose("")
    assert len(tasks) == len(CHOSEN) >= 24
    assert not any(tau.mixes_items(task) for task in tasks)
    assert len(excluded) == 5


def test_the_default_choice_makes_every_kind_of_change() -> None:
    tasks, _ = choose("")
    names = {action.name for task in tasks for action in task.actions}
    assert {action.name for task in tau.load_tasks() for action in task.actions} <= names


def test_tasks_are_chosen_by_id_and_count() -> None:
    assert [task.id for task in choose("98, 3,20")[0]] == ["98", "3"]
    assert [task.id for task in choose("", 2)[0]] == list(CHOSEN[:2])
    assert len(choose("all")[0]) == 109


@pytest.mark.parametrize(("wanted", "message"), [("0,999", "no task 999"), ("20", "cannot be checked")])
def test_tasks_that_cannot_be_run_are_named(wanted: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(wanted)


def test_results_file_holds_both_ways_and_their_sums(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.save(summary([]), path)
    found = json.loads(path.read_text())
    assert found["good"] is True
    assert found["tasks"][0]["cells"]["tokens"] == 1100
    assert found["totals"]["direct"]["input"] == 3000
    assert found["excluded"] == {"20": "because"}


def test_a_state_that_differs_makes_the_run_a_failure() -> None:
    assert not summary(["orders.#W1.status: the shop has 'a', the reference 'b'"]).good


def test_a_turn_without_an_answer_makes_the_run_a_failure() -> None:
    unanswered = Turn("cells")
    unanswered.take(Event("end", {"reason": "max_steps", "message": "Too many steps.", "usage": {}}))
    assert not results.arm(unanswered, []).good


def test_the_table_shows_steps_calls_tokens_ratio_and_check() -> None:
    row = next(line for line in shown(lambda screen: screen.table(summary([]))).splitlines() if line.startswith("7 "))
    assert row.split() == ["7", "Please", "[exchange]", "it", "1", "2", "1,100", "3,300", "3.0x", "0.00", "ok"]


def test_a_step_is_shown_with_its_code_and_what_came_back() -> None:
    made = turn()
    text = shown(lambda screen: [screen.event(event) for event in EVENTS])
    assert made.session == "s1"
    for expected in ("step 1", "total = 1", "status: ok", "[bold]1[/bold]", "Done."):
        assert expected in text


EVENTS = (
    Event("step", {"step": 1, "code": "total = 1"}),
    Event("cell", {"step": 1, "envelope": "status: ok\nout: [bold]1[/bold]", "status": "ok", "ms": 3, "calls": []}),
    Event("answer", {"text": "Done."}),
)


def test_a_difference_is_shown_with_its_place() -> None:
    wrong = results.arm(turn(), ["orders.#W1.status: the shop has 'a', the reference 'b'"])
    text = shown(lambda screen: screen.checked(wrong))
    assert "DIFFERS" in text
    assert "orders.#W1.status" in text
