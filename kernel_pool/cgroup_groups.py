"""The control groups of a place's kernels: one for the place, one below it for each kernel. Files, and no more.

Names: `omniops-<owner>/<kernel>`, the owner being a digest of the place's runtime folder, so that a gateway finds what
one before it left, in whatever group that one ran: a file in the runtime folder tells where its groups were. Formats:
the Linux documentation's cgroup-v1/memory, cgroup-v1/freezer-subsystem, sched-bwc and cgroup-v2.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from kernel_pool.cgroups import FREEZER, Cgroups, Hierarchy
from kernel_pool.types import StartFailed

_PREFIX = "omniops-"
_PERIOD_US = 100_000
#: The least that Linux takes as a quota of CPU time per period.
_LEAST_QUOTA_US = 1000
#: A group's last processes take a moment to go; then it can be removed.
_REMOVE_TIMEOUT_S = 5.0
_RETRY_S = 0.01


@dataclass(frozen=True)
class KernelGroup:
    """One kernel's groups: a folder in each hierarchy that is used. All methods block, for microseconds unless told."""

    name: str
    hierarchies: tuple[Hierarchy, ...]

    def folder(self, controller: str) -> tuple[Path, int] | None:
        """The folder that has `controller`, and its version of cgroups."""
        for hierarchy in self.hierarchies:
            if controller in hierarchy.controllers:
                return hierarchy.folder / self.name, hierarchy.version
        return None

    @property
    def freezes(self) -> bool:
        return self.folder(FREEZER) is not None

    def limit_processes(self, count: int) -> None:
        """At most `count` processes and threads; then fork(2) fails with EAGAIN."""
        if found := self.folder("pids"):
            _write(found[0] / "pids.max", str(count))

    def limit_cpu(self, cores: float) -> None:
        """At most so much CPU time per time, in cores; beyond it the kernel waits."""
        if found := self.folder("cpu"):
            folder, version = found
            quota = max(_LEAST_QUOTA_US, int(cores * _PERIOD_US))
            if version == 2:
                _write(folder / "cpu.max", f"{quota} {_PERIOD_US}")
            else:
                _write(folder / "cpu.cfs_period_us", str(_PERIOD_US))
                _write(folder / "cpu.cfs_quota_us", str(quota))

    def limit_memory(self, size: int) -> None:
        """At most `size` bytes, files in memory, page tables and sockets' queues included, and no swap on top.

        Beyond it Linux ends a process of the group (with version 2: all of them), and `out_of_memory` counts it.
        """
        if found := self.folder("memory"):
            folder, version = found
            if version == 2:
                _write_if_there(folder / "memory.oom.group", "1")
                _write_if_there(folder / "memory.swap.max", "0")
                _write(folder / "memory.max", str(size))
            else:
                _write(folder / "memory.limit_in_bytes", str(size))
                # there only where swap is accounted for
                _write_if_there(folder / "memory.memsw.limit_in_bytes", str(size))

    def join(self, pid: int) -> None:
        """Put a process with all its threads in; what it starts is in too. Blocks for up to 20 ms.

        What it held before stays counted where it was.
        """
        for hierarchy in self.hierarchies:
            _write(hierarchy.folder / self.name / "cgroup.procs", str(pid))

    def out_of_memory(self) -> int:
        """How many processes Linux ended because the group was at its memory limit."""
        if found := self.folder("memory"):
            folder, version = found
            file = "memory.events" if version == 2 else "memory.oom_control"
            return _field(folder / file, "oom_kill")
        return 0

    def freeze(self) -> None:
        """Take the CPU from all processes of the group, those that come later too; `frozen` says when it is done."""
        self._set_frozen(True)

    def thaw(self) -> None:
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        if found := self.folder(FREEZER):
            folder, version = found
            file, word = ("cgroup.freeze", str(int(frozen)))
            if version == 1:
                file, word = "freezer.state", "FROZEN" if frozen else "THAWED"
            # a group that is gone holds nobody
            with contextlib.suppress(FileNotFoundError, OSError):
                _write(folder / file, word)

    @property
    def frozen(self) -> bool:
        """Whether no process of the group runs any more."""
        if found := self.folder(FREEZER):
            folder, version = found
            if version == 2:
                return _field(folder / "cgroup.events", "frozen") == 1
            return _read(folder / "freezer.state").strip() == "FROZEN"
        return False

    def processes(self) -> set[int]:
        """Their ids, as far as this process can see them."""
        found = {int(pid) for h in self.hierarchies for pid in _read(h.folder / self.name / "cgroup.procs").split()}
        return found - {0}

    def kill(self) -> None:
        """End all processes of the group: at once where version 2 can, one after the other elsewhere."""
        for hierarchy in self.hierarchies:
            with contextlib.suppress(OSError):
                _write(hierarchy.folder / self.name / "cgroup.kill", "1")
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, 9)
        self.thaw()

    def remove(self) -> bool:
        """Remove the groups, waiting a while (seconds) for their last processes; False when one stays."""
        deadline = time.monotonic() + _REMOVE_TIMEOUT_S
        folders = [hierarchy.folder / self.name for hierarchy in self.hierarchies]
        while folders := [folder for folder in folders if not _remove(folder)]:
            if time.monotonic() > deadline:
                return False
            time.sleep(_RETRY_S)
        return True


class PlaceGroups:
    """The groups of one place, in every hierarchy that is used. All methods block briefly."""

    def __init__(self, cgroups: Cgroups, runtime_dir: Path) -> None:
        self._name = _PREFIX + hashlib.sha256(os.fsencode(runtime_dir)).hexdigest()[:16]
        self._record = runtime_dir / "cgroups"
        self._hierarchies = tuple(
            Hierarchy(found.version, found.folder / self._name, found.controllers) for found in cgroups.hierarchies
        )

    @property
    def folders(self) -> tuple[Path, ...]:
        """The place's own group in each hierarchy."""
        return tuple(hierarchy.folder for hierarchy in self._hierarchies)

    def open(self, living: Collection[str] = ()) -> None:
        """Make the place's groups; remove those of kernels that a gateway before left, but for the `living`.

        Those are thawed. Raises StartFailed.
        """
        before = self._recorded()
        for hierarchy in (*before, *self._hierarchies):
            self._sweep(hierarchy, living)
        for hierarchy in before:
            if hierarchy.folder not in {used.folder for used in self._hierarchies}:
                _remove(hierarchy.folder)
        try:
            for hierarchy in self._hierarchies:
                self._prepare(hierarchy)
        except OSError as error:
            raise StartFailed(f"no cgroup can be made for kernels: {error}. Set cgroups to off.") from error
        kept = [h for h in before if h.folder.is_dir() and h.folder not in {u.folder for u in self._hierarchies}]
        if self._hierarchies or kept:
            self._write_record((*self._hierarchies, *kept))
        else:
            self._record.unlink(missing_ok=True)

    def make(self, kernel: str) -> KernelGroup:
        """A kernel's groups, without limits. Raises StartFailed."""
        group = KernelGroup(kernel, self._hierarchies)
        try:
            for hierarchy in self._hierarchies:
                # the template before took it away when it ended
                if not hierarchy.folder.is_dir():
                    self._prepare(hierarchy)
                (hierarchy.folder / kernel).mkdir(mode=0o755)
        except OSError as error:
            group.remove()
            raise StartFailed(f"no cgroup can be made for kernel {kernel}: {error}") from error
        return group

    def of(self, kernel: str) -> KernelGroup | None:
        """The groups of a kernel that a gateway before started; None when it has none."""
        found = tuple(h for h in (*self._hierarchies, *self._recorded()) if (h.folder / kernel).is_dir())
        unique = {hierarchy.folder: hierarchy for hierarchy in found}
        return KernelGroup(kernel, tuple(unique.values())) if unique else None

    def thaw(self) -> None:
        """Let all kernels go on; with version 1 a frozen one could not end."""
        for hierarchy in self._hierarchies:
            for kernel in _children(hierarchy.folder):
                KernelGroup(kernel, (hierarchy,)).thaw()

    def close(self) -> None:
        """Remove all groups of the place whose processes have ended."""
        removed = True
        for hierarchy in {h.folder: h for h in (*self._recorded(), *self._hierarchies)}.values():
            for kernel in _children(hierarchy.folder):
                KernelGroup(kernel, (hierarchy,)).remove()
            removed = _remove(hierarchy.folder) and removed
        if removed:
            self._record.unlink(missing_ok=True)

    def _sweep(self, hierarchy: Hierarchy, living: Collection[str]) -> None:
        for kernel in _children(hierarchy.folder):
            group = KernelGroup(kernel, (hierarchy,))
            group.thaw()
            if kernel not in living:
                group.kill()
                group.remove()

    def _prepare(self, hierarchy: Hierarchy) -> None:
        hierarchy.folder.mkdir(mode=0o755, exist_ok=True)
        if hierarchy.version == 2:
            for name in sorted(hierarchy.controllers - {FREEZER}):
                _write(hierarchy.folder / "cgroup.subtree_control", f"+{name}")

    def _recorded(self) -> tuple[Hierarchy, ...]:
        """The groups that the runtime folder tells of; nothing else than such a group is believed."""
        found = []
        for line in _read(self._record).splitlines():
            version, names, folder = line.split(" ", 2)
            if Path(folder).name == self._name:
                found.append(Hierarchy(int(version), Path(folder), frozenset(names.split(","))))
        return tuple(found)

    def _write_record(self, hierarchies: Collection[Hierarchy]) -> None:
        lines = [f"{h.version} {','.join(sorted(h.controllers))} {h.folder}\n" for h in hierarchies]
        fresh = self._record.with_suffix(".new")
        fresh.write_text("".join(lines))
        fresh.replace(self._record)


def _children(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _remove(folder: Path) -> bool:
    """Remove a group; False while it has processes."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(path: Path, text: str) -> None:
    """One write, never a new file: these are switches that Linux has made."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} when writing {text}", os.fspath(path)) from error
    finally:
        os.close(fd)


def _write_if_there(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        _write(path, text)


def _field(path: Path, name: str) -> int:
    """A number of a file with a name and a number per line; 0 when it is not there."""
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
