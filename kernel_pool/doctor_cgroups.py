"""Which cgroup controllers there are here (cgroups(7)), and whether this process may make groups in them."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

#: What a kernel's limits are made of: memory, processes, CPU; and what takes the CPU from an idle one.
WANTED = ("memory", "pids", "cpu", "freezer")
#: In version 2 every group can be frozen.
_BUILT_IN = "freezer"


@dataclass(frozen=True)
class Controller:
    """One controller. Limits by cgroup need it; local kernels have rlimits and a watcher without."""

    name: str
    #: 1 or 2; 0 when there is none.
    version: int
    problem: str = ""
    remedy: str = ""


def controllers() -> list[Controller]:
    """Each of `WANTED`, tried. Blocks briefly."""
    first, second = _mounts()
    own = _own_groups()
    return [_try(name, first, second, own) for name in WANTED]


def _try(name: str, first: dict[str, Path], second: Path | None, own: dict[str, str]) -> Controller:
    if name in first:
        return _make(name, 1, _below(first[name], own.get(name, "/")))
    if second is not None:
        group = _below(second, own.get("", "/"))
        offered = _words(group / "cgroup.controllers") | {_BUILT_IN}
        if name in offered:
            return _make(name, 2, group)
        if name in _words(second / "cgroup.controllers"):
            return Controller(name, 2, f"{group} is not given it", _delegate())
    return Controller(name, 0, "it is not mounted", "apt-get install cgroupfs-mount && cgroupfs-mount")


def _make(name: str, version: int, group: Path) -> Controller:
    trial = group / f"omniops-doctor-{secrets.token_hex(4)}"
    try:
        trial.mkdir()
    except OSError as error:
        return Controller(name, version, f"{group}: {error.strerror}", _delegate())
    with contextlib.suppress(OSError):
        trial.rmdir()
    return Controller(name, version)


def _delegate() -> str:
    if os.getuid() == 0:
        return "Mount cgroups writable: mount -o remount,rw /sys/fs/cgroup"
    return "systemd-run --user --scope -p Delegate=yes omniops serve, or run the gateway as root"


def _mounts() -> tuple[dict[str, Path], Path | None]:
    """Where version 1's controllers are mounted, and where version 2 is."""
    first: dict[str, Path] = {}
    second: Path | None = None
    for line in _lines("/proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup":
            first |= {name: Path(fields.split()[4]) for name in options.split(",") if name in WANTED}
        elif kind == "cgroup2":
            second = second or Path(fields.split()[4])
    return first, second


def _own_groups() -> dict[str, str]:
    """This process's group in each hierarchy, by controller; version 2's under ""."""
    found: dict[str, str] = {}
    for line in _lines("/proc/self/cgroup"):
        _, names, group = line.split(":", 2)
        found |= dict.fromkeys(names.split(","), group)
    return found


def _below(mount: Path, group: str) -> Path:
    """The group's folder; the mount itself when it shows another part of the tree, as in a container."""
    path = mount / group.lstrip("/")
    return path if path.is_dir() else mount


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError:
        return set()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
