"""The life of a call: journaled, sent, journaled, answered; once for every time that the cell makes it.

What the journal has settled is answered from it. What it left open (the gateway was killed, the upstream did not
answer) goes out again, reads as they are, writes with `ToolContext.resuming`, for the tool to look upstream first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
from structlog.contextvars import bind_contextvars

from gateway.approvals.gate import Gate
from gateway.approvals.types import Refusal
from gateway.settings import BrokerSettings
from gateway.tracing import span
from gateway.types import Boundary, BoundaryObserver, CallRecord, Grant, Learner
from servers.context import SessionPins, ToolContext
from servers.errors import ToolDenied, UpstreamError

from .admission import Admission
from .attempt import Attempt, Attempts
from .behind import NotJournaled, Read
from .cells import Session
from .contexts import ContextFactory
from .flights import Flights
from .held import Held
from .journal import CallKey, Journal, Row
from .one_call import Call, Outcome, settled, value_of


class Runs:
    """Runs calls of all sessions."""

    def __init__(
        self,
        journal: Journal,
        contexts: ContextFactory,
        settings: BrokerSettings,
        attempts: Attempts,
        flights: Flights,
        *,
        observers: Sequence[BoundaryObserver],
        learn: Learner | None,
        gate: Gate | None,
        held: Held | None,
    ) -> None:
        self._held = held
        self.admission = Admission(gate, contexts, self.pins)
        self._journal = journal
        self._contexts = contexts
        self._settings = settings
        self._attempts = attempts
        self._flights = flights
        self._observers = tuple(observers)
        self._learn = learn
        self._entering: set[asyncio.Task[None]] = set()
        #: Reads under way that the journal does not know of yet, each with the time when it shall; and who looks.
        self._begun: dict[CallKey, tuple[float, Read]] = {}
        self._looking: asyncio.TimerHandle | None = None

    async def run(self, call: Call) -> Outcome:
        """Never raises but when cancelled: what goes wrong is an outcome."""
        id = call.request or call.key.idempotency_key
        bind_contextvars(call=id, tool=call.key.tool)
        with span(f"tool {call.key.tool}") as made:
            made.set(omniops__tool=call.key.tool, omniops__call=id, omniops__effect=call.tool.effect)
            outcome = await self._run(call)
            made.set(omniops__outcome=outcome.record.state)
            if outcome.error is not None:
                made.failed()
            return outcome

    async def _run(self, call: Call) -> Outcome:
        try:
            if call.tool.streams:  # takes no slot: it may wait for its reader, who may wait for another call
                return await self._read(call)
            async with call.session.slots:
                if call.tool.effect == "read" and call.key not in await self._known(call):
                    return await self._read(call)
                row = await self._entered(call)
                if isinstance(row, Outcome):
                    return row
                if call.tool.effect == "read" or row.goes_out:
                    return await self._perform(call, row)
            flight = self._flights.of(call.key)
            flight.held = True
            refusal = await self.admission.one(call, row)  # a call that waits for a person takes no slot
            flight.held = False
            if refusal is not None:
                return await self._refused(call, row, refusal)
            async with call.session.slots:
                return await self._perform(call, row)
        except Exception as error:  # noqa: BLE001 - the journal's own failures end here, with an answer and a log entry
            body = self._attempts.error_body(error, call.key.tool)
            return Outcome(msgspec.structs.replace(call.record("unknown"), error=body), error=body)

    async def _entered(self, call: Call) -> Outcome | Row:
        """The row of a write, or of a read that the journal may have the answer of; or what it has come to already."""
        if call.tool.effect != "read":
            await self.reads_in(call.grant.session)  # what its arguments came from
        row = await self.claim(call, at_once=await self._unasked(call))
        if row.settled:
            return self._replayed(call, row)
        if row.fresh:
            call.cell.budget.take_fresh_call()
        if call.cell.replay and row.state == "decided":  # a write that never went out
            return self._new_in_replay(call)
        return row

    async def _unasked(self, call: Call) -> bool:
        """A write that goes out as soon as it is entered, if it was not entered before."""
        return call.tool.effect != "read" and not call.cell.replay and await self.admission.unasked(call)

    async def claim(self, call: Call, *, at_once: bool = False) -> Row:
        """Enter a write, or find it where it was entered before."""
        journal, effect = self._journal, call.tool.effect
        return await journal.claim(
            call.key, call.grant, effect, call.text, call.request, at_once=at_once, fence=call.cell.fence
        )

    async def _refused(self, call: Call, row: Row, refusal: Refusal) -> Outcome:
        body = self._attempts.error_body(refusal.error, call.key.tool)
        if refusal.state == "failed":
            await self._journal.finish(row, "failed", error=body)
        if refusal.state == "pending":
            call.cell.paused = refusal.error
        return Outcome(msgspec.structs.replace(call.record(refusal.state), error=body), error=body)

    async def _known(self, call: Call) -> frozenset[CallKey]:
        """The cell's calls that were in the journal at the first call of this run."""
        cell = call.cell
        if cell.known is None:
            cell.known = asyncio.ensure_future(self._keys(call.grant.session, cell.id))
        try:
            return await asyncio.shield(cell.known)
        except Exception:
            cell.known = None
            raise

    async def _keys(self, session: str, cell: str) -> frozenset[CallKey]:
        await self.reads_in(session)
        return await self._journal.keys(session, cell)

    async def reads_in(self, session: str) -> None:
        """The rows of the session's reads are in the journal when this returns. Raises UpstreamError."""
        try:
            async with asyncio.timeout(self._settings.journal_s):
                await self._journal.reads.flush(session)
        except (TimeoutError, NotJournaled) as error:
            reason = str(error) or f"not within {self._settings.journal_s:g} s"
            raise UpstreamError(f"The journal does not have the session's reads so far: {reason}.") from None

    def _new_in_replay(self, call: Call) -> Outcome:
        """A cell that ran before asks for a write that is new. The journal keeps it as decided: it never went out."""
        error = ToolDenied(
            f"{call.tool.name}: the session is being restored, and this cell did not make this change before, so it is "
            "not made now.",
            hint="Time or chance may have led to other arguments. Look at the state, then decide in a new cell.",
        )
        body = self._attempts.error_body(error, call.key.tool)
        return Outcome(msgspec.structs.replace(call.record("decided"), error=body), error=body)

    def _replayed(self, call: Call, row: Row) -> Outcome:
        record = settled(call.record(row.state), row)
        return Outcome(msgspec.structs.replace(record, replayed=True), value_of(row), row.error)

    async def _read(self, call: Call) -> Outcome:
        """A read that the journal does not have: it goes out at once, and its row is written behind it."""
        call.cell.budget.take_fresh_call()
        read = Read(call.key, call.grant, call.text, call.request, "executing", datetime.now(UTC))
        self._watch(read)
        done = Attempt("applied")
        try:
            if self._observers:
                await self._observe("before", call.record("executing"))
            await self._attempt(call, done, resuming=False)
        except asyncio.CancelledError:
            if not done.batches:
                await self._journal.reads.put(replace(read, state="unknown", ended=datetime.now(UTC)))
                raise
            # a stream that nobody reads on: what was read was read
        finally:
            self._begun.pop(call.key, None)
        if self._observers:
            await self._observe("sent", call.record("executing"))
        read = Read(
            *(call.key, call.grant, call.text, call.request),
            state=done.state,
            started=read.started,
            ended=datetime.now(UTC),
            result=done.value.text,
            table=done.value.table,
            error=None if done.error is None else json.dumps(done.error),
            size=done.size,
            rows=done.rows,
            batches=done.batches,
            cost=done.cost,
        )
        await self._journal.reads.put(read)
        return await self._done(call, done, read.started, read.ended)

    def _watch(self, read: Read) -> None:
        """One timer for all: most reads are over before it is due."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._settings.entered_after_s
        self._begun[read.key] = due, read
        if self._looking is None:
            self._looking = loop.call_at(due, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._looking = None
        for key, (due, read) in list(self._begun.items()):
            if due > loop.time():
                self._looking = loop.call_at(due, self._look)
                return
            del self._begun[key]
            self._enter(read)

    def _enter(self, read: Read) -> None:
        """A read takes long: its row says from now on that it is under way."""
        task = asyncio.create_task(self._journal.reads.put(read))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _perform(self, call: Call, row: Row) -> Outcome:
        done, write = Attempt("applied"), call.tool.effect != "read"
        await self._observe("before", call.record(row.state))
        if write and not row.goes_out:
            await self._journal.executing(row, call.grant.session, call.cell.fence)
        if write and self._held is not None and call.cell.fence is not None:
            await self._held.check(call.grant.session)  # it may have been long since the journal was asked
        new = row.goes_out or row.state in ("decided", "pending")
        try:
            await self._attempt(call, done, resuming=write and not new)
        except asyncio.CancelledError:
            await self._journal.finish(row, self._flights.of(call.key).stopped)
            raise
        await self._observe("sent", call.record("executing"))
        value = done.value
        started, ended = await self._journal.finish(
            row,
            done.state,
            result=value.text,
            table=value.table,
            error=done.error,
            rows=done.rows,
            cost=done.cost,
        )
        return await self._done(call, done, started, ended)

    async def _attempt(self, call: Call, done: Attempt, *, resuming: bool) -> None:
        async def context() -> ToolContext:
            pins, key = await self.pins(call.session, call.grant), call.key.idempotency_key
            return await self._contexts.context(call.grant, pins, call.tool, idempotency_key=key, resuming=resuming)

        await self._attempts.run(call.tool, call.args, context, call.cell.budget, call.parts, done)

    async def _done(self, call: Call, done: Attempt, started: datetime, ended: datetime | None) -> Outcome:
        record = msgspec.structs.replace(
            call.record(done.state),
            result=done.value.shown() if not done.batches else {"rows": done.rows, "batches": done.batches},
            error=done.error,
            result_bytes=done.size,
            started=started,
            ended=ended,
        )
        await self._observe("after", record)
        if self._learn is not None and done.value.text is not None:
            self._learn(call.grant, call.tool, record.result)
        return Outcome(record, done.value, done.error, call.tool.streams and call.parts is not None)

    async def pins(self, session: Session, grant: Grant) -> SessionPins:
        if session.pins is not None:
            return session.pins
        async with session.pinning:
            if session.pins is None:
                session.pins = await self._contexts.pins(grant)
        return session.pins

    async def _observe(self, boundary: Boundary, record: CallRecord) -> None:
        for observer in self._observers:
            try:
                await observer(boundary, record)
            except Exception as error:  # noqa: BLE001 - who watches must not change what happens
                self._attempts.unexpected(error, f"observer of {record.tool}")
