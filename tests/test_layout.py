"""The import rules that keep the parts apart, held against the code's real import graph."""

from __future__ import annotations

from functools import cache

import grimp
import pytest

PARTS = ("kernel_pool", "servers", "gateway", "demo", "omniops_client")

FORBIDDEN = {
    "kernel_pool": ("servers", "gateway", "demo", "omniops_client"),
    "servers": ("kernel_pool", "gateway", "demo", "omniops_client"),
    "gateway": ("demo",),
    "demo": ("kernel_pool", "gateway"),
    "omniops_client": ("kernel_pool", "servers", "gateway", "demo"),
}

#: What runs inside the sandbox may import this of others (beside the standard library), and nothing else of ours.
SANDBOX_MAY_IMPORT = {
    "IPython",
    "ipykernel",
    "jupyter_client",
    "msgspec",
    "pandas",
    "pyarrow",
    "tornado",
    "traitlets",
    "zmq",
    "comm",
    "numpy",
    "orjson",
}


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PARTS, include_external_packages=True, cache_dir=None)


def imports(part: str) -> set[tuple[str, str]]:
    modules = {part} | graph().find_descendants(part)
    return {(module, target) for module in modules for target in graph().find_modules_directly_imported_by(module)}


@pytest.mark.parametrize("part", FORBIDDEN)
def test_part_imports_only_what_it_may_know(part: str) -> None:
    broken = [f"{a} -> {b}" for a, b in imports(part) if b.split(".")[0] in FORBIDDEN[part]]
    assert broken == []


def test_sandbox_imports_nothing_of_ours_outside_itself() -> None:
    broken = [
        f"{a} -> {b}"
        for a, b in imports("kernel_pool.sandbox")
        if b.split(".")[0] in PARTS and not (b + ".").startswith("kernel_pool.sandbox.")
    ]
    assert broken == []


def test_sandbox_imports_only_the_kernels_own_libraries() -> None:
    import sys

    allowed = SANDBOX_MAY_IMPORT | set(sys.stdlib_module_names) | {"kernel_pool"}
    broken = [f"{a} -> {b}" for a, b in imports("kernel_pool.sandbox") if b.split(".")[0] not in allowed]
    assert broken == []


def test_every_part_is_seen_by_the_graph() -> None:
    for part in PARTS:
        assert graph().find_descendants(part), f"{part} has no modules: the rules above would hold of nothing"
