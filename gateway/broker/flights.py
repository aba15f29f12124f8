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


@dataclass
class Flight:
    """A call under way, and how many wait for it."""

    task: asyncio.Task[Outcome]
    effect: str
    #: Its result comes in parts: nobody can join it, and it ends with its cell.
    streams: bool
    waiting: int = 0
    #: Its cell was interrupted.
    interrupted: bool = False
    #: A call that was cancelled before it could change anything, and is about to end: nobody joins it any more.
    given_up: bool = False
    #: It waits for a person, so it has not gone out.
    held: bool = False


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

    async def join(self, call: Call, run: Run) -> Outcome:
        """Start the call, or join it where it is under way from an earlier run of the cell."""
        while (flight := self._under_way.get(call.key)) is not None and (flight.given_up or flight.streams):
            give_up([flight])
            await asyncio.wait([flight.task])
        joined = flight is not None
        if flight is None:
            task = asyncio.create_task(run(call), context=call.cell.context.copy())
            flight = Flight(task, call.tool.effect, call.tool.streams)
            self._under_way[call.key] = flight
            call.session.streams += call.tool.streams
        call.cell.note(call.key, call.record("executing"))
        flight.task.add_done_callback(partial(self._landed, call, joined))
        flight.waiting += 1
        try:
            outcome = await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if flight.interrupted:
                raise UpstreamError(f"{call.tool.name}: the cell was interrupted.", tool=call.key.tool) from None
            if this is None or not this.cancelling():
                raise UpstreamError(f"{call.tool.name}: the gateway is stopping.", tool=call.key.tool) from None
            if flight.waiting == 1 and (flight.effect == "read" or flight.held):
                give_up([flight])
            raise
        finally:
            flight.waiting -= 1
        return outcome

    def _landed(self, call: Call, joined: bool, task: asyncio.Task[Outcome]) -> None:
        flight = self._under_way.pop(call.key, None)
        call.session.streams -= call.tool.streams  # nobody joins one, so it lands once
        stopped: CallState = "pending" if flight is not None and flight.held else "unknown"
        record = call.record(stopped) if task.cancelled() else task.result().record
        replayed = call.before.replayed if call.before else record.replayed or joined
        call.cell.note(call.key, msgspec.structs.replace(record, replayed=replayed))

    async def settle(self, flights: Sequence[Flight]) -> None:
        """Wait a little for the writes among them."""
        writes = [flight.task for flight in flights if flight.effect != "read"]
        if writes:
            await asyncio.wait(writes, timeout=self._settle_s)


def give_up(flights: Iterable[Flight]) -> list[Flight]:
    """Cancel them; nobody joins them any more."""
    given_up = list(flights)
    for flight in given_up:
        flight.given_up = True
        flight.task.cancel()
    return given_up
