"""Cells that are right are never stopped; of those with a model's typical mistakes most are, before they run."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from check_world import CheckWorld, check_world

from demo import tau
from demo.model.solution import solve

CELLS = Path(__file__).with_name("cells")
MISTAKEN: list[dict[str, Any]] = tomllib.loads((CELLS / "mistaken.toml").read_text())["cell"]
RIGHT: list[dict[str, Any]] = tomllib.loads((CELLS / "right.toml").read_text())["session"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckWorld]:
    with check_world(tmp_path_factory.mktemp("check")) as made:
        yield made


@pytest.mark.parametrize("cell", MISTAKEN, ids=lambda cell: cell["name"])
def test_a_mistake_is_found_before_the_cell_runs(world: CheckWorld, cell: dict[str, Any]) -> None:
    check = world.check(cell["code"], cell.get("before", ()))
    assert not check.note
    said = "\n".join(finding.message for finding in check.certain)
    assert check.stopped == bool(cell["caught"]), said
    assert cell["caught"] in said
    assert all(finding.line > 0 for finding in check.certain)


@pytest.mark.parametrize("session", RIGHT, ids=lambda session: session["name"])
def test_a_right_cell_is_not_stopped(world: CheckWorld, session: dict[str, Any]) -> None:
    cells = session["cells"]
    for number, cell in enumerate(cells):
        check = world.check(cell, cells[:number])
        assert not check.note
        assert not check.certain, cell


def test_most_mistakes_are_found() -> None:
    caught = sum(bool(cell["caught"]) for cell in MISTAKEN)
    assert len(MISTAKEN) >= 60
    assert caught / len(MISTAKEN) > 0.85


def test_no_cell_of_the_demos_model_is_stopped(world: CheckWorld) -> None:
    data, cells = tau.load_data(), 0
    stopped = []
    for task in tau.load_tasks():
        try:
            # what the shop refuses is in tests/demo, through a whole gateway
            steps = solve(task, data).steps
        except KeyError:
            continue
        history = world.ran(())
        before: list[str] = []
        for step in steps:
            check = world.check(step.code, before, history)
            stopped += [(task.id, finding) for finding in check.certain]
            assert not check.note
            history.add(step.code, ok=True, changed=())
            before.append(step.code)
            cells += 1
    assert not stopped
    assert cells > 200  # nearly all tasks look in one cell and act in another
