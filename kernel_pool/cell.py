"""What has come of one cell so far, gathered from the messages that answer it, and at last its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from kernel_pool.channels import Channel, Incoming, decode
from kernel_pool.outputs import Earlier, Outputs, Overflow, Sink
from kernel_pool.sandbox.backlog import stream_start, weight
from kernel_pool.types import CellError, CellResult, CellStatus, Exit, ExitReason, Limits

#: How long the missing half of an answer (reply or idle) may lag behind the other, and behind the last output.
_SETTLE_S = 2.0
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
class Stop:
    """Why a cell is made to stop before it ended."""

    exit: ExitReason
    why: str


class Run:
    """What has come of a cell so far.

    `held`: it began before these channels were there. What arrives is ignored until `open`, since it comes again.
    """

    def __init__(
        self,
        limits: Limits,
        sink: Sink | None,
        *,
        held: bool = False,
        overflow: Overflow | None = None,
        hold: Callable[[bool], None] = lambda wait: None,
        waits: Callable[[], bool] = lambda: False,
        earlier: Earlier | None = None,
    ) -> None:
        """`hold` makes the kernel wait with its output, or not; `waits`: whether it does.

        `earlier`: what the overflow has of the cell from a gateway before.
        """
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._flood_at = limits.output_flood_bytes
        self._overflow = overflow
        self._outputs = Outputs(limits.output_bytes, sink, overflow, hold)
        #: How far the cell has come, and how far the overflow had it before: see `sandbox/backlog.py`.
        self._position, self._had = 0, 0
        if earlier is not None:
            self._had = earlier.position
            self._outputs.restore(earlier)
        self._reply: _Reply | None = None
        self._replied = False
        self._idle = False
        self._held = held
        self._waits = waits
        self._lost = "the kernel did not say how the cell ended"
        self._settle: asyncio.TimerHandle | None = None
        #: Done when the cell's answer is complete, or will not get any more complete.
        self.ended: asyncio.Future[None] = loop.create_future()
        #: Done, with one sentence's beginning for people, when the cell wrote more than can be kept.
        self.flooded: asyncio.Future[str] = loop.create_future()

    @property
    def complete(self) -> bool:
        return self._replied and self._idle

    @property
    def replied(self) -> bool:
        return self._replied

    def open(self, position: int = 0) -> None:
        """From here on outputs count; the first of them is the one at `position`."""
        if not self._held:
            return
        self._held, self._position = False, position
        if position > self._had:
            self._outputs.position = position
            self._outputs.lose(position - self._had)

    def hold(self) -> None:
        """From here on outputs do not count."""
        self._held = True

    def lose(self, reason: str) -> None:
        """The cell is over, and how it ended cannot be known; `reason` is one sentence for people."""
        self._lost = reason
        self._give_up()

    def reply(self, content: bytes | None) -> None:
        """The cell's execute_reply was this; None: it is not known any more."""
        self._replied = True
        if content is not None and len(content) <= _MAX_REPLY:
            self._reply = decode(content, _Reply)
        self._move_on()

    def skip(self, size: int) -> None:
        """So many bytes of output were not kept for us."""
        self._outputs.skip(size)
        self._check_flood()

    def receive(self, incoming: Incoming) -> None:
        if incoming.channel == "shell" and incoming.msg_type == "execute_reply":
            self.reply(incoming.content)
            return
        if incoming.channel != "iopub" or self._held:
            return
        if incoming.msg_type == "status":
            status = decode(incoming.content, _Status)
            self._idle = self._idle or (status is not None and status.execution_state == "idle")
        elif (fresh := self._fresh(incoming)) is not None:
            self._outputs.position = self._position
            self._outputs.take(fresh)
            self._check_flood()
        self._move_on()

    def _fresh(self, incoming: Incoming) -> Incoming | None:
        """What of it the overflow did not have before."""
        weighs = weight(incoming.msg_type, incoming.content)
        begins, self._position = self._position, self._position + weighs
        if not weighs or begins >= self._had:
            return incoming
        start = stream_start(incoming.content)
        if self._position <= self._had or not start:
            return None
        rest = start + incoming.content[len(start) + self._had - begins :]
        return replace(incoming, parts=(*incoming.parts[:3], rest))

    def oversized(self, channel: Channel, size: int) -> None:
        """A message was too large to be read: an output, or the reply."""
        if channel == "iopub" and not self._held:
            self.skip(size)
        elif channel == "shell":
            self._replied = True
        self._move_on()

    def close(self) -> None:
        if self._settle is not None:
            self._settle.cancel()

    def _check_flood(self) -> None:
        if self.flooded.done():
            return
        if self._outputs.received > self._flood_at:
            self._outputs.close_overflow()
            self.flooded.set_result(f"the cell wrote more than {self._flood_at / 2**20:g} MiB of output")
        elif self._outputs.refused and self._overflow is not None:
            self.flooded.set_result(self._overflow.why)

    def _move_on(self) -> None:
        if self.ended.done():
            return
        if self.complete:
            self.ended.set_result(None)
        elif (self._replied or self._idle) and not self._held:
            self.close()
            self._settle = self._loop.call_later(_SETTLE_S, self._settled)

    def _settled(self) -> None:
        if self._waits():  # what is missing waits for us
            self._settle = self._loop.call_later(_SETTLE_S, self._settled)
        else:
            self._give_up()

    def _give_up(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def result(self, started: datetime, stop: Stop | None, exit: Exit | None, *, was_interrupted: bool) -> CellResult:
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
            reason = self._lost
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
            cut=self._outputs.cut,
            user_expressions=_expressions(reply),
        )

    def _error(self, reply: _Reply | None) -> CellError | None:
        if reply is not None and reply.ename:
            return CellError(reply.ename[:_CUT], reply.evalue[:_CUT], tuple(reply.traceback))
        shown = self._outputs.last_error()
        return CellError(shown["ename"][:_CUT], shown["evalue"][:_CUT], tuple(shown["traceback"])) if shown else None


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
