"""Runs beside the gateway, one per stdio server: starts the server, and ends it with all its descendants.

    python -I -S child.py GATEWAY_PID GRACE_SECONDS COMMAND [ARGUMENT...]

The server's pipes are the gateway's; nothing passes through here. As the parent that orphans come back to
(PR_SET_CHILD_SUBREAPER), it finds what a server has put into other process groups, such as a browser; and it is told
when the gateway dies, however that happens (PR_SET_PDEATHSIG). Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


def main() -> int:
    """The server's exit status, 128 and the signal where one ended it, as shells say it."""
    gateway, grace, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != gateway:
        return 1
    try:
        server = os.posix_spawnp(command[0], command, os.environ, setsigmask=())
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return 127
    _let_go_of_pipes()
    status = None
    while status is None:
        if signal.sigwait(_WATCHED) != signal.SIGCHLD:
            _end_all(signal.SIGTERM, grace)
            return 143
        status = _reap(server)
    _end_all(signal.SIGKILL, grace)
    return status


def _let_go_of_pipes() -> None:
    """The server's alone from now on: that they close is what the gateway goes by."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _reap(server: int) -> int | None:
    """Bury the dead; the server's status, once it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == server:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code


def _end_all(first: signal.Signals, grace: float) -> None:
    """Every descendant; who is left after `grace` seconds is killed."""
    deadline = time.monotonic() + grace
    _signal(first)
    while _descendants():
        left = deadline - time.monotonic()
        if left <= 0 or first == signal.SIGKILL:
            _signal(signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, 0.02 if left <= 0 else min(left, 0.2))
        _reap(-1)


def _signal(number: signal.Signals) -> None:
    for pid in _descendants():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _descendants() -> list[int]:
    """Of this process, those that started others last, so that they start no more."""
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        pid = queue.pop()
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    children = [int(each) for each in file.read().split()]
                found += children
                queue += children
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


if __name__ == "__main__":
    sys.exit(main())
