"""The demo's processes: each in a group of its own, all of them gone when the demo is, however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

#: How long a process may take to end when asked to, and orphans when killed, seconds.
_STOP_S = 20.0
_REAP_S = 5.0
_LOG_LINES = 15


class ProcessFailed(RuntimeError):
    """A process of the demo ended by itself or did not come up. The message holds the end of its log."""


@dataclass(frozen=True)
class Process:
    name: str
    handle: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises ProcessFailed when it has ended."""
        status = self.handle.poll()
        if status is not None:
            raise ProcessFailed(f"{self.name} ended with status {status}.\n{self.tail()}")

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join([*(f"    {line}" for line in lines), f"    (whole log: {self.log})"])


class Processes:
    """Starts processes; on leaving, stops them in reverse order, and whatever they have left behind.

    This process adopts orphans of the ones it starts (PR_SET_CHILD_SUBREAPER), so that none is out of sight. Should it
    be killed itself, the kernel asks its children to end (PR_SET_PDEATHSIG).
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Process] = []
        #: Children that were there before and are none of our business.
        self._others: frozenset[int] = frozenset()

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._others = frozenset(_children())
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second ctrl-C must not leave half of them running; each wait below has an end.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for process in reversed(self._running):
                self._stop(process)
            _reap_orphans(self._others)
        finally:
            signal.signal(signal.SIGINT, before)
            _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, fds: Sequence[int] = ()
    ) -> Process:
        """Start a process with this environment alone; its output goes to a log file. Raises OSError."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            handle = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=tuple(fds),
                preexec_fn=_end_with_parent,
            )
        process = Process(name, handle, log)
        self._running.append(process)
        return process

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str], *, timeout_s: float) -> None:
        """Run a process to its end. Raises ProcessFailed unless that is success within the time."""
        process = self.start(name, command, environment)
        try:
            status = process.handle.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{name} was not done within {timeout_s:g} s.\n{process.tail()}") from None
        if status != 0:
            raise ProcessFailed(f"{name} ended with status {status}.\n{process.tail()}")

    def check(self) -> None:
        """Raises ProcessFailed when one of those that were started to stay has ended."""
        for process in self._running:
            if process.handle.poll() != 0:
                process.check()

    @staticmethod
    def _stop(process: Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.handle.send_signal(signal.SIGTERM)
        try:
            process.handle.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.handle.kill()
            process.handle.wait()
        # What it started in its own group and did not end.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.handle.pid, signal.SIGKILL)


def _end_with_parent() -> None:
    """Runs in the child before its program: one call of libc, for this process has no other threads."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _reap_orphans(others: frozenset[int]) -> None:
    """Kill what was left to this process by those it started, until nothing is."""
    deadline = time.monotonic() + _REAP_S
    while time.monotonic() < deadline:
        orphans = [child for child in _children() if child not in others]
        if not orphans:
            return
        for orphan in orphans:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(orphan, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(orphan, os.WNOHANG)
        time.sleep(0.01)


def _children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(each) for each in text.split()]
