"""What runs in a container: process 1, which keeps the door to the gateway, and the one kernel that it forks.

The container is the sandbox: its runtime made it and set the limits. What is left to do here is what a runtime does
not know: the limit on memory beyond what a warm kernel has, and the seccomp filter that a template's kernels get too.

Process 1 connects to the gateway's socket in the shared folder; both sides speak lines of JSON:

    <- {op: start, key, kernel, preload, memory_mb, seccomp, orphan_grace_s}   once
    -> {op: ready} or {op: failed, error}                              once
    <- {op: interrupt}, or {op: stop}
    -> {op: exited, status, cpu_s}                                     then the container ends

When the gateway goes away, process 1 looks for a new one at the same place, and tells it of a kernel that ended
meanwhile; after `orphan_grace_s` it ends, and the container with it, and its log says so. It runs no foreign code. A
kernel cannot look into it (gVisor does not keep that up; there is nothing to find that the kernel does not know), and
whoever ends it ends the container.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import Any, NoReturn

from . import linux
from .memory import settle_memory_limit
from .room import with_room
from .spec import CHANNELS, HOME, IPC
from .template import build

DOOR = f"{IPC}/door"
#: Last line of the log of a container that ended because of that.
NOBODY_CAME = "no gateway came back"
_CONNECT_TIMEOUT_S = 30.0
_RECONNECT_S = 0.25
_MAX_ERROR = 16384
_PR_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)


class Door:
    """A connection to the gateway: JSON, one message a line."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""

    @classmethod
    def connect(cls, deadline: float) -> Door | None:
        """Try until `deadline` (monotonic clock); None when nobody listens until then."""
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(DOOR)
                return cls(connection)
            except OSError:
                connection.close()
            if time.monotonic() > deadline:
                return None
            time.sleep(_RECONNECT_S)

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> dict[str, Any] | None:
        """The next message, waiting for it; None when the connection has ended."""
        while b"\n" not in self._buffer:
            try:
                data = self._socket.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                return None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return dict(json.loads(line))

    def send(self, message: dict[str, Any]) -> None:
        """A gateway that went away is noticed at the next `receive`."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        self._socket.close()


def main() -> NoReturn:
    """Serve one kernel, then end the container with the kernel's status."""
    os._exit(with_room(_main) & 0xFF)


def _main() -> int:
    """The kernel's status, when it has ended."""
    door = Door.connect(time.monotonic() + _CONNECT_TIMEOUT_S)
    order = door.receive() if door else None
    if door is None or order is None:
        raise SystemExit(f"no gateway at {DOOR}")
    wakeup = _notice_children()
    try:
        pid, status = _start(order)
    except BaseException:  # noqa: BLE001 the gateway is to hear whatever a preload or a limit raised
        door.send({"op": "failed", "error": traceback.format_exc()[-_MAX_ERROR:]})
        raise SystemExit(1) from None
    # from here on /proc/1 belongs to root: the kernel, which has the same user, cannot look in
    _hide()
    _report_start(door, status)
    return _watch(door, pid, wakeup, order["orphan_grace_s"])


def _hide() -> None:
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _notice_children() -> int:
    """Descriptor that turns readable when a child ends."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def _start(order: dict[str, Any]) -> tuple[int, socket.socket]:
    """Warm up and fork the kernel; returns its pid and the socket on which it reports."""
    if order["kernel"] == "stock":
        linux.require_loopback_only()
    warm = build(order["kernel"], order["preload"])
    # until here it could keep nothing; what it parses from now on it may
    sys.modules["jedi"].settings.cache_directory = f"{HOME}/.cache/jedi"
    gc.collect()
    gc.freeze()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    try:
        os.setsid()
        listeners = _confine(order, keep=theirs.fileno())

        def ready() -> None:
            settle_memory_limit(order["memory_mb"])
            theirs.sendall(b'{"op": "ready"}')
            theirs.close()

        warm.run_child(listeners, IPC, bytes.fromhex(order["key"]), ready)
    except BaseException:  # noqa: BLE001 nothing may return into what process 1 does
        failure = traceback.format_exc()[-_MAX_ERROR:]
        with contextlib.suppress(OSError):
            theirs.sendall(json.dumps({"op": "failed", "error": failure}).encode())
    finally:
        os._exit(1)


def _confine(order: dict[str, Any], keep: int) -> dict[str, int]:
    """Let go of process 1's descriptors, listen on the channels, take on the filter."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _detach(keep)
    listeners = {}
    # who may reach the folder from the host side is the gateway's user alone
    os.umask(0)
    for channel in CHANNELS:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"{IPC}/{channel}")
        listener.listen(128)
        listeners[channel] = listener.detach()
    os.umask(0o022)
    os.chdir(HOME)
    linux.no_new_privileges()
    linux.load_seccomp(base64.b64decode(order["seccomp"]))
    return listeners


def _detach(keep: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != keep:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{fd}") != os.devnull or fd == null:
                    os.close(fd)


def _report_start(door: Door, status: socket.socket) -> None:
    with status:
        report = b""
        while data := status.recv(1 << 16):
            report += data
    door.send(json.loads(report) if report else {"op": "failed", "error": "the kernel ended before it was ready"})


def _watch(door: Door | None, kernel: int, wakeup: int, orphan_grace_s: float) -> int:
    """Reap, pass on interrupts, hold the door; returns the kernel's exit status (negative: its signal)."""
    while True:
        ended = _reap(kernel)
        if ended is not None:
            status, cpu_s = ended
            if door is not None:
                door.send({"op": "exited", "status": status, "cpu_s": cpu_s})
            return status
        if door is None:
            door = Door.connect(time.monotonic() + orphan_grace_s)
            if door is None:
                sys.stderr.write(f"{NOBODY_CAME}\n")
                sys.stderr.flush()
                return 1
        readable, _, _ = select.select([door.fileno(), wakeup], [], [])
        if wakeup in readable:
            os.read(wakeup, 4096)
        if door.fileno() in readable:
            message = door.receive()
            if message is None:
                door.close()
                door = None
            elif message.get("op") == "stop":
                return 0
            elif message.get("op") == "interrupt":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(kernel, signal.SIGINT)


def _reap(kernel: int) -> tuple[int, float] | None:
    """Reap whatever has ended; the kernel's status and CPU seconds if it was among that."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == kernel:
                found = (os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime)
    return found
