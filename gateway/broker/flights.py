"""Calls under way in this process. One is joined, whoever began it: it does not end with the kernel that made it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from gateway.types import CallState
from servers.errors import UpstreamError

from .journal import CallKey
from .one_call import Call, Outcome

Run = Callable[[Call], Coroutine[Any, Any, Outcome]]

#: Told once what came of a call.
Heard = Callable[[Outcome | Exception], None]


@dataclass
class Flight:
    """A call under way, and how many wait for it."""

    task: asyncio.Task[Outcome]
    effect: str
    #: A long work: it may be stopped between two steps, and goes on from there when it is called again.
    work: bool
    #: Its result comes in parts: nobody can join it, and it ends with its cell.
    streams: bool
    waiting: int = 0
    #: Its cell was interrupted.
    interrupted: bool = False
    #: A call that was cancelled before it could change anything, and is about to end: nobody joins it any more.
    given_up: bool = False
    #: It waits for a person, so it has not gone out.
    held: bool = False

    @property
    def stoppable(self) -> bool:
        """Cancelling it leaves nothing of which nobody knows whether it was done."""
        return self.effect == "read" or self.held or self.work

    @property
    def stopped(self) -> CallState:
        """What a call has come to that was cancelled. A long work that its cell gave up stopped between two steps;
        one that its gateway left is gone on with by the next."""
        if self.held:
            return "pending"
        return "failed" if self.work and self.interrupted else "unknown"


class Flights:
    """Those of all sessions."""

    def __init__(self, settle_s: float) -> None:
        """`settle_s`: how long `settle` waits."""
        self._settle_s = settle_s
        self._under_way: dict[CallKey, Flight] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def of(self, key: CallKey) -> Flight:
        """The flight of a call that runs."""
        return self._under_way[key]

    def of_all(self, keys: Iterable[CallKey]) -> list[Flight]:
        """Of these, what is under way."""
        return [self._under_way[key] for key in keys if key in self._under_way]

    @property
    def all(self) -> list[Flight]:
        """At this moment."""
        return list(self._under_way.values())

    def begin(self, call: Call, run: Run) -> Flight | None:
        """Start the call, or join it where it is under way from an earlier run of the cell. None: one that nobody joins
        has to end first.
        """
        flight = self._under_way.get(call.key)
        joined = flight is not None
        if flight is None:
            task = asyncio.create_task(run(call), context=call.cell.context.copy())
            flight = Flight(task, call.tool.effect, bool(call.tool.workload), call.tool.streams)
            self._under_way[call.key] = flight
            call.session.streams += call.tool.streams
        elif flight.given_up or flight.streams:
            return None
        call.cell.note(call.key, call.record("executing"))
        flight.task.add_done_callback(partial(self._landed, call, joined))
        return flight

    def listen(self, flight: Flight, name: str, heard: Heard) -> Callable[[], None]:
        """Have `heard` told what comes of a call. Returns what is for those who do not want to know any more: it gives
        up a read that nobody else waits for.
        """
        flight.waiting += 1

        def landed(task: asyncio.Task[Outcome]) -> None:
            flight.waiting -= 1
            heard(_ended(flight, name) if task.cancelled() else _outcome(task))

        def leave() -> None:
            if flight.task.remove_done_callback(landed):
                flight.waiting -= 1
                if not flight.waiting and flight.stoppable:
                    give_up([flight])

        flight.task.add_done_callback(landed)
        return leave

    async def join(self, call: Call, run: Run) -> Outcome:
        """`begin` and `listen`. Cancelled, it does as one who does not want to know any more."""
        while (flight := self.begin(call, run)) is None:
            earlier = self._under_way[call.key]
            give_up([earlier])
            await asyncio.wait([earlier.task])
        told: asyncio.Future[Outcome | Exception] = asyncio.get_running_loop().create_future()
        leave = self.listen(flight, call.key.tool, lambda outcome: None if told.done() else told.set_result(outcome))
        try:
            outcome = await told
        except asyncio.CancelledError:
            leave()
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _landed(self, call: Call, joined: bool, task: asyncio.Task[Outcome]) -> None:
        flight = self._under_way.pop(call.key, None)
        call.session.streams -= call.tool.streams  # nobody joins one, so it lands once
        stopped: CallState = "unknown" if flight is None else flight.stopped
        record = call.record(stopped) if task.cancelled() else task.result().record
        replayed = call.before.replayed if call.before else record.replayed or joined
        call.cell.note(call.key, msgspec.structs.replace(record, replayed=replayed))

    async def settle(self, flights: Sequence[Flight]) -> None:
        """Wait a little for the writes among them."""
        writes = [flight.task for flight in flights if flight.effect != "read" and not flight.work]
        if writes:
            await asyncio.wait(writes, timeout=self._settle_s)


def _ended(flight: Flight, tool: str) -> UpstreamError:
    why = "the cell was interrupted" if flight.interrupted else "the gateway is stopping"
    return UpstreamError(f"{tool.rpartition('.')[2]}: {why}.", tool=tool)


def _outcome(task: asyncio.Task[Outcome]) -> Outcome | Exception:
    error = task.exception()
    return error if isinstance(error, Exception) else task.result()


def told(
    answer: Coroutine[Any, Any, Outcome], heard: Heard, running: set[asyncio.Task[Outcome]]
) -> Callable[[], object]:
    """Run it, and have `heard` told. Returns what cancels it; nothing is heard then. `running` holds its task."""
    task = asyncio.create_task(answer)
    running.add(task)

    def over(task: asyncio.Task[Outcome]) -> None:
        running.discard(task)
        if not task.cancelled():
            heard(_outcome(task))

    task.add_done_callback(over)
    return task.cancel


def give_up(flights: Iterable[Flight]) -> list[Flight]:
    """Cancel them; nobody joins them any more. Once each: another time would break off what they have to write down."""
    given_up = list(flights)
    for flight in given_up:
        if not flight.given_up:
            flight.given_up = True
            flight.task.cancel()
    return given_up
