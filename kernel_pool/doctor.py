"""What isolation this machine offers: every part of every kind of sandbox, tried for real.

Needs no running gateway and no root. Nothing that is tried stays: each trial is a process, folder or container of its
own. `omniops doctor` shows the findings.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kernel_pool.choice import RUNTIMES
from kernel_pool.container_check import LIMITS, Daemon, ask, bring_runtime
from kernel_pool.container_config import DockerConfig, Runtime
from kernel_pool.container_image import sandbox_digest
from kernel_pool.doctor_cgroups import Controller, controllers
from kernel_pool.isolation import remedy_for
from kernel_pool.kernel_limits import cgroups_for
from kernel_pool.local import LocalPlace
from kernel_pool.place import Place
from kernel_pool.seccomp import compile_filter
from kernel_pool.types import Exit, ExitReason, IsolationUnavailable, KernelPoolError, Limits, PlaceConfig, Profile

State = Literal["works", "fails", "absent"]

_PACKAGE_DIR = Path(__file__).parent
_PARTS = "import sys; sys.path.append(sys.argv[1]); from sandbox.parts import main; main(*sys.argv[2:])"
_TIMEOUT_S = 60.0
_OVER = Exit(ExitReason.SHUTDOWN, "the trial is over")
_LIMITS = Limits(memory_mb=192, disk_mb=16, processes=32, open_files=256)
#: What each part of the local sandbox is tried by.
_TRIED = {
    "user namespace": "unshare(CLONE_NEWUSER), uid_map",
    "mount namespace": "unshare(CLONE_NEWNS)",
    "process namespace": "unshare(CLONE_NEWPID)",
    "network namespace": "unshare(CLONE_NEWNET)",
    "IPC namespace": "unshare(CLONE_NEWIPC)",
    "host name namespace": "unshare(CLONE_NEWUTS)",
    "cgroup namespace": "unshare(CLONE_NEWCGROUP)",
    "file system in memory": "mount a tmpfs",
    "bind mount": "bind /usr with mount_setattr",
    "read-only mount": "mount_setattr, then a write",
    "pivot_root": "pivot_root into a tmpfs",
    "proc of its own": "mount proc in a new process namespace",
    "terminals of its own": "mount devpts",
    "user namespace of a kernel": "a second unshare(CLONE_NEWUSER)",
    "no capabilities": "capset, PR_CAPBSET_DROP",
    "no_new_privs": "prctl(PR_SET_NO_NEW_PRIVS)",
    "pidfd": "pidfd_open",
    "descriptors over sockets": "sendmsg(SCM_RIGHTS)",
    "system user of its own": "setresuid",
    "seccomp filter": "load it, then a call that it refuses",
}


@dataclass(frozen=True)
class Finding:
    """One part, and what came of trying it."""

    #: "local", "docker", "docker runc", "docker runsc", or another name for what is beside the sandboxes.
    place: str
    part: str
    tried: str
    #: "absent": it does not work, and nothing that is needed here depends on it.
    state: State
    #: What there is, or what is missing.
    found: str = ""
    #: The command that installs or opens it; "" where there is nothing to do.
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


async def examine(docker: DockerConfig, *, uid: int = 700_000, start_timeout_s: float = _TIMEOUT_S) -> list[Finding]:
    """Try everything (some seconds). `docker.runtime` does not count; `uid` is, as root, one that kernels may have."""
    local, containers = await asyncio.gather(
        _examine_local(uid, start_timeout_s), _examine_docker(docker, uid, start_timeout_s)
    )
    return [*local, *containers]


def works(findings: list[Finding], place: str) -> bool:
    """Whether a kernel really started in `place`."""
    return any(found.place == place and found.part == "a kernel" and found.state == "works" for found in findings)


async def _examine_local(uid: int, timeout_s: float) -> list[Finding]:
    parts = await asyncio.to_thread(local_parts, uid)
    cgroups = await asyncio.to_thread(controllers)
    used = await asyncio.to_thread(_cgroups_used)
    return [*parts, *map(_cgroup_finding, cgroups), used, await _start_one("local", LocalPlace, uid, timeout_s)]


def local_parts(uid: int) -> list[Finding]:
    """Each part of the sandbox of our own (about 0.2 s, blocking)."""
    release = platform.release()
    found = [Finding("local", "Linux", "uname", "works" if sys.platform == "linux" else "fails", release)]
    try:
        program = compile_filter()
        text = f"an allow-list of {len(program) // 8} instructions"
        found.append(Finding("local", "libseccomp", "compile the filter", "works", text))
    except IsolationUnavailable as error:
        program = b""
        remedy = "apt-get install libseccomp2"
        found.append(Finding("local", "libseccomp", "compile the filter", "fails", str(error), remedy))
    with tempfile.TemporaryDirectory(prefix="omniops-doctor-") as directory:
        arguments = [str(_PACKAGE_DIR), directory, str(uid), base64.b64encode(program).decode()]
        command = [sys.executable, "-I", "-S", "-c", _PARTS, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, env={}, timeout=_TIMEOUT_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return [*found, Finding("local", "all parts", "try them", "fails", f"no answer in {_TIMEOUT_S:g} s")]
    for line in done.stdout.splitlines():
        report = json.loads(line)
        part, failure = report["part"], report["failure"]
        state: State = "fails" if failure else "works"
        found.append(Finding("local", part, _TRIED[part], state, failure, remedy_for(failure) if failure else ""))
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        found.append(Finding("local", "all parts", "try them", "fails", said[-1] if said else str(done.returncode)))
    return found


def _cgroup_finding(controller: Controller) -> Finding:
    part = f"cgroup {controller.name}" + (f" (v{controller.version})" if controller.version else "")
    state: State = "absent" if controller.problem else "works"
    return Finding("local", part, "make a group and remove it", state, controller.problem, controller.remedy)


def _cgroups_used() -> Finding:
    """What kernels get of all that; they have rlimits and a watcher as well."""
    cgroups = cgroups_for("auto")
    state: State = "absent" if cgroups.problem else "works"
    found = cgroups.problem or cgroups.summary()
    return Finding("local", "limits by cgroup", "find groups for kernels", state, found, cgroups.remedy)


async def _examine_docker(docker: DockerConfig, uid: int, timeout_s: float) -> list[Finding]:
    daemon = await ask(docker)
    problem = daemon.problem("runc")
    if not daemon.answers:
        assert problem is not None
        state: State = "fails" if daemon.named else "absent"
        return [Finding("docker", "daemon", f"ask {daemon.address}", state, daemon.silence, problem.remedy), _tools()]
    found = [
        Finding("docker", "daemon", f"ask {daemon.address}", "works", f"Docker {daemon.version}"),
        _seccomp(daemon),
        *(_limit(daemon, name, controller) for name, controller in LIMITS.items()),
        _image(daemon),
        _tools(),
    ]
    for runtime in RUNTIMES[::-1]:
        found += await _examine_runtime(docker, daemon, runtime, uid, timeout_s)
    return found


async def _examine_runtime(
    docker: DockerConfig, daemon: Daemon, runtime: Runtime, uid: int, timeout_s: float
) -> list[Finding]:
    place = f"docker {runtime}"
    if runtime not in daemon.runtimes:
        text = f"Docker has {', '.join(daemon.runtimes)}"
        return [Finding(place, "runtime", "the daemon's list", "absent", text, bring_runtime(runtime))]
    found = [Finding(place, "runtime", "the daemon's list", "works")]
    problem = daemon.problem(runtime)
    if problem is not None:
        state: State = "fails" if problem.broken else "absent"
        return [*found, Finding(place, "a kernel", "nothing", state, f"first: {problem.text}")]
    from kernel_pool.docker import DockerPlace

    config = replace(docker, runtime=runtime)
    return [*found, await _start_one(place, lambda wanted: DockerPlace(wanted, config), uid, timeout_s)]


def _seccomp(daemon: Daemon) -> Finding:
    tried = "the daemon's security options"
    if daemon.seccomp:
        return Finding("docker", "seccomp", tried, "works")
    return Finding("docker", "seccomp", tried, "fails", "it has none", "Use a Linux with CONFIG_SECCOMP_FILTER.")


def _limit(daemon: Daemon, name: str, controller: str) -> Finding:
    part, tried = f"limit on {controller}", f"the daemon's {name}"
    if name in daemon.limits:
        return Finding("docker", part, tried, "works", f"cgroup v{daemon.cgroup_version}")
    remedy = "apt-get install cgroupfs-mount, or start Linux with systemd.unified_cgroup_hierarchy=1"
    return Finding("docker", part, tried, "fails", f"no cgroup controller {controller!r}", remedy)


def _image(daemon: Daemon) -> Finding:
    problem = daemon.image_problem()
    tried = f"inspect {daemon.image}, compare its code"
    if problem is None:
        return Finding("docker", "image", tried, "works", f"{daemon.image_id[:19]}, code {sandbox_digest()}")
    state: State = "fails" if problem.broken else "absent"
    return Finding("docker", "image", tried, state, problem.text, problem.remedy)


def _tools() -> Finding:
    """What `docker/build-image` runs."""
    missing = [name for name in ("docker", "debootstrap") if not shutil.which(name)]
    if not missing:
        return Finding("docker", "to build the image", "look for docker, debootstrap", "works")
    remedy = "sudo docker/setup-debian"
    return Finding("docker", "to build the image", "look for them", "absent", f"no {', '.join(missing)}", remedy)


async def _start_one(place: str, place_of: Callable[[PlaceConfig], Place], uid: int, timeout_s: float) -> Finding:
    """Start a kernel as the pool would, and end it."""
    parent = Path(tempfile.mkdtemp(prefix="omniops-doctor-"))
    profile = Profile(preload=(), limits=_LIMITS, minimum=0)
    config = PlaceConfig(parent / "run", profile, start_timeout_s=timeout_s, uid_range=(uid, 1000))
    try:
        trial, begin = place_of(config), time.monotonic()
        await trial.start()
        try:
            process = await trial.spawn()
            spent = time.monotonic() - begin
            await process.kill(_OVER)
            await trial.discard(process)
        finally:
            await trial.close()
    except (KernelPoolError, OSError) as error:
        remedy = remedy_for(str(error)) if place == "local" else ""
        return Finding(place, "a kernel", "start one and end it", "fails", str(error), remedy)
    finally:
        shutil.rmtree(parent, ignore_errors=True)
    return Finding(place, "a kernel", "start one and end it", "works", f"in {spent:.1f} s, place included")


def who() -> str:
    """As whom all this was tried."""
    return "root" if os.getuid() == 0 else f"user {os.getuid()}"
