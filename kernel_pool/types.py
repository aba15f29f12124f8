"""The data that crosses kernel_pool's seams."""

from __future__ import annotations

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
    #: Bytes of output of one cell that are kept; the rest is counted, dropped and reported.
    output_bytes: int = 10 * 1024 * 1024
    #: Bytes of output of one cell after which the cell is interrupted.
    output_flood_bytes: int = 100 * 1024 * 1024


@dataclass(frozen=True)
class PoolConfig:
    """How the pool keeps its kernels. `gateway.settings` fills it; times in seconds."""

    #: Short path (unix sockets: at most 107 bytes) that holds one folder per kernel; mode 0700.
    runtime_dir: Path
    limits: Limits = field(default_factory=Limits)
    #: Ready kernels that are kept in stock, and the number that may live at once (leased ones included).
    warm: int = 2
    maximum: int = 32
    #: Modules that the template imports before it forks.
    preload: tuple[str, ...] = ("numpy", "pandas", "pyarrow")
    #: Files that every sandbox sees read-only below /opt/omniops/files: name to content.
    files: Mapping[str, bytes] = field(default_factory=dict)
    start_timeout_s: float = 30.0
    lease_timeout_s: float = 30.0
    #: How long an interrupted cell may take to stop before its kernel is killed.
    interrupt_grace_s: float = 5.0
    #: How long kernels outlive a gateway that went away before the template ends them.
    orphan_grace_s: float = 60.0
    #: Seconds between two looks of the memory watcher.
    watch_interval_s: float = 0.25
    #: As root, each kernel runs as a user of its own out of this range (first, count).
    uid_range: tuple[int, int] = (700_000, 10_000)


class ExitReason(StrEnum):
    """Why a kernel is gone."""

    SHUTDOWN = "shutdown"  # asked for: end of session, gateway stop
    DEADLINE = "deadline"  # a cell ran past its deadline and did not stop when interrupted
    MEMORY = "memory"  # over its memory limit
    OUTPUT = "output"  # flooded its output and did not stop when interrupted
    KILLED = "killed"  # by a signal from outside
    CRASH = "crash"  # ended by itself: exit(), segmentation fault


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


CellStatus = Literal["ok", "error", "interrupted", "dead"]


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


class KernelGone(KernelPoolError):
    """The kernel that was addressed has ended."""

    def __init__(self, exit: Exit) -> None:
        super().__init__(f"kernel is gone ({exit.reason}): {exit.detail}")
        self.exit = exit
