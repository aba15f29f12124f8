"""The page on security names every attack that is made, and no attack that is not."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"
ATTACKS = [
    *sorted((ROOT / "tests" / "kernel_pool").glob("test_attack_*.py")),
    ROOT / "tests" / "kernel_pool" / "unconfined" / "test_hostile_kernel.py",
    ROOT / "tests" / "kernel_pool" / "unconfined" / "test_hostile_resume.py",
    ROOT / "tests" / "gateway" / "test_broker_frames.py",
    ROOT / "tests" / "gateway" / "test_broker_forged_ids.py",
]
_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.M)
_ROW = re.compile(r"^\|(.+)\|$", re.M)
_VERDICT = re.compile(r"(stopped|limited|not stopped)\b")


def attacks_in(paths: list[Path]) -> set[str]:
    return {name for path in paths for name in _TEST.findall(path.read_text())}


@cache
def rows() -> list[list[str]]:
    """The cells of each row that tells of an attack and its tests."""
    cells = [[cell.strip() for cell in row.split("|")] for row in _ROW.findall(PAGE.read_text())]
    return [row for row in cells if len(row) == 5 and row[0] != "attack" and not row[0].startswith("---")]


def test_the_page_has_a_table() -> None:
    assert len(rows()) > 40


def test_every_attack_that_is_made_is_in_the_table() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert attacks_in(ATTACKS) - named == set()


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert named - attacks_in([*(ROOT / "tests").rglob("test_*.py")]) == set()


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_every_row_has_a_verdict_for_each_place_and_a_test_or_an_admission(row: list[str]) -> None:
    _, *verdicts, tests = row
    assert all(_VERDICT.match(verdict) for verdict in verdicts), verdicts
    assert re.fullmatch(r"(`test_\w+` ?)+|none", tests)
    if tests == "none":
        assert any(verdict.startswith("not stopped") or "not stopped" in verdict for verdict in verdicts)
