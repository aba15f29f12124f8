"""Processes that begin with what is dear to import: forked from one that has imported it, one for a test process.

A gateway takes 2.5 s of CPU time to import and a command 1 s, and the tests start hundreds. The commands' own way, an
interpreter that starts anew, is gone by the tests of the demo, of the documentation's pages and of `omniops serve`.

    python warm_process.py DESCRIPTOR

runs the one that forks: a unix socket on that descriptor brings an order for each process, JSON with four descriptors
(standard input, output and error, and a socket that hears of the end). It ends with its socket.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NoReturn

TESTS = Path(__file__).parent
_IMPORTED = ("gateway.cli", "gateway.serve", "gateway.app", "gateway.doctor", "doomed_gateway", "counting")
_LARGEST = 2**20
_STATUS = struct.Struct("i")


class WarmProcess:
    """As `subprocess.Popen`: what tests need of one."""

    def __init__(self, pid: int, end: socket.socket, stdout: IO[str] | None) -> None:
        self.pid, self.stdout = pid, stdout
        self.returncode: int | None = None
        self._end = end

    def __enter__(self) -> WarmProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.stdout is not None:
            self.stdout.close()
        self.wait()
        self._end.close()

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its status, negative for a signal. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._end, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(["warm process"], timeout or 0)
            (self.returncode,) = _STATUS.unpack(self._end.recv(_STATUS.size))
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def start(
    function: str, *arguments: str, env: dict[str, str], cwd: Path, stdout: int | IO[str], stderr: IO[str]
) -> WarmProcess:
    """Run `module:function` with arguments in sys.argv. `stdout`: a file, or subprocess.PIPE."""
    forker = _forker()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader = None
    if isinstance(stdout, int):
        reading, writing = os.pipe()
        reader = open(reading)  # noqa: SIM115 closed by who waits for the process
    else:
        writing = os.dup(stdout.fileno())
    order = {"function": function, "arguments": arguments, "env": env, "cwd": os.fspath(cwd)}
    with open(os.devnull) as null, theirs:
        descriptors = [null.fileno(), writing, stderr.fileno(), theirs.fileno()]
        socket.send_fds(forker, [json.dumps(order).encode()], descriptors)
    os.close(writing)
    (pid,) = _STATUS.unpack(ours.recv(_STATUS.size))
    return WarmProcess(pid, ours, reader)


def run(function: str, *arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """As `start`, to its end, with what it wrote."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with start(function, *arguments, env=env, cwd=cwd, stdout=out, stderr=err) as process:
            try:
                status = process.wait(60)
            except BaseException:
                process.kill()
                raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([function, *arguments], status, out.read(), err.read())


@functools.cache
def _forker() -> socket.socket:
    """The way to the one that forks; it is started by the first who asks and ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMNIOPS_", "OPENAI_"))}
    path = os.pathsep.join(map(os.fspath, (TESTS.parent, TESTS / "gateway", TESTS)))
    command = [sys.executable, os.fspath(Path(__file__)), str(theirs.fileno())]
    forker = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=kept | {"PYTHONPATH": path})
    theirs.close()
    assert ours.recv(16) == b"ready"

    def end() -> None:
        ours.close()
        forker.wait(30)

    atexit.register(end)
    return ours


def main(descriptor: str) -> None:
    """Import, then fork on demand until nobody can ask any more."""
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    asked = socket.socket(fileno=int(descriptor))
    asked.send(b"ready")
    with selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fileobj)
                    _bury(*key.data)
                    continue
                message, descriptors, *_ = socket.recv_fds(asked, _LARGEST, 4)
                if not message:
                    return
                pid, end = _fork(json.loads(message), descriptors)
                pidfd = os.pidfd_open(pid)
                selector.register(pidfd, selectors.EVENT_READ, (pid, pidfd, end))


def _bury(pid: int, pidfd: int, end: socket.socket) -> None:
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    with end, contextlib.suppress(OSError):
        end.send(_STATUS.pack(os.waitstatus_to_exitcode(status)))


def _fork(order: dict[str, object], descriptors: Sequence[int]) -> tuple[int, socket.socket]:
    *standard, end = descriptors
    pid = os.fork()
    if pid == 0:
        _become(order, standard)
    for each in standard:
        os.close(each)
    told = socket.socket(fileno=end)
    told.send(_STATUS.pack(pid))
    return pid, told


def _become(order: dict[str, object], standard: Sequence[int]) -> NoReturn:
    """In the child: as an interpreter that was started with the order's arguments."""
    status = 1
    try:
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        os.environ.clear()
        os.environ.update(order["env"])  # type: ignore[call-overload]
        time.tzset()
        os.chdir(str(order["cwd"]))
        module, _, function = str(order["function"]).partition(":")
        sys.argv = [module, *order["arguments"]]  # type: ignore[misc]
        getattr(importlib.import_module(module), function)()
        status = 0
    except SystemExit as left:
        status = _status_of(left)
    except BaseException:  # noqa: BLE001 as the interpreter says it
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _status_of(left: SystemExit) -> int:
    if left.code is None or isinstance(left.code, int):
        return left.code or 0
    print(left.code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    main(sys.argv[1])
