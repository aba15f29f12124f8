"""One cell, from the request to its result: outputs gathered, deadline and flood held, death of the kernel survived."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from kernel_pool.channels import Channel, Channels, Incoming, Listener, decode
from kernel_pool.outputs import Outputs, Sink
from kernel_pool.types import CellError, CellResult, CellStatus, Exit, ExitReason, KernelPoolError, Limits

#: How long the missing half of an answer (reply or idle) may lag behind the other, and behind the last output.
_SETTLE_S = 2.0
#: Time between two interrupts of a cell that does not stop: code that catches the first one still ends.
_INTERRUPT_EVERY_S = 1.0
#: Time for the news of a kernel's end to arrive after its channels closed, and for its last output after the news.
_NEWS_S = 3.0
_LAST_OUTPUT_S = 0.5

_log = logging.getLogger(__name__)

_MAX_REPLY = 4 * 1024 * 1024
_CUT = 64 * 1024


class _Expression(msgspec.Struct):
    status: str = ""
    data: dict[str, msgspec.Raw] = {}


class _Reply(msgspec.Struct):
    status: str = ""
    execution_count: int | None = None
    ename: str = ""
    evalue: str = ""
    traceback: list[str] = []
    user_expressions: dict[str, _Expression] = {}


class _Status(msgspec.Struct):
    execution_state: str = ""


@dataclass(frozen=True)
class _Stop:
    """Why a cell is made to stop before it ended."""

    exit: ExitReason
    why: str


async def execute(
    channels: Channels,
    code: str,
    *,
    deadline_s: float,
    interrupt_grace_s: float,
    limits: Limits,
    interrupt: Callable[[], Awaitable[object]],
    kill: Callable[[Exit], Awaitable[object]],
    exited: asyncio.Future[Exit],
    on_output: Sink | None = None,
    user_expressions: Mapping[str, str] | None = None,
    cell_id: str = "",
) -> CellResult:
    """Run `code` and return what came of it, whatever the kernel does.

    After `deadline_s`, or once the outputs exceed `limits.output_flood_bytes`, the cell is interrupted; if it does
    not stop within `interrupt_grace_s`, `kill` is called. `exited` is done when the kernel's process has ended; it is
    never cancelled here. Raises nothing of its own; if this call is cancelled, the cell goes on in the kernel.
    """
    run = _Run(limits, on_output)
    started, interrupts = datetime.now(UTC), channels.interrupts
    stop: _Stop | None = None
    killed: Exit | None = None
    content = {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": dict(user_expressions or {}),
        "allow_stdin": False,
        "stop_on_error": True,
    }
    msg_id = channels.new_id()
    with channels.listening(msg_id, Listener(run.receive, run.oversized)):
        try:
            channels.send("shell", "execute_request", content, metadata={"cellId": cell_id}, msg_id=msg_id)
        except KernelPoolError:
            run.ended.set_result(None)  # the kernel is gone: the wait below says how
        ends = (run.ended, exited, channels.closed)
        await asyncio.wait((*ends, run.flooded), timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if not any(end.done() for end in ends):
            stop = _why_stop(run, limits, deadline_s)
            killed = await _stop(ends, stop, interrupt_grace_s, interrupt, kill)
        exit = await _exit(run, channels, exited, kill, killed)
    run.close()
    return run.result(started, stop, exit, was_interrupted=channels.interrupts > interrupts)


def _why_stop(run: _Run, limits: Limits, deadline_s: float) -> _Stop:
    if run.flooded.done():
        mb = limits.output_flood_bytes / 2**20
        return _Stop(ExitReason.OUTPUT, f"the cell wrote more than {mb:g} MiB of output")
    return _Stop(ExitReason.DEADLINE, f"the cell ran longer than its {deadline_s:g} s")


async def _stop(
    ends: tuple[asyncio.Future[None], asyncio.Future[Exit], asyncio.Future[str]],
    stop: _Stop,
    grace_s: float,
    interrupt: Callable[[], Awaitable[object]],
    kill: Callable[[Exit], Awaitable[object]],
) -> Exit | None:
    """Interrupt the cell until one of `ends` is done; after `grace_s` kill its kernel and return as what."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace_s
    while (left := deadline - loop.time()) > 0:
        interrupting = asyncio.ensure_future(interrupt())
        try:
            await asyncio.wait(ends, timeout=min(left, _INTERRUPT_EVERY_S), return_when=asyncio.FIRST_COMPLETED)
            if any(end.done() for end in ends):
                # An interrupt that is still on its way would hit the next cell.
                await asyncio.wait((interrupting,), timeout=_INTERRUPT_EVERY_S)
                return None
        finally:
            interrupting.cancel()
            await asyncio.wait((interrupting,))
            _note_failure(interrupting)
    exit = Exit(stop.exit, f"{stop.why} and did not stop within {grace_s:g} s of being interrupted")
    await kill(exit)
    return exit


def _note_failure(interrupting: asyncio.Future[object]) -> None:
    """An interrupt that failed changes nothing: the kernel's end, or the kill, is what counts."""
    if not interrupting.cancelled() and (error := interrupting.exception()) is not None:
        _log.info("an interrupt failed: %s", error)


async def _exit(
    run: _Run,
    channels: Channels,
    exited: asyncio.Future[Exit],
    kill: Callable[[Exit], Awaitable[object]],
    killed: Exit | None,
) -> Exit | None:
    """How the kernel ended, or None if the cell ended and the kernel did not."""
    if run.ended.done() and not exited.done() and not channels.closed.done():
        return None
    if not exited.done():
        await asyncio.wait((exited,), timeout=_NEWS_S)
    if exited.done():
        await asyncio.wait((channels.closed,), timeout=_LAST_OUTPUT_S)
        return exited.result()
    if killed is None:
        killed = Exit(ExitReason.CRASH, channels.closed.result())
        await kill(killed)
    return killed


class _Run:
    """What has come of a cell so far."""

    def __init__(self, limits: Limits, sink: Sink | None) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._flood_at = limits.output_flood_bytes
        self._outputs = Outputs(limits.output_bytes, sink)
        self._reply: _Reply | None = None
        self._replied = False
        self._idle = False
        self._settle: asyncio.TimerHandle | None = None
        #: Done when the cell's answer is complete, or will not get any more complete.
        self.ended: asyncio.Future[None] = loop.create_future()
        #: Done when the cell wrote too much.
        self.flooded: asyncio.Future[None] = loop.create_future()

    @property
    def complete(self) -> bool:
        return self._replied and self._idle

    def receive(self, incoming: Incoming) -> None:
        if incoming.channel == "shell" and incoming.msg_type == "execute_reply":
            self._replied = True
            if incoming.size <= _MAX_REPLY:
                self._reply = decode(incoming.content, _Reply)
        elif incoming.channel == "iopub" and incoming.msg_type == "status":
            status = decode(incoming.content, _Status)
            self._idle = self._idle or (status is not None and status.execution_state == "idle")
        elif incoming.channel == "iopub":
            self._outputs.take(incoming)
            self._check_flood()
        else:
            return
        self._move_on()

    def oversized(self, channel: Channel, size: int) -> None:
        """A message was too large to be read: an output, or the reply."""
        if channel == "iopub":
            self._outputs.skip(size)
            self._check_flood()
        elif channel == "shell":
            self._replied = True
        self._move_on()

    def close(self) -> None:
        if self._settle is not None:
            self._settle.cancel()

    def _check_flood(self) -> None:
        if self._outputs.received > self._flood_at and not self.flooded.done():
            self.flooded.set_result(None)

    def _move_on(self) -> None:
        if self.ended.done():
            return
        if self.complete:
            self.ended.set_result(None)
        elif self._replied or self._idle:
            self.close()
            self._settle = self._loop.call_later(_SETTLE_S, self._give_up)

    def _give_up(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def result(self, started: datetime, stop: _Stop | None, exit: Exit | None, *, was_interrupted: bool) -> CellResult:
        """The cell's result, once it has ended one way or the other."""
        reply = self._reply
        error = self._error(reply)
        status: CellStatus = "ok" if reply is not None and reply.status == "ok" else "error"
        reason = ""
        if exit is not None:
            status, reason = "dead", f"{exit.detail}; the kernel's state is lost"
        elif status == "error" and stop is not None:
            status, reason = "interrupted", f"{stop.why} and was interrupted"
        elif status == "error" and was_interrupted:
            status, reason = "interrupted", "the cell was interrupted on request"
        elif reply is None:
            reason = "the kernel did not say how the cell ended"
        elif reply.status == "aborted":
            reason = "not run, because a cell before it failed"
        return CellResult(
            status=status,
            execution_count=_count(reply),
            outputs=self._outputs.result(),
            error=error if status != "ok" else None,
            started=started,
            ended=datetime.now(UTC),
            reason=reason,
            state_lost=exit is not None,
            exit=exit,
            output_bytes=self._outputs.received,
            dropped_bytes=self._outputs.dropped,
            user_expressions=_expressions(reply),
        )

    def _error(self, reply: _Reply | None) -> CellError | None:
        if reply is not None and reply.ename:
            return CellError(reply.ename[:_CUT], reply.evalue[:_CUT], tuple(reply.traceback))
        shown = self._outputs.last_error()
        return CellError(shown["ename"], shown["evalue"], tuple(shown["traceback"])) if shown else None


def _count(reply: _Reply | None) -> int | None:
    if reply is None or reply.execution_count is None or not 0 <= reply.execution_count < 2**63:
        return None
    return reply.execution_count


def _expressions(reply: _Reply | None) -> dict[str, str]:
    """The text of the user expressions that worked."""
    texts = {}
    for name, expression in (reply.user_expressions if reply is not None else {}).items():
        text = decode(expression.data.get("text/plain", msgspec.Raw(b"null")), str)
        if expression.status == "ok" and text is not None:
            texts[name] = text
    return texts
