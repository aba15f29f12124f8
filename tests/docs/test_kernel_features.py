"""docs/kernel-features.md: every row of its table names a test that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (PROJECT / "docs" / "kernel-features.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| feature")
]


def test_there_is_a_table() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS)
def test_a_row_names_a_test(row: str) -> None:
    found = re.search(r"`(test_\w+\.py)::(test_\w+)` \|$", row)
    assert found, row
    assert f"def {found[2]}(" in (PROJECT / "tests" / "kernel_pool" / found[1]).read_text()
