"""The page on savings: its commands name figures that exist, and its method is what the harness does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from benchmarks import tasks, workloads
from benchmarks.traditional import Arm

PAGE = (Path(__file__).parents[2] / "docs" / "savings.md").read_text()


@pytest.fixture(scope="module")
def measured() -> dict[str, tuple[Arm, Arm]]:
    """Each workload by cells and by direct calls, for real."""
    return asyncio.run(workloads.measure({id: make() for id, make in workloads.WORKLOADS.items()}))


@pytest.fixture(scope="module")
def report(measured: dict[str, tuple[Arm, Arm]]) -> tuple[Arm, Arm]:
    return measured["tokens_bi_ratio"]


def test_every_figure_that_the_page_names_can_be_measured() -> None:
    named = set(re.findall(r"(?:ONLY=|`)((?:tokens|cost)_\w+)", PAGE))
    assert named
    assert named <= {*tasks.IDS, *workloads.IDS}


def test_direct_calls_take_a_request_each_and_read_every_result_again(report: tuple[Arm, Arm]) -> None:
    _, direct = report
    assert direct.usage["requests"] == len(workloads.bi().calls) + 1
    assert direct.input > 4 * direct.last_input > 4 * 90_000
    assert direct.usage["results"] > 0.9 * direct.input


def test_one_cell_gets_the_same_for_a_fraction(report: tuple[Arm, Arm]) -> None:
    cells, direct = report
    assert "1000 {" in cells.envelopes[0]
    assert cells.input < 0.02 * direct.input


def test_the_page_says_what_was_measured(measured: dict[str, tuple[Arm, Arm]]) -> None:
    said = re.findall(r"`(tokens_\w+)`: (\.\d+)[^;|]*; (\.\d+) if every result", PAGE)
    assert {id for id, _, _ in said} == set(measured)
    for id, ratio, once in said:
        cells, direct = measured[id]
        assert cells.input / direct.input == pytest.approx(float(ratio), rel=0.1), id
        assert cells.input / direct.last_input == pytest.approx(float(once), rel=0.1), id


def test_the_copy_is_made_and_a_look_up_takes_one_request(measured: dict[str, tuple[Arm, Arm]]) -> None:
    assert "'created': 1000" in measured["tokens_sync_ratio"][0].envelopes[0]
    cells, direct = measured["tokens_lookup_ratio"]
    assert (cells.usage["requests"], direct.usage["requests"]) == (1, 3)
