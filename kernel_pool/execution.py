"""One cell, from the request to its result: outputs gathered, deadline and flood held, death of the kernel survived."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from kernel_pool.catch_up import catch_up, overtake, reply_again
from kernel_pool.cell import Run, Stop
from kernel_pool.channels import Channels, Listener, Request
from kernel_pool.outputs import Earlier, Overflow, Sink
from kernel_pool.stdin import Answers, Ask
from kernel_pool.types import CellResult, CellUnknown, Exit, ExitReason, Json, KernelPoolError, Limits

#: Time between two interrupts of a cell that does not stop: code that catches the first one still ends.
_INTERRUPT_EVERY_S = 1.0
#: Time for the news of a kernel's end to arrive after its channels closed, and for its last output after the news.
_NEWS_S = 3.0
_LAST_OUTPUT_S = 0.5
#: And where it waits for a slow disk.
_HELD_OUTPUT_S = 30.0

#: Time for a kernel to tell what a resumed cell came to, even if the cell's deadline has passed.
_CATCH_UP_S = 5.0

_log = logging.getLogger(__name__)


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
    msg_id: str | None = None,
    silent: bool = False,
    ask: Ask | None = None,
    request: Request | None = None,
    overflow: Overflow | None = None,
) -> CellResult:
    """Run `code` and return what came of it, whatever the kernel does.

    After `deadline_s`, or once the outputs exceed `limits.output_flood_bytes`, the cell is interrupted; if it does
    not stop within `interrupt_grace_s`, `kill` is called. `exited` is done when the kernel's process has ended; it is
    never cancelled here. `msg_id`: by which `resume` finds the cell again. With `silent` it is no cell: it is not in
    the history, and the kernel keeps the messages of the cell before. `ask` answers the cell's `input()`; without it
    that is an error there. `request`: a client's own execute_request that asks for `code`, sent as it is; who answers
    its `input()` is the client's matter. `overflow` gets the outputs of a cell that says more than memory is to hold;
    the kernel waits where it is slow. Raises nothing of its own; if this call is cancelled, the cell goes on in the
    kernel.
    """
    run = Run(limits, on_output, overflow=overflow, hold=channels.hold_output, waits=channels.holding)
    started, interrupts = datetime.now(UTC), channels.interrupts
    content = {
        "code": code,
        "silent": silent,
        "store_history": not silent,
        "user_expressions": dict(user_expressions or {}),
        "allow_stdin": ask is not None,
        "stop_on_error": True,
    }
    # the kernel is to run it once, even if a gateway that died had sent it too
    metadata: dict[str, Json] = {"cellId": cell_id, "once": msg_id is not None}
    msg_id = request.msg_id if request is not None else msg_id or channels.new_id()
    answers = Answers(channels, ask)
    with answers, channels.listening(msg_id, Listener(answers.beside(run.receive), run.oversized)):
        try:
            if request is not None:
                channels.forward(request)
            else:
                channels.send("shell", "execute_request", content, metadata=metadata, msg_id=msg_id)
        except KernelPoolError:
            run.ended.set_result(None)  # the kernel is gone: the wait below says how
        hold = _Hold(run, channels, exited, interrupt, kill, interrupt_grace_s)
        stop, exit = await hold.until_end(deadline_s, lambda: _why_stop(run, deadline_s))
    run.close()
    return run.result(started, stop, exit, was_interrupted=channels.interrupts > interrupts)


async def resume(
    channels: Channels,
    msg_id: str,
    *,
    deadline_s: float,
    interrupt_grace_s: float,
    limits: Limits,
    interrupt: Callable[[], Awaitable[object]],
    kill: Callable[[Exit], Awaitable[object]],
    exited: asyncio.Future[Exit],
    on_output: Sink | None = None,
    allowed_s: float | None = None,
    started: datetime | None = None,
    keeps: bool = True,
    overflow: Overflow | None = None,
    earlier: Earlier | None = None,
) -> CellResult:
    """Go on with a cell that was sent as `msg_id` over other channels, maybe by a gateway that is dead by now.

    As `execute`, without the sending: outputs are given from the cell's first on, whether it still runs or not.
    `deadline_s` is what is left of the cell's time, `allowed_s` all of it, `started` when it began. With `keeps` false
    the kernel is one that keeps nothing for us (stock): outputs are those that it makes from now on. `earlier`: what
    `overflow` has from the gateway before; the kernel tells the rest.

    Raises CellUnknown if the kernel never got the cell, or has run another since.
    """
    loop = asyncio.get_running_loop()
    run = Run(
        limits,
        on_output,
        held=keeps,
        overflow=overflow,
        hold=channels.hold_output,
        waits=channels.holding,
        earlier=earlier if keeps else None,
    )
    started, interrupts = started or datetime.now(UTC), channels.interrupts
    until = loop.time() + deadline_s
    with channels.listening(msg_id, Listener(run.receive, run.oversized)):
        catching_up = asyncio.create_task(catch_up(channels, msg_id, run) if keeps else overtake(channels, run))
        try:
            steps = (catching_up, run.flooded, exited, channels.closed)
            await asyncio.wait(steps, timeout=max(deadline_s, _CATCH_UP_S), return_when=asyncio.FIRST_COMPLETED)
            if catching_up.done() and isinstance(error := catching_up.exception(), CellUnknown):
                raise error
            hold = _Hold(run, channels, exited, interrupt, kill, interrupt_grace_s)
            stop, exit = await hold.until_end(
                max(0.0, until - loop.time()),
                lambda: _why_stop(run, allowed_s or deadline_s),
            )
            if keeps and exit is None and not run.replied:
                await reply_again(channels, msg_id, run, _CATCH_UP_S)
        finally:
            catching_up.cancel()
            await asyncio.wait((catching_up,))
    run.close()
    return run.result(started, stop, exit, was_interrupted=channels.interrupts > interrupts)


@dataclass(frozen=True)
class _Hold:
    """One running cell and the means to end it."""

    run: Run
    channels: Channels
    exited: asyncio.Future[Exit]
    interrupt: Callable[[], Awaitable[object]]
    kill: Callable[[Exit], Awaitable[object]]
    grace_s: float

    async def until_end(self, deadline_s: float, why: Callable[[], Stop]) -> tuple[Stop | None, Exit | None]:
        """Wait for the cell's end, or bring it about; why it was stopped and how its kernel ended, if so."""
        stop: Stop | None = None
        killed: Exit | None = None
        ends = (self.run.ended, self.exited, self.channels.closed)
        await asyncio.wait((*ends, self.run.flooded), timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if not any(end.done() for end in ends):
            stop = why()
            killed = await _stop(ends, stop, self.grace_s, self.interrupt, self.kill)
        return stop, await _exit(self.run, self.channels, self.exited, self.kill, killed)


def _why_stop(run: Run, deadline_s: float) -> Stop:
    if run.flooded.done():
        return Stop(ExitReason.OUTPUT, run.flooded.result())
    return Stop(ExitReason.DEADLINE, f"the cell ran longer than its {deadline_s:g} s")


async def _stop(
    ends: tuple[asyncio.Future[None], asyncio.Future[Exit], asyncio.Future[str]],
    stop: Stop,
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
    run: Run,
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
        until = asyncio.get_running_loop().time() + _HELD_OUTPUT_S
        while channels.holding() and not channels.closed.done() and asyncio.get_running_loop().time() < until:
            await asyncio.wait((channels.closed,), timeout=_LAST_OUTPUT_S)
        return exited.result()
    if killed is None:
        killed = Exit(ExitReason.CRASH, channels.closed.result())
        await kill(killed)
    return killed
