"""Which control groups this process may use for its kernels (cgroups(7)), found out by looking.

Version 1 has a hierarchy of its own for each controller, version 2 one for all; many machines have both ("hybrid"):
controllers in version 1 and beside them an empty hierarchy of version 2. That one can freeze and kill all the same, and
better: what is frozen there still dies of SIGKILL. So memory, pids and cpu come from wherever they are, and freezing
from version 2 where it is mounted.

Groups are made below the group that this process is in, so that limits on the gateway's service hold for its kernels
too. In version 2 a group with processes can give no controller to groups below it: a gateway that is alone in its
group moves into one below that, and systemd's `DelegateSubgroup=` is understood.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: What limits a kernel; freezing takes the CPU from one that is idle.
LIMITING = ("memory", "pids", "cpu")
FREEZER = "freezer"

#: Where a gateway goes that has to leave its group of version 2 to the groups below it.
_GATEWAY = "omniops-gateway"
#: What systemd marks a group with that it left to a service (systemd.resource-control(5), Delegate=).
_DELEGATED = ("trusted.delegate", "user.delegate")
_REMEDY_USER = "Start the gateway with: systemd-run --user --scope -p Delegate=yes omniops serve"
_REMEDY_ROOT = (
    "Start the gateway by a systemd unit with Delegate=yes, or with: systemd-run --scope -p Delegate=yes omniops serve "
    "(in a container: mount cgroups writable)."
)


@dataclass(frozen=True)
class Hierarchy:
    """One hierarchy, and the group of this process in it: kernels' groups go below."""

    version: int
    folder: Path
    #: Of `LIMITING` and `FREEZER`, what is used of this hierarchy.
    controllers: frozenset[str]


@dataclass(frozen=True)
class Cgroups:
    """What this process may use. `hierarchies` is empty when there is nothing; `problem` says what is missing."""

    hierarchies: tuple[Hierarchy, ...]
    problem: str = ""
    remedy: str = ""

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset().union(*(hierarchy.controllers for hierarchy in self.hierarchies))

    def summary(self) -> str:
        """For people: "cgroup v1 (cpu, memory, pids), v2 (freezer)", or "no cgroup"."""
        parts: dict[int, set[str]] = {}
        for hierarchy in self.hierarchies:
            parts.setdefault(hierarchy.version, set()).update(hierarchy.controllers)
        texts = [f"v{version} ({', '.join(sorted(names))})" for version, names in sorted(parts.items())]
        return f"cgroup {', '.join(texts)}" if texts else "no cgroup"


def find(mountinfo: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup")) -> Cgroups:
    """Look what there is and may be written. Blocks briefly; on version 2 this process may change its group.

    `mountinfo`, `own`: the files of proc(5) and cgroups(7) with these names.
    """
    first, second = _folders(_lines(mountinfo), _lines(own))
    problems: list[str] = []
    hierarchies: list[Hierarchy] = []
    for folder, names in first.items():
        if _writable(folder):
            hierarchies.append(Hierarchy(1, folder, names))
        else:
            problems.append(f"{', '.join(sorted(names))}: {folder} cannot be written")
    if second is not None:
        taken = frozenset().union(*first.values())
        try:
            hierarchies.append(_second(second, frozenset(LIMITING) - taken))
        except OSError as error:
            problems.append(f"{second}: {error.strerror}")
    found = _without_double_freezer(hierarchies)
    have = frozenset().union(*(hierarchy.controllers for hierarchy in found))
    problems += [
        f"no controller {name} is given to {second or 'this process'}" for name in LIMITING if name not in have
    ]
    remedy = (_REMEDY_USER if os.getuid() else _REMEDY_ROOT) if problems else ""
    return Cgroups(found, "; ".join(problems), remedy)


def _folders(mounts: Iterable[str], groups: Iterable[str]) -> tuple[dict[Path, frozenset[str]], Path | None]:
    """This process's folders: of version 1 with the controllers of each, and of version 2."""
    own: dict[str, str] = {}
    for line in groups:
        _, names, group = line.split(":", 2)
        own |= dict.fromkeys(names.split(","), group)
    first: dict[Path, frozenset[str]] = {}
    second: Path | None = None
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        root, point = (_unescape(field) for field in fields.split()[3:5])
        if kind == "cgroup":
            controllers = frozenset(options.split(",")) & {*LIMITING, FREEZER}
            if controllers:
                first.setdefault(_below(point, root, own.get(min(controllers), "/")), controllers)
        elif kind == "cgroup2" and second is None:
            second = _below(point, root, own.get("", "/"))
    return first, second


def _unescape(field: str) -> str:
    """Undo proc(5)'s escapes of blanks in paths."""
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _below(point: str, root: str, group: str) -> Path:
    """The group's folder. A mount shows the tree from `root` on; in a container that need not be this process's."""
    if group == root or group.startswith(root.rstrip("/") + "/"):
        group = group[len(root.rstrip("/")) :]
        path = Path(point, group.lstrip("/"))
        if ".." not in path.parts and path.is_dir():
            return path
    return Path(point)


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _second(own: Path, wanted: frozenset[str]) -> Hierarchy:
    """Version 2 with what can be had of `wanted`. Raises OSError when no group can be made there."""
    delegated_above = any(_has_attribute(own.parent, name) for name in _DELEGATED)
    base = own.parent if delegated_above and _writable(own.parent) and not _processes(own.parent) else own
    if not _writable(base):
        raise PermissionError(errno.EACCES, "cannot be written")
    offered = wanted & set(_read(base / "cgroup.controllers").split())
    given = offered and _enable(base, offered)
    return Hierarchy(2, base, frozenset(given) | {FREEZER})


def _enable(base: Path, controllers: frozenset[str]) -> frozenset[str]:
    """Give controllers to the groups below `base`; which of them are given."""
    control = base / "cgroup.subtree_control"
    missing = controllers - set(_read(control).split())
    for name in sorted(missing):
        try:
            control.write_text(f"+{name}")
        except OSError as error:
            if error.errno != errno.EBUSY or not _leave(base):
                continue
            with contextlib.suppress(OSError):
                control.write_text(f"+{name}")
    return controllers & set(_read(control).split())


def _leave(base: Path) -> bool:
    """Move this process, and what it started, into a group below `base`; False when others are in `base` too."""
    pids = _processes(base)
    if not pids or not all(_is_ours(pid) for pid in pids):
        return False
    target = base / _GATEWAY
    target.mkdir(exist_ok=True)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            (target / "cgroup.procs").write_text(str(pid))
    return True


def _is_ours(pid: int) -> bool:
    """This process, or one that it started."""
    while pid > 1:
        if pid == os.getpid():
            return True
        fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        pid = int(fields[1]) if fields else 0
    return False


def _without_double_freezer(hierarchies: list[Hierarchy]) -> tuple[Hierarchy, ...]:
    """Where both versions can freeze, version 2 does."""
    if not any(hierarchy.version == 2 for hierarchy in hierarchies):
        return tuple(hierarchies)
    kept = []
    for hierarchy in hierarchies:
        names = hierarchy.controllers - {FREEZER} if hierarchy.version == 1 else hierarchy.controllers
        if names:
            kept.append(Hierarchy(hierarchy.version, hierarchy.folder, names))
    return tuple(kept)


def _has_attribute(path: Path, name: str) -> bool:
    try:
        return os.getxattr(path, name) == b"1"
    except OSError:
        return False


def _processes(folder: Path) -> list[int]:
    return [int(pid) for pid in _read(folder / "cgroup.procs").split()]


def _lines(path: Path) -> list[str]:
    return _read(path).splitlines()


def _read(path: Path) -> str:
    """What cannot be read is empty: a group that is gone, a file that this version of Linux does not have."""
    try:
        return path.read_text()
    except OSError:
        return ""
