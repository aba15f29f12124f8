"""ipykernel as it comes, in a sandbox: its own threads, subshells and debugger, for those who need them.

The template imports what it takes; all of the kernel is made after the fork by ipykernel's own application. Slower to
start than a kernel that was made before the fork, and larger. Two things differ from a kernel that is started by a
command: its sockets are the sandbox's, which listen already, and its key came through them.

The debugger's parts talk over TCP at 127.0.0.1, so the kernel's network namespace has its loopback device up, and
nothing else; see `linux.raise_loopback`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import zmq
from ipykernel.heartbeat import Heartbeat
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp

from . import fresh
from .files import files_handler
from .spec import CHANNELS

#: What a stock kernel loads while it starts, and with its first cell or breakpoint.
_IMPORTS = (
    *("ipykernel.debugger", "ipykernel.inprocess.channels", "IPython.core.completer", "IPython.core.magics.execution"),
    *("IPython.extensions.storemagic", "multiprocessing", "sqlite3"),
    *("concurrent.futures.thread", "jedi", "tornado.platform.asyncio"),
)
#: jupyter_client names ipc sockets by number; the provisioners make links of these names.
_NAME = "channel"
_NO_WARNING = "PYDEVD_DISABLE_FILE_VALIDATION"


class _Heartbeat(Heartbeat):
    """The stock one, on a socket that listens already."""

    descriptor = -1
    path = ""

    def _try_bind_socket(self) -> None:
        self.socket.use_fd = self.descriptor
        self.socket.bind(f"ipc://{self.path}")


class _Kernel(IPythonKernel):
    """The stock one, which may be process 1: by the number of its group it would signal all processes but itself."""

    def _send_interrupt_children(self) -> None:
        os.killpg(0, signal.SIGINT)


class _App(IPKernelApp):
    """The stock application, on sockets that listen already."""

    kernel_class = _Kernel
    listeners: Mapping[str, int] = {}
    ipc_dir = ""

    def _try_bind_socket(self, s: zmq.Socket[bytes], port: int) -> int:
        channel = CHANNELS[port - 1]
        s.use_fd = self.listeners[channel]
        s.bind(f"ipc://{self.ipc_dir}/{channel}")
        if channel == "shell":
            # the debugger runs its code through the shell channel, by the address that was bound last; the socket in
            # the file system is the gateway's, and this process could not open it
            s.bind("inproc://debugger")
        return port

    def write_connection_file(self, **kwargs: Any) -> None:
        """For %connect_info. A key that is no text cannot stand in it; then there is none."""
        with contextlib.suppress(UnicodeDecodeError):
            super().write_connection_file(**kwargs)

    def init_heartbeat(self) -> None:
        heartbeat = _Heartbeat(zmq.Context(), (self.transport, self.ip, self.hb_port))
        heartbeat.descriptor, heartbeat.path = self.listeners["hb"], f"{self.ipc_dir}/hb"
        self.heartbeat = heartbeat
        heartbeat.start()


class StockKernel:
    """What a template holds ready for stock kernels: the modules."""

    @classmethod
    def build(cls, preload: Sequence[str]) -> StockKernel:
        """Import `preload` and ipykernel. Raises ImportError for a module that is not there."""
        # the debugger warns that it misses breakpoints in the standard library; it finds those in cells
        os.environ[_NO_WARNING] = "1"
        for name in (*preload, *_IMPORTS):
            importlib.import_module(name)
        if threading.active_count() != 1:
            names = ", ".join(thread.name for thread in threading.enumerate())
            raise RuntimeError(f"the template has threads that no fork would have: {names}")
        return cls()

    def run_child(self, listeners: Mapping[str, int], ipc_dir: str, key: bytes, ready: Callable[[], None]) -> NoReturn:
        """In the forked and confined child: as `kernel.WarmKernel.run_child`."""
        app = self._start(listeners, ipc_dir, key)
        ready()
        status = 1
        try:
            app.start()
            atexit._run_exitfuncs()
            status = 0
        finally:
            os._exit(status)

    def _start(self, listeners: Mapping[str, int], ipc_dir: str, key: bytes) -> Any:
        fresh.environment(os.getcwd())
        os.environ[_NO_WARNING] = "1"
        fresh.reseed()
        fresh.import_from_here()
        gc.enable()
        for number in fresh.TEMPLATE_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if os.getpgrp() != os.getpid():
            os.setsid()
        app = _App.instance(transport="ipc", ip=f"{ipc_dir}/{_NAME}")
        app.listeners, app.ipc_dir = listeners, ipc_dir
        app.parent_handle = 1  # nobody whose end is to be watched for: process 1 ends this one with itself
        for port, channel in enumerate(CHANNELS, start=1):
            setattr(app, f"{channel}_port", port)
        app.session.key = key
        app.initialize([])
        app.kernel.control_handlers["files_request"] = files_handler(app.session, os.getcwd())
        return app
