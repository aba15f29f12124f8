"""What docs/limits.md says holds: for each row of its tables there is a test that goes over the limit."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gateway.settings import load_settings
from kernel_pool.kernel_limits import _MEMORY_MARGIN_MB
from kernel_pool.process import out_of_memory
from kernel_pool.types import Limits
from kernel_pool.watch import _MARGIN_MB, MemoryUse

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "limits.md").read_text()

_MEMORY, _ATTACKS, _LIMITS, _FREEZE, _GROUPS = (
    f"tests/kernel_pool/test_{name}.py" for name in ("attack_memory", "attack_limits", "limits", "freeze", "cgroups")
)
_OUTPUTS = "tests/gateway/test_transcripts_outputs.py"
_OVER = f"{_LIMITS}::test_a_kernel_over_its_memory_dies_alone_and_its_session_learns_that_it_was_memory"
_FROZEN = f"{_FREEZE}::test_a_frozen_kernel_gets_no_cpu_and_goes_on_when_thawed"

#: The tests behind each row. `_LIMITS` and `_FREEZE` run with cgroups and without; `_MEMORY`, `_ATTACKS` and `_FREEZE`
#: in containers as well.
TESTS = {
    "version 2 (`cgroup2` alone)": [f"{_GROUPS}::test_version_two_is_used_below_the_group_of_this_process"],
    "version 1": [f"{_GROUPS}::test_version_one_is_used_controller_by_controller"],
    'both ("hybrid")': [f"{_GROUPS}::test_a_hybrid_machine_is_limited_by_version_one_and_freezes_by_version_two"],
    "none, read-only, or another user's": [
        f"{_GROUPS}::test_a_machine_without_cgroups",
        f"{_GROUPS}::test_what_may_not_be_written_is_told_with_what_to_do",
    ],
    "memory of one process": [
        f"{_LIMITS}::test_one_process_gets_a_memory_error_first",
        f"{_MEMORY}::test_one_process_that_fills_memory_gets_a_memory_error_and_lives",
    ],
    "memory of all its processes": [
        _OVER,
        f"{_MEMORY}::test_many_processes_that_fill_memory_together_are_killed",
    ],
    "shared memory": [_OVER, f"{_MEMORY}::test_shared_memory_counts"],
    "page tables": [_OVER, f"{_MEMORY}::test_page_tables_count"],
    "what waits in sockets": [f"{_MEMORY}::test_what_waits_in_sockets_counts"],
    "files": [
        f"{_ATTACKS}::test_filling_the_disk_ends_with_no_space_left",
        f"{_ATTACKS}::test_one_limit_holds_for_all_that_can_be_written",
    ],
    "processes and threads": [f"{_ATTACKS}::test_a_kernel_cannot_start_more_processes_than_its_limit"],
    "CPU at a time": [
        f"{_LIMITS}::test_a_busy_kernel_gets_no_more_cpu_than_its_cores",
        f"{_LIMITS}::test_kernels_weigh_alike_and_all_together_as_much_as_the_gateway",
        f"{_LIMITS}::test_without_cgroups_a_kernel_still_gives_way",
    ],
    "CPU over its life": ["tests/kernel_pool/test_kernel_end.py::test_used_up_its_cpu_time"],
    "open files": [f"{_ATTACKS}::test_open_files_are_limited"],
    "output of a cell": [f"{_OUTPUTS}::test_a_cell_that_says_too_much_is_stopped_with_all_that_it_said_until_then"],
    "output that is not read yet, or has no gateway": [
        "tests/kernel_pool/unconfined/test_resume.py::test_a_flood_without_a_gateway_waits_for_the_next_one",
        "tests/kernel_pool/unconfined/test_overflow.py::test_a_kernel_waits_for_what_is_slow_and_can_be_interrupted",
    ],
    "local, cgroup version 2": [_FROZEN, f"{_FREEZE}::test_a_frozen_kernel_can_be_killed"],
    "local, cgroup version 1": [_FROZEN, f"{_FREEZE}::test_a_frozen_kernel_can_be_killed"],
    "local, no cgroup": [_FROZEN, f"{_FREEZE}::test_a_process_that_was_stopped_before_is_left_stopped"],
    "container": [_FROZEN, f"{_FREEZE}::test_an_interrupt_of_a_frozen_kernel_arrives"],
}


def rows() -> list[list[str]]:
    """All rows of its tables, without their heads."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    heads = {at - 1 for at, line in enumerate(lines) if set(line) <= set("|-")}
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for at, row in enumerate(cells) if at not in heads and at - 1 not in heads]


def test_every_row_has_its_tests_and_every_test_its_row() -> None:
    assert [row[0] for row in rows()] == list(TESTS)


@pytest.mark.parametrize("name", sorted({name for names in TESTS.values() for name in names}))
def test_the_tests_are_there(name: str) -> None:
    path, function = name.split("::")
    tree = ast.parse((ROOT / path).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_sessions_read_what_it_says() -> None:
    assert f"`{out_of_memory(Limits().memory_mb).detail}`" in PAGE
    use = MemoryUse(600 * 2**20, Limits().memory_mb * 2**20, 3)
    assert f"`{use.explain()}`" in PAGE


def test_margins_and_settings_are_as_it_says() -> None:
    assert f"{_MARGIN_MB} MiB of margin" in PAGE
    assert f"{_MEMORY_MARGIN_MB} MiB, swap included" in PAGE.replace("\n", " ")
    pool = load_settings().pool
    for name in re.findall(r"`pool\.(\w+)`", PAGE):
        assert hasattr(pool, name), name
