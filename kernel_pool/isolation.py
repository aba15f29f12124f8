"""What isolation this machine offers, found out by trying it in a process of its own.

There is one kind of sandbox and no weaker one: a machine that cannot give it gets IsolationUnavailable with the
command that changes that, never a silent downgrade.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kernel_pool.sandbox import linux
from kernel_pool.seccomp import compile_filter
from kernel_pool.types import IsolationUnavailable

_PACKAGE_DIR = Path(__file__).parent
_PROBE = "import sys; sys.path.append(sys.argv[1]); from sandbox.probe import main; main(*sys.argv[2:])"
_PROBE_TIMEOUT_S = 20

#: Switches that close unprivileged user namespaces: file, the value that closes them, what opens them.
_SWITCHES = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
#: Limits on other namespaces, in /proc/sys/user, and the flag by which they are made.
_COUNTED = {
    "mnt": linux.NEW_NS,
    "pid": linux.NEW_PID,
    "net": linux.NEW_NET,
    "ipc": linux.NEW_IPC,
    "uts": linux.NEW_UTS,
    "cgroup": linux.NEW_CGROUP,
}


@dataclass(frozen=True)
class IsolationReport:
    """What a kernel's sandbox is made of here, or why there is none."""

    #: "root": each kernel runs as a system user of its own; "user": all run as the gateway's user, each in its own
    #: user namespace.
    mode: str
    kernel_release: str
    #: Filter instructions; 0 when there is no filter.
    seccomp_instructions: int
    #: Empty when the sandbox works; else what failed, and the command that helps.
    problem: str = ""
    remedy: str = ""
    #: The cgroups that limit kernels beside rlimits and the memory watcher, in words.
    cgroups: str = "no cgroup"

    @property
    def available(self) -> bool:
        return not self.problem

    def summary(self) -> str:
        """One line for people."""
        if not self.available:
            return f"no isolation: {self.problem}. {self.remedy}"
        user = "a system user per kernel" if self.mode == "root" else "the gateway's user, seen as another"
        return (
            f"namespaces (user, pid, mount, network, ipc, uts, cgroup), read-only root, {user}, no capabilities, "
            f"seccomp allow-list, limits by rlimit, memory watcher and {self.cgroups}"
        )

    def require(self) -> None:
        """Raise IsolationUnavailable unless the sandbox works."""
        if not self.available:
            raise IsolationUnavailable(
                f"this machine cannot isolate kernels: {self.problem}. {self.remedy} "
                f"Kernels are never started without isolation."
            )


def probe(uid: int = 700_000) -> IsolationReport:
    """Try a sandbox (about 0.1 s, blocking). `uid`: as root, a user id that kernels may have."""
    mode = "root" if os.getuid() == 0 else "user"
    release = platform.release()
    if sys.platform != "linux":
        return IsolationReport(mode, release, 0, f"{sys.platform} has no Linux namespaces", "Run it on Linux.")
    try:
        instructions = len(compile_filter()) // 8
    except IsolationUnavailable as error:
        return IsolationReport(mode, release, 0, str(error), "")
    failure = _try_sandbox(uid)
    if not failure:
        return IsolationReport(mode, release, instructions)
    return IsolationReport(mode, release, instructions, failure, remedy_for(failure))


def _try_sandbox(uid: int) -> str:
    """What failed, or nothing."""
    with tempfile.TemporaryDirectory(prefix="omniops-probe-") as directory:
        command = [sys.executable, "-I", "-S", "-c", _PROBE, str(_PACKAGE_DIR), directory, str(uid)]
        try:
            done = subprocess.run(command, capture_output=True, env={}, timeout=_PROBE_TIMEOUT_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return f"the trial sandbox did not answer in {_PROBE_TIMEOUT_S} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"the trial sandbox ended with status {done.returncode}"


def remedy_for(failure: str) -> str:
    """What to do about a step of the sandbox that failed with these words."""
    for name, flag in _COUNTED.items():
        if f"unshare({flag:#x})" in failure and _read(f"/proc/sys/user/max_{name}_namespaces") == "0":
            return f"Namespaces are limited here; open them: sysctl -w user.max_{name}_namespaces=15000"
    for path, closed, command in _SWITCHES:
        if _read(path) == closed:
            return f"User namespaces are closed here; open them: {command}"
    if "mount_setattr" in failure:
        return "The sandbox needs Linux 5.12 or newer."
    if "proc" in failure:
        return "Part of /proc is hidden here, as in containers: run with an unmasked /proc, or outside the container."
    return "In a container, its seccomp profile may refuse namespaces: allow unshare, mount and pivot_root there."


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
