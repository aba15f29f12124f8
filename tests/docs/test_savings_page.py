"""The page on savings: its commands name figures that exist, and its method is what the harness does."""

from __future__ import annotations

import asyncio
import re
import shlex
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import tasks, workloads
from benchmarks.traditional import Arm
from gateway.cli import app
from gateway.commands import savings
from gateway.settings import Settings

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


def test_the_ledgers_settings_and_commands_are_there() -> None:
    [toml] = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.M | re.S)
    assert Settings(**tomllib.loads(toml)).savings.currency == "EUR"
    commands = re.findall(r"^omniops (savings.*)$", PAGE, re.M)
    assert len(commands) == 2
    for command in commands:
        asked: dict[str, str] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(savings, "client_for", lambda *_, asked=asked, **__: _Ledger(asked))
            done = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
        assert "6.1" in done.output
        assert datetime.fromisoformat(asked["since"]) < datetime.now(UTC)


class _Ledger:
    """A gateway's answer; tests/gateway/test_operations.py asks a real one."""

    def __init__(self, asked: dict[str, str]) -> None:
        self._asked = asked

    def __enter__(self) -> _Ledger:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get(self, path: str, params: dict[str, str]) -> dict[str, object]:
        self._asked |= params
        saving = {"tenant": "demo", "workload": "chat", "runs": 1, "tokens": 3, "direct_tokens": 9}
        return {"currency": "USD", "savings": [saving | {"cost": 1.0, "direct_cost": 7.1, "saved": 6.1}]}
