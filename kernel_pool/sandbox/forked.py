"""The kernel object: ipykernel's own, built before the fork and served without the stock kernel's threads.

Requests on the shell channel are read by the main thread's event loop, those on the control channel by the service
thread. All handlers are ipykernel's. Subshells and the debugger need the stock kernel's threads and are not offered.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from types import FrameType
from typing import Any

import ipykernel.ipkernel
import zmq
from ipykernel.ipkernel import IPythonKernel
from tornado import ioloop
from traitlets import Type

from .files import files_handler
from .iopub import IOPub, flush_standard_streams
from .session import KernelSession, interrupt_cell
from .shell import Shell

Request = tuple[list[bytes], dict[str, Any]]

#: For requests that take the stock kernel's threads.
_STOCK_ONLY = 'this kernel has no {what}; lease one of a profile with kernel = "stock"'

_COMMS = frozenset({"comm_open", "comm_msg", "comm_close"})

# ipykernel looks at the signature of `run_cell_async` for every cell. It is the same every time.
_accepts = functools.lru_cache(maxsize=32)(
    lambda function, names: ipykernel.kernelbase._accepts_parameters(function, names)
)


def _accepts_parameters(method: Any, names: list[str]) -> Any:
    return _accepts(method, tuple(names))


vars(ipykernel.ipkernel)["_accepts_parameters"] = _accepts_parameters


class Inbox:
    """Takes requests off a ROUTER socket whenever an asyncio loop finds it readable."""

    def __init__(self, socket: zmq.Socket[bytes], take: Callable[[list[bytes]], None]) -> None:
        self._socket = socket
        self._take = take

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call from the loop's thread or before it starts."""
        # In an empty context: what the caller has in its context variables is not what the requests are about.
        Context().run(lambda: loop.add_reader(self._socket.FD, self.drain))
        loop.call_soon(self.drain, context=Context())

    def drain(self) -> None:
        """Take all that is there. ZMQ wakes the loop only once for it, so whoever uses the socket drains after."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(frames)


class ForkedKernel(IPythonKernel):
    """An `IPythonKernel` that gets its sockets after it was made."""

    shell_class = Type(Shell)
    _execute_sleep = 0.0

    shell: Shell
    session: KernelSession
    shell_socket: zmq.Socket[bytes]
    control_socket: zmq.Socket[bytes]
    iopub_thread: IOPub

    @property
    def _supports_kernel_subshells(self) -> bool:
        return False

    def start(self) -> None:
        """Serve both channels; the loops run later. In the main thread, before the service thread starts."""
        self.shell.exit_now = False
        self.io_loop = ioloop.IOLoop.current()
        self._loop: asyncio.AbstractEventLoop = self.io_loop.asyncio_loop  # type: ignore[attr-defined]
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._busy = False
        self._handling = False
        self._aborting = False
        # All cells run in one context: what one sets in a context variable, the next one finds.
        self._cells = copy_context()
        self._shell_inbox = Inbox(self.shell_socket, self._on_shell)
        self._shell_inbox.listen(self._loop)
        self.control_handlers["resume_request"] = self.resume_request
        self.control_handlers["files_request"] = files_handler(self.session, os.getcwd())
        self._control_inbox = Inbox(self.control_socket, self._on_control)
        self._control_inbox.listen(self.control_thread.io_loop.asyncio_loop)
        self._publish_status("starting", "shell")

    def _unpack(self, frames: list[bytes]) -> Request | None:
        try:
            idents, parts = self.session.feed_identities(frames)
            return idents, self.session.deserialize(parts)
        except (ValueError, KeyError, TypeError) as error:
            self.log.error("Invalid message: %s", error)
            return None

    # -- shell channel ----------------------------------------------------------------------------------------------

    def _on_shell(self, frames: list[bytes]) -> None:
        request = self._unpack(frames)
        if request is None:
            return
        if self._handling and request[1]["msg_type"] in _COMMS:
            # A cell that awaits may be waiting for just this message.
            self._loop.create_task(self._beside_the_cell(request), context=self._cells.copy())
            return
        self._waiting.append((request, self._aborting))
        if not self._busy:
            self._start_serving()

    def _start_serving(self) -> None:
        self._busy = True
        # The loop itself holds tasks weakly.
        self._serving = self._loop.create_task(self._serve(), context=self._cells)

    async def _serve(self) -> None:
        """Handle waiting requests one after the other until none is left."""
        try:
            while self._waiting:
                request, aborted = self._waiting.popleft()
                if self._is_repeat(request[1]):
                    continue
                self._handling = True
                await self._handle_shell(request, aborted)
                self._shell_inbox.drain()
        finally:
            self._busy = False
            if self._waiting:
                self._start_serving()
            else:
                self._loop.call_soon(self._shell_inbox.drain)

    def _is_repeat(self, message: dict[str, Any]) -> bool:
        """A gateway that came back may send the latest cell again although that of the one before had arrived.

        Only where the sender says that the id is of one cell alone: clients that jupyter_client's manager makes
        count from 0 each, under one session, so two cells of theirs may well have the same id.
        """
        if message["msg_type"] != "execute_request" or message["metadata"].get("once") is not True:
            return False
        return bool(message["msg_id"] == self.session.backlog.msg_id)

    async def _beside_the_cell(self, request: Request) -> None:
        parent, ident = self.get_parent("shell"), self._get_shell_context_var(self._shell_parent_ident)
        try:
            self.set_parent(*request, channel="shell")
            await self._call(self.shell_handlers, self.shell_socket, request)
        finally:
            self.set_parent(ident, parent, channel="shell")

    async def _handle_shell(self, request: Request, aborted: bool) -> None:
        idents, message = request
        # a silent one only looks: what the cell before it said stays kept
        is_cell = message["msg_type"] == "execute_request" and not aborted and not message["content"].get("silent")
        if is_cell:
            self.iopub_thread.begin_cell(message["msg_id"])
        self.set_parent(idents, message, channel="shell")
        self._publish_status("busy", "shell")
        try:
            if message["header"].get("subshell_id"):
                self._refuse_subshell(self.shell_socket, *request)
            elif aborted and message["msg_type"] == "execute_request":
                self._send_abort_reply(self.shell_socket, message, idents)
            else:
                self.pre_handler_hook()
                try:
                    await self._call(self.shell_handlers, self.shell_socket, request)
                finally:
                    self.post_handler_hook()
        except KeyboardInterrupt:
            self.log.warning("interrupted outside of a cell")
        finally:
            flush_standard_streams()
            self._handling = False
            self._publish_status("idle", "shell")
            if is_cell:
                self.iopub_thread.end_cell()

    async def _call(self, handlers: dict[str, Any], socket: zmq.Socket[bytes], request: Request) -> None:
        handler = handlers.get(request[1]["msg_type"])
        if handler is None:
            self.log.warning("Unknown message type: %r", request[1]["msg_type"])
            return
        try:
            result = handler(socket, *request)
            if inspect.isawaitable(result):
                await result
        except Exception:  # the boundary to the client: a request that fails must not end the kernel
            self.log.error("Exception in message handler:", exc_info=True)

    def pre_handler_hook(self) -> None:
        self.saved_sigint_handler = signal.signal(signal.SIGINT, interrupt_cell)

    async def do_execute(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a cell. An interrupt that comes too late for IPython to catch still gets a reply."""
        self.shell.forget_transformed()
        try:
            reply: dict[str, Any] = await super().do_execute(*args, **kwargs)
            return reply
        except KeyboardInterrupt:
            error = {"ename": "KeyboardInterrupt", "evalue": "", "traceback": ["KeyboardInterrupt"]}
            self.send_response(self.iopub_socket, "error", error, ident=self._topic("error"))
            return {"status": "error", "execution_count": self.execution_count - 1, "user_expressions": {}, **error}
        finally:
            if self.session.forked:
                os._exit(0)  # the cell called os.fork() and this is the child: the channels are its parent's
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def do_history(self, *args: Any, **which: Any) -> Any:
        """As ipykernel, except that a session asked for by its number is not called 0 in the answer."""
        reply = super().do_history(*args, **which)
        session = which.get("session", 0)
        if which.get("hist_access_type") == "range" and session > 0:
            reply["history"] = [(number or session, *rest) for number, *rest in reply["history"]]
        return reply

    def _abort_queues(self, subshell_id: str | None = None) -> None:
        """A cell failed: abort what the client has queued behind it, and what arrives within the configured time."""
        self._waiting = deque((request, True) for request, _ in self._waiting)
        self._aborting = True
        self._shell_inbox.drain()
        if self.stop_on_error_timeout:
            self.io_loop.call_later(self.stop_on_error_timeout, self._stop_aborting)
        else:
            self._stop_aborting()

    def _stop_aborting(self) -> None:
        self._aborting = False

    # -- interrupts -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """While an async cell runs: an interrupt raises in the cell if it computes, and cancels it if it waits."""

        def cancel() -> None:
            if not future.done():
                future.cancel()

        def interrupt(signum: int, frame: FrameType | None) -> None:
            running = asyncio.current_task(self._loop)
            if running is not future:
                # Thread-safe although this is the loop's thread: the loop sleeps and has to be woken.
                self._loop.call_soon_threadsafe(cancel)
            if running is not None:
                interrupt_cell(signum, frame)

        saved = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, saved)

    # -- control channel (service thread) ---------------------------------------------------------------------------

    def _on_control(self, frames: list[bytes]) -> None:
        request = self._unpack(frames)
        if request is None:
            return
        # One after the other: the tasks of one loop that never really wait finish in order.
        loop: asyncio.AbstractEventLoop = self.control_thread.io_loop.asyncio_loop
        task = loop.create_task(self._handle_control(request))
        self._control_tasks.add(task)
        task.add_done_callback(self._control_tasks.discard)

    @functools.cached_property
    def _control_tasks(self) -> set[asyncio.Task[None]]:
        return set()

    async def _handle_control(self, request: Request) -> None:
        if request[1]["msg_type"] == "files_request":  # many, and nobody's business
            await self._call(self.control_handlers, self.control_socket, request)
            self._control_inbox.drain()
            return
        self.set_parent(*request, channel="control")
        # The interrupt comes first: publishing may have to wait for a cell that floods the reader.
        urgent = request[1]["msg_type"] == "interrupt_request"
        if urgent:
            await self._call(self.control_handlers, self.control_socket, request)
        with self.iopub_thread.before_others():
            self._publish_status("busy", "control")
        if not urgent:
            await self._call(self.control_handlers, self.control_socket, request)
        with self.iopub_thread.before_others():
            self._publish_status("idle", "control")
        self._control_inbox.drain()

    def resume_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Ours, beyond Jupyter's protocol: a gateway that comes back asks for what the latest cell said."""
        report = self.iopub_thread.repeat_cell(parent)
        self.session.send(stream, "resume_reply", report, parent, ident=ident)

    def _refuse_subshell(self, socket: zmq.Socket[bytes], idents: list[bytes], message: dict[str, Any]) -> None:
        """ipykernel would write to its log and leave the client waiting."""
        text = _STOCK_ONLY.format(what="subshells")
        error = {"status": "error", "ename": "NotImplementedError", "evalue": text, "traceback": [text]}
        reply = message["msg_type"].removesuffix("_request") + "_reply"
        self.session.send(socket, reply, error, message, idents)

    async def create_subshell_request(self, socket: Any, ident: Any, parent: Any) -> None:
        self._refuse_subshell(socket, ident, parent)

    delete_subshell_request = list_subshell_request = create_subshell_request

    async def do_debug_request(self, msg: dict[str, Any]) -> dict[str, Any]:
        """A response of the debug adapter protocol."""
        answer = {"type": "response", "request_seq": msg.get("seq", 0), "command": msg.get("command", "")}
        return {**answer, "seq": 0, "success": False, "message": _STOCK_ONLY.format(what="debugger")}

    async def shutdown_request(self, stream: Any, ident: Any, parent: Any) -> None:
        await super().shutdown_request(stream, ident, parent)
        self.control_thread.stop()

    def _send_interrupt_children(self) -> None:
        """SIGINT to this process and, where it leads its group, to the programs that it started."""
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.SIGINT)
