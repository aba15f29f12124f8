"""This machine's control groups, and less than it has, for tests."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_pool import kernel_limits
from kernel_pool.cgroups import FREEZER, Cgroups, find

#: What must be hidden of the machine's mounts so that a kernel is frozen by this version.
FREEZERS: dict[str, tuple[str, ...]] = {"cgroup2": (), "cgroup1": (" cgroup2 ",)}
_MOUNTS = Path("/proc/self/mountinfo")


def found_without(folder: Path, *words: str) -> Cgroups:
    """What `find` finds where no cgroup is mounted whose line of mountinfo has one of `words`."""
    lines = [line for line in _MOUNTS.read_text().splitlines(keepends=True) if not any(word in line for word in words)]
    mounts = folder / "mountinfo"
    mounts.write_text("".join(lines))
    return find(mounts)


@functools.cache
def available(what: str) -> bool:
    """Whether this process can have it: a controller, "cgroup1" or "cgroup2" to freeze by, "any" group at all."""
    if what == "any":
        return bool(find().hierarchies)
    if what not in FREEZERS:
        return what in find().controllers
    with tempfile.TemporaryDirectory() as folder:
        found = found_without(Path(folder), *FREEZERS[what])
    return any(str(h.version) == what[-1] and FREEZER in h.controllers for h in found.hierarchies)


def give(monkeypatch: pytest.MonkeyPatch, cgroups: Cgroups) -> None:
    """Let local places find these."""
    found: Callable[[], Cgroups] = lambda: cgroups  # noqa: E731
    monkeypatch.setattr(kernel_limits, "find", found)


def groups_of(runtime_dir: Path) -> list[Path]:
    """The groups of a running pool's places, as its folder tells."""
    lines = [line for record in runtime_dir.glob("*/cgroups") for line in record.read_text().splitlines()]
    return [Path(line.split(" ", 2)[2]) for line in lines]
