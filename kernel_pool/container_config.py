"""What a sandbox container is made of, as the Docker Engine's API takes it (containers/create, API 1.41)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kernel_pool.container_seccomp import docker_profile
from kernel_pool.sandbox.isolate import PROC_SHOWN
from kernel_pool.sandbox.spec import BASE, FILES, HOME, IPC, LIBRARIES
from kernel_pool.types import Limits

Runtime = Literal["runc", "runsc"]

_MIB = 1024 * 1024

#: Room for a container whose need is not known yet, MiB.
_FIRST_MB = 1024
#: What a container may have on top of what it had when it was ready and what its kernel may use. MiB.
_SPARE_MB: dict[Runtime, int] = {"runc": 24, "runsc": 96}
#: Processes beside the kernel's. gVisor's own threads and one tracee per address space count against the limit.
_EXTRA_PIDS: dict[Runtime, int] = {"runc": 8, "runsc": 256}

#: Hidden also when the daemon's machine is another than this one: what Docker itself hides.
_PROC_HIDDEN = frozenset(
    [
        "acpi",
        "asound",
        "bus",
        "fs",
        "interrupts",
        "irq",
        "kcore",
        "keys",
        "latency_stats",
        "sched_debug",
        "scsi",
        "sysrq-trigger",
        "timer_list",
    ]
)

_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "HOME": HOME,
    "TMPDIR": "/tmp",  # noqa: S108 the sandbox's own
    # cannot be written: the completer then parses nothing ahead, which would cost each container 1 s and 35 MiB
    "XDG_CACHE_HOME": f"{BASE}/cache",
    "PYTHONDONTWRITEBYTECODE": "1",
    **LIBRARIES,
}


@dataclass(frozen=True)
class DockerConfig:
    """How kernels get their containers."""

    image: str = "omniops-sandbox"
    #: "runc": the machine's kernel behind namespaces and seccomp. "runsc": gVisor, a kernel of its own in between.
    runtime: Runtime = "runc"
    #: Address of the daemon, as DOCKER_HOST has it. None: DOCKER_HOST, or the usual socket.
    host: str | None = None


def container_config(
    docker: DockerConfig,
    limits: Limits,
    *,
    user: tuple[int, int],
    ipc: Path,
    files: Path,
    labels: dict[str, str],
    baseline: int | None,
    loopback: bool = False,
) -> dict[str, Any]:
    """The container of one kernel.

    `user`: user and group id. `ipc`, `files`: folders of the host that it sees. `baseline`: bytes that such a
    container has when its kernel is ready; None for the first, by which that is found out.
    `loopback`: whether it may use TCP with itself; there is no other network.
    """
    needed = _FIRST_MB * _MIB if baseline is None else baseline + _SPARE_MB[docker.runtime] * _MIB
    memory = needed + (limits.memory_mb + limits.disk_mb) * _MIB
    uid, gid = user
    tmpfs = f"rw,nosuid,nodev,size={limits.disk_mb}m,nr_inodes={limits.disk_mb * 256}"
    return {
        "Image": docker.image,
        "User": f"{uid}:{gid}",
        "Labels": labels,
        "Hostname": "kernel",
        "WorkingDir": HOME,
        "Env": [f"{name}={value}" for name, value in _ENVIRONMENT.items()],
        "NetworkDisabled": True,
        "HostConfig": {
            "Runtime": docker.runtime,
            "NetworkMode": "none",
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "Privileged": False,
            "MaskedPaths": _masked_paths(),
            "ReadonlyPaths": ["/proc/sys"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={json.dumps(docker_profile(loopback=loopback))}"],
            "PidsLimit": limits.processes + _EXTRA_PIDS[docker.runtime],
            "Memory": memory,
            "MemorySwap": memory,
            "NanoCpus": int(limits.cpus * 1e9),
            "ShmSize": limits.disk_mb * _MIB,
            "Tmpfs": {
                HOME: f"{tmpfs},exec,mode=700,uid={uid},gid={gid}",
                "/tmp": f"{tmpfs},exec,mode=1777",  # noqa: S108
            },
            "Mounts": [
                _bind(ipc, IPC, read_only=False),
                _bind(files, FILES, read_only=True),
                *_terminals(docker.runtime),
            ],
            "Ulimits": [{"Name": name, "Soft": value, "Hard": value} for name, value in _rlimits(limits).items()],
            "OomScoreAdj": 1000,
            # what a container says before its kernel is up; nothing after that
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "1"}},
            "RestartPolicy": {"Name": "no"},
        },
    }


def _masked_paths() -> list[str]:
    """What of /proc and /sys is about the machine; the container sees it empty. (gVisor makes its own of both.)"""
    here = {name for name in os.listdir("/proc") if not name.isdigit()}
    return ["/sys", *(f"/proc/{name}" for name in sorted((here | _PROC_HIDDEN) - PROC_SHOWN))]


def _rlimits(limits: Limits) -> dict[str, int]:
    """Resource limits (setrlimit(2)) that hold from the container's start; the one on memory is set inside."""
    return {
        # not 0: with that the system would still start a program that it hands core dumps to (core(5), core_pattern)
        "core": 1,
        "cpu": limits.cpu_seconds,
        "fsize": limits.disk_mb * _MIB,
        "memlock": 0,
        "msgqueue": 0,
        "nofile": limits.open_files,
        "nproc": limits.processes,
        "sigpending": 1024,
        "stack": 8 * _MIB,
    }


def _terminals(runtime: Runtime) -> list[dict[str, Any]]:
    """Pseudo-terminals, 64 at most; by Docker's own mount one container could take all that the machine has.

    gVisor makes its own.
    """
    if runtime != "runc":
        return []
    options = {"type": "devpts", "device": "devpts", "o": "ptmxmode=0666,mode=620,gid=5,max=64,nosuid,noexec"}
    volume = {"DriverConfig": {"Name": "local", "Options": options}}
    return [{"Type": "volume", "Target": "/dev/pts", "VolumeOptions": volume}]


def _bind(source: Path, target: str, *, read_only: bool) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "private"},
    }
