"""The data that crosses kernel_pool's seams."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

#: One value of Jupyter's JSON.
Json = Any


@dataclass(frozen=True)
class Limits:
    """What one kernel may use. Sizes in MiB unless the name says otherwise."""

    memory_mb: int = 512
    disk_mb: int = 128
    processes: int = 64
    open_files: int = 1024
    #: CPU seconds over the whole life of each process of the kernel.
    cpu_seconds: int = 3600
    #: Cores that the kernel may use at a time; held where there are cgroups, and in containers.
    cpus: float = 1.0
    #: Bytes of output of one cell that are kept in memory; what is more its overflow has, or where it has none it is
    #: counted, dropped and reported.
    output_bytes: int = 10 * 1024 * 1024
    #: Bytes of output of one cell after which the cell is interrupted.
    output_flood_bytes: int = 100 * 1024 * 1024


#: A part of a folder's name, before the first dot.
PROFILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")

#: Whether local kernels get cgroups: where they can be had, never, or always, with an error where they cannot be had.
CgroupUse = Literal["auto", "off", "require"]

#: How a kernel comes to be: forked from a warm template, or ipykernel as it comes (debugger, subshells), slower.
KernelKind = Literal["forked", "stock"]


@dataclass(frozen=True)
class Profile:
    """One kind of kernel. Clients know it as a kernelspec."""

    name: str = "agent"
    display_name: str = "Python 3 (agent)"
    kernel: KernelKind = "forked"
    #: Modules that are imported before a kernel is forked, or before a stock kernel reports that it is ready.
    preload: tuple[str, ...] = ("numpy", "pandas", "pyarrow")
    limits: Limits = field(default_factory=Limits)
    #: Ready kernels that are kept in stock: at least, and at most when demand is high. Of a profile with
    #: a minimum of 0 that is not the first nothing is started before the first lease.
    minimum: int = 2
    maximum: int = 8

    def __post_init__(self) -> None:
        if not PROFILE_NAME.match(self.name):
            raise ValueError(f"{self.name!r} cannot be a profile's name: up to 32 letters, digits, '-' and '_'")


#: What happens to a lease that finds the stock empty: it waits for the refill, has a kernel started, or is refused.
Exhaustion = Literal["wait", "start", "refuse"]


@dataclass(frozen=True)
class PlaceConfig:
    """What a place needs to know to start kernels of one profile. Times in seconds."""

    #: Short path (unix sockets: at most 107 bytes), this place's alone; mode 0700.
    runtime_dir: Path
    profile: Profile = field(default_factory=Profile)
    #: Files that every sandbox sees read-only below /opt/omniops/files: name to content.
    files: Mapping[str, bytes] = field(default_factory=dict)
    start_timeout_s: float = 30.0
    #: How long kernels outlive a gateway that went away.
    orphan_grace_s: float = 300.0
    #: As root, each kernel runs as a user of its own out of this range (first, count).
    uid_range: tuple[int, int] = (700_000, 10_000)
    #: Only for the kernels that live there already: `start` gets nothing ready, `spawn` is not called.
    draining: bool = False
    cgroups: CgroupUse = "auto"


@dataclass(frozen=True)
class PoolConfig:
    """How the pool keeps its kernels. `gateway.settings` fills it; times in seconds."""

    #: Short path (unix sockets: at most 107 bytes) below which every place has its folder; mode 0700.
    runtime_dir: Path
    #: The first is what a lease gets that names none.
    profiles: tuple[Profile, ...] = (Profile(),)
    #: Kernels that may live at once, leased ones of all profiles included.
    maximum: int = 32
    files: Mapping[str, bytes] = field(default_factory=dict)
    start_timeout_s: float = 30.0
    lease_timeout_s: float = 30.0
    exhaustion: Exhaustion = "start"
    #: Kernels that one tenant may have leased at once; 0: as many as there are.
    tenant_maximum: int = 0
    #: Starts at once: to fill the stock, and for leases that found it empty.
    refill_starts: int = 1
    lease_starts: int = 4
    #: Refills wait until there was no lease for this long and a core is free of cells, but not longer than the second.
    refill_quiet_s: float = 0.05
    refill_patience_s: float = 2.0
    #: After this time without a lease, the demand that was seen counts half.
    demand_half_life_s: float = 60.0
    #: A ready kernel of this age is replaced; a leased one of that age is ended, between two cells. 0: never.
    ready_life_s: float = 3600.0
    life_s: float = 86_400.0
    #: Kernels that do nothing are asked whether they live; 0: never. So many missing answers in a row end a leased one.
    probe_interval_s: float = 30.0
    probe_timeout_s: float = 5.0
    probe_failures: int = 3
    #: A leased kernel that was idle for so long gets no CPU until it is used; 0: never.
    freeze_after_s: float = 60.0
    #: How often it is looked whether new kernels would be made from something else by now; 0: never.
    renew_interval_s: float = 0.0
    #: Seconds between two rounds of all this upkeep.
    upkeep_interval_s: float = 1.0
    #: How long an interrupted cell may take to stop before its kernel is killed.
    interrupt_grace_s: float = 5.0
    orphan_grace_s: float = 300.0
    #: Seconds between two looks of the memory watcher.
    watch_interval_s: float = 0.25
    uid_range: tuple[int, int] = (700_000, 10_000)
    cgroups: CgroupUse = "auto"

    def place(self, profile: Profile, folder: str = "", *, draining: bool = False) -> PlaceConfig:
        """What a place for `profile` needs to know; `folder` is its name below `runtime_dir`."""
        return PlaceConfig(
            runtime_dir=self.runtime_dir / (folder or profile.name),
            profile=profile,
            files=self.files,
            start_timeout_s=self.start_timeout_s,
            orphan_grace_s=self.orphan_grace_s,
            uid_range=self.uid_range,
            draining=draining,
            cgroups=self.cgroups,
        )


class ExitReason(StrEnum):
    """Why a kernel is gone."""

    SHUTDOWN = "shutdown"  # asked for: end of session, gateway stop
    DEADLINE = "deadline"  # a cell ran past its deadline and did not stop when interrupted
    MEMORY = "memory"  # over its memory limit
    OUTPUT = "output"  # flooded its output and did not stop when interrupted
    KILLED = "killed"  # by a signal from outside
    CRASH = "crash"  # ended by itself: exit(), segmentation fault
    LIFE = "life"  # as old as a kernel may become
    UNHEALTHY = "unhealthy"  # did not answer probes


@dataclass(frozen=True)
class Exit:
    """How a kernel ended, in words that a session can be told."""

    reason: ExitReason
    detail: str


@dataclass(frozen=True)
class Message:
    """One Jupyter message (messaging protocol 5.4), unpacked."""

    channel: Literal["shell", "iopub", "control", "stdin"]
    header: Mapping[str, Json]
    parent_header: Mapping[str, Json]
    metadata: Mapping[str, Json]
    content: Mapping[str, Json]
    buffers: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class CellError:
    name: str
    value: str
    traceback: tuple[str, ...]


#: "paused" is said by whoever runs cells for others: the cell's end waits for a person.
CellStatus = Literal["ok", "error", "interrupted", "dead", "paused"]


@dataclass(frozen=True)
class CellResult:
    """What one execute_request came to.

    `outputs` are nbformat 4.5 outputs (stream, display_data, execute_result, error), streams merged, at most
    `Limits.output_bytes` of them. `status` is "interrupted" after a deadline, an output flood or a request; "dead"
    when the kernel went away: then `state_lost` is true and `exit` says why.
    """

    status: CellStatus
    execution_count: int | None
    outputs: tuple[Mapping[str, Json], ...]
    error: CellError | None
    started: datetime
    ended: datetime
    #: One sentence for people when the cell did not end by itself (deadline, flood, death), else "".
    reason: str = ""
    state_lost: bool = False
    exit: Exit | None = None
    output_bytes: int = 0
    dropped_bytes: int = 0
    #: How many of `outputs` came before the first that its overflow has and `outputs` does not; None: all are here.
    cut: int | None = None
    #: Results of execute_request's user_expressions, text/plain only.
    user_expressions: Mapping[str, str] = field(default_factory=dict)


class KernelPoolError(Exception):
    """Base of what kernel_pool raises. The message says what failed, on what, and what to do."""


class IsolationUnavailable(KernelPoolError):
    """This machine cannot give the isolation that is configured."""


class StartFailed(KernelPoolError):
    """A template or kernel did not come up."""


class PoolExhausted(KernelPoolError):
    """No kernel became free in time."""


class UnknownProfile(KernelPoolError):
    """A lease named a profile that is not configured."""


class QuotaExceeded(KernelPoolError):
    """The tenant has as many kernels as it may."""


class BadInjection(KernelPoolError):
    """Environment or files that a lease cannot put into a warm kernel."""


class CellUnknown(KernelPoolError):
    """A cell that was to be resumed is not the latest one of its kernel."""


class KernelGone(KernelPoolError):
    """The kernel that was addressed has ended."""

    def __init__(self, exit: Exit) -> None:
        super().__init__(f"kernel is gone ({exit.reason}): {exit.detail}")
        self.exit = exit
