"""A kernel that is warm before it exists: everything slow happens in the template, the rest after the fork.

`WarmKernel.build` imports, makes shell and kernel object and rehearses cells; no thread, event loop, socket or ZMQ
context may come into being there, since none of them survives a fork. `run_child` gives the forked process its
identity, sockets, threads and streams and serves it until it ends.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import gc
import importlib
import logging
import os
import signal
import sqlite3
import ssl
import sys
import threading
import types
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import zmq
from ipykernel.control import ControlThread
from ipykernel.displayhook import ZMQDisplayHook
from ipykernel.kernelapp import IPKernelApp
from tornado import ioloop

from . import fresh, threads
from .forked import ForkedKernel
from .iopub import DescriptorCapture, IOPub, KernelStream
from .session import KernelSession
from .shell import UnwrittenProfile

#: The index of the tools, how to call them, and the way to the broker, as the sandbox mounts them.
TOOLS_INDEX = "/opt/omniops/files/tools.json"
BROKER_RULES = "/opt/omniops/files/broker.json"
BROKER_PATH = "/ipc/broker.sock"

#: Loaded by the first use of something that a kernel nearly always uses.
_LAZY_IMPORTS = (
    "asyncio.selector_events",
    "concurrent.futures.thread",
    "IPython.core.completer",
    "IPython.core.magics.execution",
    "multiprocessing",
    "subprocess",
    "tornado.platform.asyncio",
)

_PANDAS_REHEARSAL = (
    "import pandas as pd\n_d = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})\n_d",
    "_d.groupby('b').a.sum()",
    "_d.describe()\n_d.merge(_d, on='a').sort_values('a').iloc[:1]",
    "del pd",
)


class _Nowhere:
    """Takes the place of the iopub socket until there is one."""

    def send_multipart(self, parts: Sequence[bytes | memoryview], **_: object) -> None:
        pass


class WarmKernel:
    """A kernel in a template process, ready to be forked."""

    def __init__(self, kernel: ForkedKernel, app: IPKernelApp) -> None:
        self._kernel = kernel
        self._app = app

    @classmethod
    def build(cls, preload: Sequence[str]) -> WarmKernel:
        """Import `preload`, make the kernel and warm it. Raises ImportError for a module that is not there."""
        for name in (*preload, *_LAZY_IMPORTS):
            importlib.import_module(name)
        _install_tools()
        _forgo_debugger()
        app = IPKernelApp.instance()
        app.log = _logger()
        session = KernelSession(parent=app, key=b"template")
        kernel = ForkedKernel.instance(
            parent=app, session=session, log=app.log, profile_dir=UnwrittenProfile(), user_ns={}
        )
        app.session, app.kernel = session, kernel
        app.displayhook = ZMQDisplayHook(session, _Nowhere())
        app.init_pdb()
        app.init_shell()
        app.patch_io()
        kernel.shell.extension_manager.load_extension("storemagic")  # the one that IPython loads by default
        for part in (kernel.shell.displayhook, kernel.shell.display_pub):
            part.pub_socket = _Nowhere()
        kernel.iopub_socket = _Nowhere()
        kernel.set_parent([], {"header": session.msg_header("execute_request")})
        kernel.shell.rehearse(_PANDAS_REHEARSAL if "pandas" in sys.modules else ())
        _rehearse_start()
        # What is there now is never garbage: the children's collectors leave these shared pages alone.
        gc.collect()
        gc.freeze()
        if threading.active_count() != 1:
            names = ", ".join(thread.name for thread in threading.enumerate())
            raise RuntimeError(f"the template has threads that no fork would have: {names}")
        return cls(kernel, app)

    def run_child(self, listeners: Mapping[str, int], ipc_dir: str, key: bytes, ready: Callable[[], None]) -> NoReturn:
        """In the forked and confined child: become a kernel of its own, call `ready`, serve, exit.

        `listeners` are the descriptors of listening unix sockets for "shell", "iopub", "stdin", "control" and "hb",
        named `{ipc_dir}/{channel}`. `key` signs the messages. Status 0 after a shutdown or exit(), 1 if it failed.
        Raises what goes wrong before `ready`; the caller has to report it and end the process.
        """
        context = self._become_a_kernel(listeners, ipc_dir, key)
        ready()
        status = 1
        try:
            self._serve()
            self._leave(context)
            status = 0
        finally:
            os._exit(status)

    def _become_a_kernel(self, listeners: Mapping[str, int], ipc_dir: str, key: bytes) -> zmq.Context[Any]:
        home = os.getcwd()
        fresh.environment(home)
        fresh.reseed()
        fresh.import_from_here()
        gc.enable()
        if os.getpgrp() != os.getpid():
            os.setsid()
        kernel, session = self._kernel, self._kernel.session
        session.renew(key)
        os.register_at_fork(after_in_child=lambda: setattr(session, "forked", True))
        asyncio.set_event_loop(asyncio.new_event_loop())
        for number in fresh.TEMPLATE_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        context: zmq.Context[Any] = zmq.Context()

        def router(channel: str, kind: int = zmq.ROUTER) -> zmq.Socket[bytes]:
            return _socket(context, kind, listeners[channel], f"{ipc_dir}/{channel}")

        kernel.ident = str(uuid.uuid4())
        kernel.shell_socket, kernel.control_socket = router("shell"), router("control")
        kernel.stdin_socket = router("stdin")
        kernel.control_thread = ControlThread(daemon=True)
        # ipykernel asks it one thing: which thread runs the cells.
        kernel.shell_channel_thread = _CellsHere(threading.main_thread())
        self._connect_output(router("iopub", zmq.XPUB))
        kernel.record_ports({})
        kernel.shell.settle(Path(home))
        kernel.start()
        kernel.control_thread.start()
        heartbeat = router("hb")
        threading.Thread(target=_beat, args=(heartbeat,), name="Heartbeat", daemon=True).start()
        threads.belong_to_their_cells(kernel.shell)
        return context

    def _connect_output(self, socket: zmq.Socket[bytes]) -> None:
        kernel, app = self._kernel, self._app
        loop = kernel.control_thread.io_loop.asyncio_loop
        iopub = IOPub(socket, kernel.session, loop)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        streams = [KernelStream(kernel.session, iopub, *it) for it in (("stdout", 1), ("stderr", 2))]
        streams[0].before_flush = DescriptorCapture(streams, loop).drain
        iopub.attach(streams)
        sys.stdout, sys.stderr = streams
        kernel._stdout, kernel._stderr = streams
        kernel.iopub_thread = kernel.iopub_socket = iopub
        shell = kernel.shell
        shell.displayhook.pub_socket = shell.display_pub.pub_socket = iopub
        shell.displayhook.topic = kernel._topic("execute_result")
        app.displayhook.pub_socket = iopub
        app.displayhook.get_execution_count = lambda: kernel.execution_count
        app.iopub_thread = app.iopub_socket = iopub
        sys.displayhook = app.displayhook

    def _serve(self) -> None:
        loop = ioloop.IOLoop.current()
        while True:
            try:
                loop.start()
                return
            except KeyboardInterrupt:
                continue  # an interrupt that hit a task other than the cell: it ends that task, not the kernel

    def _leave(self, context: zmq.Context[Any]) -> None:
        """As an interpreter ends: exit handlers, then what still waits to be sent."""
        atexit._run_exitfuncs()
        kernel = self._kernel
        kernel.control_thread.stop()
        kernel.control_thread.join(timeout=1.0)
        kernel.iopub_socket.close()
        for socket in (kernel.shell_socket, kernel.control_socket, kernel.stdin_socket):
            socket.close()
        context.term()


class _CellsHere:
    def __init__(self, thread: threading.Thread) -> None:
        self.parent_thread = thread


def _socket(context: zmq.Context[Any], kind: int, descriptor: int, path: str) -> zmq.Socket[bytes]:
    """A socket on an already listening unix socket (ZMQ_USE_FD)."""
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.linger = 1000
    if kind == zmq.ROUTER:
        socket.router_handover = 1
        socket.sndhwm = 0
    socket.use_fd = descriptor
    socket.bind(f"ipc://{path}")
    return socket


def _beat(socket: zmq.Socket[bytes]) -> None:
    """Echo heartbeats without the interpreter's lock, so that a kernel that computes still answers."""
    while True:
        try:
            zmq.proxy(socket, socket)
        except zmq.ZMQError as error:
            if error.errno == errno.EINTR:
                continue
            socket.close()
            return


def _rehearse_start() -> None:
    """Use once what every child starts with, and put it away again."""
    asyncio.new_event_loop().close()
    ssl.RAND_bytes(1)
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE rehearsal (x)")
    connection.close()


def _forgo_debugger() -> None:
    """ipykernel asks this module whether there is a debugger. It needs threads and a network, so: no."""
    module = types.ModuleType("ipykernel.debugger", "Not available in forked kernels.")
    vars(module).update(_is_debugpy_available=False, Debugger=type("Debugger", (), {}))
    sys.modules[module.__name__] = module


def _logger() -> logging.Logger:
    """Errors of the kernel itself go to descriptor 2, and with it to whoever runs the cell."""
    logger = logging.getLogger("kernel")
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(logging.Formatter("kernel: %(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    return logger


def _install_tools() -> None:
    """Make `servers.*` importable if the sandbox carries an index of tools."""
    if os.path.exists(TOOLS_INDEX):
        importlib.import_module(".stubs", __package__).install(TOOLS_INDEX, BROKER_PATH, BROKER_RULES)
