"""Output of a kernel, sent by the thread that produces it.

The stock kernel hands every output to a thread of its own; that hand-over is half of a small cell's time. Here the
thread that prints, displays or reports its status sends under a lock. The socket does not drop: when the reader is
slow, who prints waits; where there is none (its gateway was killed), who prints waits for the next one as soon as no
more can be kept for it. What comes in on descriptors 1 and 2 (C code, `os.system`, subprocesses) is read by the
service thread, which also flushes text that a cell printed without ending.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import ctypes
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from typing import Any

import zmq
from ipykernel.iostream import IOPubThread, OutStream

from .session import KernelSession, send_whole

#: Text that may wait in a stream before the writer itself sends it, characters.
_FLUSH_AT = 64 * 1024
#: One stream message holds at most this many characters: what waits for a slow reader is the kernel's own memory.
_CHUNK = 128 * 1024
#: Messages that wait for a slow reader before output blocks.
_HIGH_WATER = 32
#: Time between two looks for a gateway, where who prints waits for one.
_LOOK_S = 0.05
#: Ticks without output after which the flusher sleeps until it is called again.
_QUIET_TICKS = 10
#: How long output pauses for the service thread.
_GIVE_WAY_S = 0.001
_PIPE_SIZE = 1024 * 1024


class _NoThread:
    """What `OutStream` asks about the thread that the stock kernel has: it is not there, send at once."""

    ident = None
    name = "IOPub"

    def is_alive(self) -> bool:
        return False


class IOPub(IOPubThread):
    """The iopub socket with a lock. Looks like the stock thread to those who know that one."""

    thread: Any
    background_socket: Any
    io_loop: Any

    def __init__(self, socket: zmq.Socket[bytes], session: KernelSession, loop: asyncio.AbstractEventLoop) -> None:
        socket.sndhwm = _HIGH_WATER
        socket.setsockopt(zmq.XPUB_NODROP, 1)
        # tell of every subscription: the next gateway's may come before the end of the last one's is noticed
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.socket = socket
        self.session = session
        self.lock = threading.RLock()
        #: Told when a gateway is there again.
        self._back = threading.Condition(self.lock)
        self._away = self._present = False
        self._service = 0
        #: Called, by the service thread, when a gateway is there again.
        self.on_return: list[Callable[[], None]] = []
        self._wanted = False
        self.thread = _NoThread()
        self.background_socket = self
        self.io_loop = loop
        self.io_thread = self
        self._loop = loop
        self._streams: tuple[KernelStream, ...] = ()
        self._ticking = False
        self._quiet = 0

    def attach(self, streams: Sequence[KernelStream]) -> None:
        """Take over the streams to flush and answer subscribers. Call before the service thread starts."""
        self._streams = tuple(streams)
        Context().run(self._loop.add_reader, self.socket.getsockopt(zmq.FD), self._greet)
        self._loop.call_soon(self._greet)

    def send_multipart(
        self, parts: Sequence[bytes | memoryview], *_: object, about: dict[str, Any] | None = None, **__: object
    ) -> None:
        """Send a message, and keep it if it is of the latest cell. `about`: what `parts` were made from."""
        with self.lock:
            if self.socket is None:
                return
            backlog = self.session.backlog
            if about is not None and about["parent_header"].get("msg_id") == backlog.msg_id:
                self._wait(about["msg_type"], sum(map(len, parts)))
                backlog.keep(about["msg_type"], parts)
            self._send(parts)
        self.give_way()

    def waits(self) -> bool:
        """Nobody is there to read, and no more can be kept: the cell's output has to wait."""
        return self._away and self.session.backlog.full(_CHUNK)

    def _wait(self, msg_type: str, size: int) -> None:
        """Until there is room to keep an output, or somebody who has read what it pushes out. Holding the lock."""
        if not self.session.backlog.full(size, msg_type) or threading.get_ident() == self._service:
            return
        self._take_subscriptions()
        while self._away and self.session.backlog.full(size, msg_type) and self.socket is not None:
            self._back.wait(_LOOK_S)

    def _return(self) -> None:
        self._away = False
        self._back.notify_all()
        for back in self.on_return:
            back()
        self.on_return.clear()

    def _send(self, parts: Sequence[bytes | memoryview]) -> None:
        send_whole(self.socket, parts)
        # A send may swallow the wake-up for a new subscriber.
        if self.socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            self._loop.call_soon_threadsafe(self._greet)

    @contextlib.contextmanager
    def before_others(self) -> Iterator[None]:
        """Hold the lock. For the service thread: a cell that prints without end would take it again and again."""
        self._wanted = True
        with self.lock:
            self._wanted = False
            yield

    def give_way(self) -> None:
        """After some output: let the service thread have the lock, if it waits for it."""
        if self._wanted:
            time.sleep(_GIVE_WAY_S)

    def begin_cell(self, msg_id: str) -> None:
        """From now on, what answers `msg_id` is kept, and nothing of the cell before."""
        with self.lock:
            self.session.backlog.begin(msg_id)
            # its gateway may have gone before it began
            self._take_subscriptions()
            self._away = not self._present

    def end_cell(self) -> None:
        """The cell has reported that it is over; what its threads still say is kept all the same."""
        self.session.backlog.executing = False

    def repeat_cell(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send again what the latest cell said so far; returns what is known of it.

        A message `resume_begin` that answers `request` comes first. All that was sent before it comes again after it,
        so whoever listens can forget what came earlier.
        """
        with self.before_others():
            backlog = self.session.backlog
            report: dict[str, Any] = backlog.report()
            begin = {"msg_id": report["msg_id"], "position": backlog.position}
            self.session.send(self, "resume_begin", begin, parent=request)
            for parts in backlog.messages(self.session.sign):
                self._send(parts)
            self._return()
            return report

    def send(self, part: bytes, *_: object, **__: object) -> None:
        self.send_multipart([part])

    def schedule(self, f: Callable[[], None]) -> None:
        f()

    def start(self) -> None:
        """There is no thread to start."""

    def stop(self) -> None:
        """There is no thread to stop."""

    def close(self) -> None:
        with self.lock:
            if self.socket is not None:
                self.socket.close()
                self.socket = None

    def flush_soon(self) -> None:
        """Have the service thread flush within `OutStream.flush_interval`; it is woken only if it sleeps."""
        if not self._ticking:
            self._ticking = True
            self._loop.call_soon_threadsafe(self._loop.call_later, OutStream.flush_interval, self._tick)

    def _tick(self) -> None:
        # who has nothing to flush must not wait for a cell that waits for its reader
        if self.waits():
            self._loop.call_later(_LOOK_S, self._tick)
            return
        with self.before_others() if any(stream.pending for stream in self._streams) else contextlib.nullcontext():
            busy = [stream.flush_if_any() for stream in self._streams]
        self._quiet = 0 if any(busy) else self._quiet + 1
        if self._quiet < _QUIET_TICKS:
            self._loop.call_later(OutStream.flush_interval, self._tick)
            return
        self._ticking = False
        self._quiet = 0
        # A writer that saw the flag still set relies on this tick.
        if any(stream.pending for stream in self._streams):
            self.flush_soon()

    def _greet(self) -> None:
        """Answer new subscriptions with iopub_welcome (Jupyter enhancement proposal 65)."""
        self._service = threading.get_ident()
        with self.before_others():
            self._take_subscriptions()

    def _take_subscriptions(self) -> None:
        while self.socket is not None:
            try:
                event = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if event[:1] == b"\x01":
                self._present = True
                topic = event[1:]
                content = {"subscription": topic.decode(errors="replace")}
                self.session.send(self, "iopub_welcome", content, ident=topic or None)
            elif event[:1] == b"\x00":
                # until the next one has asked for what this one may not have had
                self._away, self._present = True, False


class KernelStream(OutStream):
    """sys.stdout or sys.stderr of a kernel. Forked children write to the descriptor, which the kernel reads."""

    def __init__(self, session: KernelSession, iopub: IOPub, name: str, descriptor: int) -> None:
        super().__init__(session, iopub, name, watchfd=False)
        self.iopub = iopub
        self._descriptor = descriptor
        self.pending = 0
        #: Called first when somebody asks for a flush, as IPython does before it shows a value.
        self.before_flush: Callable[[], None] = lambda: None

    def fileno(self) -> int:
        return self._descriptor

    def write(self, string: str) -> int:
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string)}")
        if self.pub_thread is None:
            raise ValueError("I/O operation on closed file")
        if self.iopub.session.forked:
            _write_all(self._descriptor, string.encode("utf-8", "backslashreplace"))
            return len(string)
        with self._buffer_lock:
            self._buffers[frozenset(self.parent_header.items())].write(string)
            self.pending += len(string)
        if self.pending >= _FLUSH_AT:
            self._flush()
            self.iopub.give_way()
        else:
            self.iopub.flush_soon()
        return len(string)

    def flush(self) -> None:
        if not self.iopub.session.forked:
            self.before_flush()
            self.flush_if_any()

    def flush_if_any(self) -> bool:
        """Flush what waits; whether there was any."""
        if not self.pending:
            return False
        self._flush()
        return True

    def _flush(self) -> None:
        if self.iopub.session.forked:
            return
        with self.iopub.lock:
            for parent, text in self._taken():
                for start in range(0, len(text), _CHUNK):
                    self._publish(parent, text[start : start + _CHUNK])

    def _taken(self) -> list[tuple[dict[str, Any], str]]:
        with self._buffer_lock:
            self.pending = 0
            return [(parent, text) for parent, text in self._flush_buffers() if text]

    def _publish(self, parent: dict[str, Any], text: str) -> None:
        message: dict[str, Any] | None = self.session.msg("stream", {"name": self.name, "text": text}, parent=parent)
        for hook in self._hooks:
            message = hook(message)
            if message is None:
                return
        self.session.send(self.iopub, message, ident=self.topic)


class DescriptorCapture:
    """What arrives on descriptors 1 and 2, read through pipes and written to the kernel's streams."""

    def __init__(self, streams: Sequence[KernelStream], loop: asyncio.AbstractEventLoop) -> None:
        self._lock = threading.Lock()
        self._loop = loop
        libc = ctypes.CDLL(None)
        self._fflush = libc.fflush
        self._fflush.argtypes = [ctypes.c_void_p]
        self._stdout = ctypes.c_void_p.in_dll(libc, "stdout")
        self._sources = [self._open(stream) for stream in streams]

    def _open(self, stream: KernelStream) -> tuple[int, Any, KernelStream]:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        # Code that writes while it holds the interpreter's lock must not fill the pipe: nobody could read it. Where the
        # user's allowance for pipes is used up, the default size must do.
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        # The writing end stays open here as well, so that code that closes descriptor 1 does not end the capture.
        os.dup2(writer, stream.fileno())
        source = (reader, codecs.getincrementaldecoder("utf-8")("replace"), stream)
        # In an empty context: the text belongs to the cell that runs when it arrives, not to the one that runs now.
        self._listen(source)
        return source

    def _listen(self, source: tuple[int, Any, KernelStream]) -> None:
        Context().run(self._loop.add_reader, source[0], self._arrived, source)

    def _arrived(self, source: tuple[int, Any, KernelStream]) -> None:
        """In the service thread, which waits for nobody. What waits in the pipe makes its writer wait."""
        iopub = source[2].iopub
        if iopub.waits():
            self._loop.remove_reader(source[0])
            iopub.on_return.append(lambda: self._listen(source))
        elif self._lock.acquire(blocking=False):
            try:
                self._read_locked(source)
            finally:
                self._lock.release()

    def drain(self) -> None:
        """Bring what was written so far into the streams, C's own buffer included."""
        self._fflush(self._stdout)
        for source in self._sources:
            for _ in range(_PIPE_SIZE // _CHUNK):  # as much as a pipe holds: others may go on writing
                if not self._read(source):
                    break

    def _read(self, source: tuple[int, Any, KernelStream]) -> bool:
        """Take a piece of what is there; whether there was any."""
        with self._lock:
            return self._read_locked(source)

    def _read_locked(self, source: tuple[int, Any, KernelStream]) -> bool:
        reader, decoder, stream = source
        try:
            data = os.read(reader, _CHUNK)
        except BlockingIOError:
            return False
        text = decoder.decode(data)
        if text:
            stream.write(text)
        return bool(data)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def flush_standard_streams() -> None:
    """Flush what user code may have put in the place of the standard streams."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
