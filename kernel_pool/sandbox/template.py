"""The template: one warm process that forks kernels, each into a sandbox of its own.

It runs inside the launcher's sandbox as process 1, has one thread, no event loop and no ZMQ context, and never talks
to a kernel that it made. Whoever connects to its control socket (the gateway; one at a time) speaks messages of JSON
over SOCK_SEQPACKET, descriptors travel beside them:

    -> {op: fork, id, uid} + status socket          <- {op: forked, id} + pidfd, or {op: failed, id, error}
    -> {op: keep, id} + the kernel's /proc
    -> {op: stop}                                   <- end of the connection
                                                    <- {op: exited, id, status, cpu_s}

A connection begins with {op: hello, kernels, ended} from here: so many messages {op: living, id} + pidfd and, if it was
given to keep, /proc follow, then so many {op: exited, ...} of kernels that ended before. By that a gateway takes over
what one before it left; without a gateway everything ends after a while.

A new kernel reports over its status socket: {op: proc} + its /proc, then {op: ready}, or {op: failed, error}. It
reads its key there too, 32 bytes: what the template knew, every later kernel could find in its own memory.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from . import linux
from .isolate import confine
from .memory import settle_memory_limit
from .room import with_room
from .spec import IPC, KERNELS, SandboxSpec

_MAX_MESSAGE = 65536
_KEY_BYTES = 32
#: Ends of kernels that are told to a gateway that comes back.
_ENDS = 256


class Warm(Protocol):
    """What the template needs of the kernel that it holds ready; see `kernel.WarmKernel`."""

    def run_child(self, listeners: dict[str, int], ipc_dir: str, key: bytes, ready: Callable[[], None]) -> NoReturn: ...


@dataclass
class _Child:
    id: str
    pid: int
    pidfd: int
    #: The kernel's own /proc, once the gateway gave it to keep; -1 before.
    proc: int = -1


def main(spec_fd: str, listener_fd: str) -> None:
    """Build the warm kernel, then serve forks until told to stop or left alone for too long."""
    spec = SandboxSpec.read(int(spec_fd))
    os.close(int(spec_fd))
    with_room(lambda: _main(spec, socket.socket(fileno=int(listener_fd))))


def _main(spec: SandboxSpec, listener: socket.socket) -> None:
    _help_interactive_python()
    warm = build(spec.kernel, spec.preload)
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1 or threading.active_count() != 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        raise SystemExit(f"template has {threads} threads ({names}); a module in {spec.preload} starts one on import")
    gc.collect()
    gc.freeze()
    Template(spec, warm, listener).serve()


def build(kernel: str, preload: Sequence[str]) -> Warm:
    """All that can be there before a kernel of this kind ("forked" or "stock") is forked."""
    if kernel == "stock":
        from .stock_kernel import StockKernel

        return StockKernel.build(preload)
    from .kernel import WarmKernel

    return WarmKernel.build(preload)


def _help_interactive_python() -> None:
    """The names that `site` adds to builtins; the interpreter runs without it, for it would read the host's paths."""
    import site

    site.setquit()
    site.setcopyright()
    site.sethelper()


class Template:
    """The fork server's state: its control socket, the connected gateway, and the kernels that live."""

    def __init__(self, spec: SandboxSpec, warm: Warm, listener: socket.socket) -> None:
        self._spec = spec
        self._seccomp = spec.seccomp_program()
        self._warm = warm
        self._listener = listener
        self._gateway: socket.socket | None = None
        self._children: dict[str, _Child] = {}
        self._ends: deque[dict[str, Any]] = deque(maxlen=_ENDS)
        self._alone_since = time.monotonic()
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def serve(self) -> None:
        """Returns when stopped. The kernels end with this process, for it is process 1 of their pid namespace."""
        stopped = False
        while not stopped:
            for key, _ in self._selector.select(self._patience()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._gateway:
                    stopped = self._read_gateway()
                elif isinstance(key.data, _Child):
                    self._reap(key.data)
            stopped = stopped or self._patience() == 0
        for child in self._children.values():
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        for child in self._children.values():
            os.waitpid(child.pid, 0)
            shutil.rmtree(f"{KERNELS}/{child.id}", ignore_errors=True)

    def _patience(self) -> float | None:
        """Seconds that are left to wait for a gateway; None while there is one."""
        if self._gateway is not None:
            return None
        return max(0.0, self._alone_since + self._spec.orphan_grace_s - time.monotonic())

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        if self._gateway is not None:
            self._drop_gateway()
        connection.settimeout(5)
        self._gateway = connection
        self._selector.register(connection, selectors.EVENT_READ)
        self._tell({"op": "hello", "kernels": len(self._children), "ended": len(self._ends)})
        for child in self._children.values():
            self._tell({"op": "living", "id": child.id}, tuple(fd for fd in (child.pidfd, child.proc) if fd >= 0))
        for end in self._ends:
            self._tell(end)

    def _drop_gateway(self) -> None:
        if self._gateway is not None:
            self._selector.unregister(self._gateway)
            self._gateway.close()
            self._gateway = None
            self._alone_since = time.monotonic()

    def _tell(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        if self._gateway is None:
            return
        try:
            socket.send_fds(self._gateway, [json.dumps(message).encode()], fds)
        except OSError:
            self._drop_gateway()

    def _read_gateway(self) -> bool:
        """Handle one message; True when told to stop."""
        assert self._gateway is not None
        try:
            data, fds, _, _ = socket.recv_fds(self._gateway, _MAX_MESSAGE, 1)
        except OSError:
            data, fds = b"", []
        if not data:
            self._drop_gateway()
            return False
        message = json.loads(data)
        if message["op"] == "stop":
            return True
        if message["op"] == "keep":
            self._keep(message["id"], fds)
            return False
        with socket.socket(fileno=fds[0]) as status:
            try:
                self._fork(message, status)
            except OSError as error:
                self._tell({"op": "failed", "id": message["id"], "error": f"fork: {error.strerror or error}"})
        return False

    def _fork(self, message: dict[str, Any], status: socket.socket) -> None:
        linux.unshare(linux.NEW_PID)
        pid = -1
        try:
            pid = os.fork()
            if pid == 0:
                self._become_kernel(message, status)
        finally:
            if pid != 0:
                linux.setns(self._own_pids, linux.NEW_PID)
        child = _Child(message["id"], pid, os.pidfd_open(pid))
        self._children[child.id] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)
        self._tell({"op": "forked", "id": child.id}, (child.pidfd,))

    def _keep(self, kernel: str, fds: list[int]) -> None:
        child = self._children.get(kernel)
        if child is not None and child.proc < 0 and fds:
            child.proc = fds.pop()
        for fd in fds:
            os.close(fd)

    def _reap(self, child: _Child) -> None:
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        if child.proc >= 0:
            os.close(child.proc)
        del self._children[child.id]
        _, status, usage = os.wait4(child.pid, 0)
        cpu_s = usage.ru_utime + usage.ru_stime
        end = {"op": "exited", "id": child.id, "status": os.waitstatus_to_exitcode(status), "cpu_s": cpu_s}
        self._ends.append(end)
        self._tell(end)

    def _become_kernel(self, message: dict[str, Any], status: socket.socket) -> NoReturn:
        """The forked child: shut in, then a kernel for the rest of its life."""
        limits = self._spec.limits
        try:
            os.setsid()
            _keep_only({status.fileno()})

            def show(proc: int) -> None:
                socket.send_fds(status, [b'{"op": "proc"}'], [proc])

            listeners = confine(
                message["id"], message["uid"], limits, self._seccomp, show, loopback=self._spec.kernel == "stock"
            )

            def ready() -> None:
                settle_memory_limit(limits.memory_mb)
                status.send(b'{"op": "ready"}')
                status.close()

            key = status.recv(_KEY_BYTES)
            if len(key) != _KEY_BYTES:
                raise EOFError("the gateway went away before it gave the kernel its key")
            self._warm.run_child(listeners, IPC, key, ready)
        except BaseException:  # noqa: BLE001 nothing may return into the template's loop
            failure = traceback.format_exc()[-_MAX_MESSAGE // 2 :]
            try:
                status.send(json.dumps({"op": "failed", "error": failure}).encode())
            except OSError:
                sys.stderr.write(failure)
        finally:
            os._exit(1)


def _keep_only(keep: set[int]) -> None:
    """Let go of every descriptor of the template's but `keep`; the standard three lead nowhere from here on."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd in keep or fd <= 2:
            continue
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
            # objects made before the fork may hold /dev/null; it is harmless, a closed number reused is not
            if target != "/dev/null" or fd == null:
                os.close(fd)
        except OSError:
            continue
