"""The life of a call: checked, journaled, sent, journaled, answered; once for every time that the cell makes it.

A call is known by session, cell, tool, arguments and occurrence. What the journal has settled is answered from it. What
is under way in this process is awaited, whoever started it: a call does not end with the kernel that made it. What
the journal left open (the gateway was killed, the upstream did not answer) goes out again, reads as they are, writes
with `ToolContext.resuming`, for the tool to look upstream first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import structlog

from gateway.approvals.gate import Gate
from gateway.approvals.types import BATCH, Refusal
from gateway.settings import BrokerSettings
from gateway.tool_catalogue import Catalogue
from gateway.types import Boundary, BoundaryObserver, CallRecord, CallState, Grant, Learner
from servers.context import SessionPins, ToolContext
from servers.errors import BudgetExceeded, ToolDenied, ToolError, ToolInputError, ToolNotFound, UpstreamError
from servers.tool import Tool

from .admission import Admission
from .attempt import Attempt, Attempts, Parts, Value
from .batch import Batch, parse_batch
from .behind import NotJournaled, Read
from .canonical import MAX_NAME, canonical, check_names
from .cells import Cell, Session
from .contexts import ContextFactory
from .errors import ErrorBody, to_body
from .journal import CallKey, Journal, Made, Row
from .policy import CellBudget, check_allowed
from .scrub import Scrubber

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a call came to: `value`, or `error`. Of a result that `streamed` both are empty: its parts are gone."""

    record: CallRecord
    value: Value = field(default_factory=Value)
    error: ErrorBody | None = None
    streamed: bool = False


@dataclass(frozen=True)
class _Call:
    """A call that passed all checks."""

    grant: Grant
    session: Session
    cell: Cell
    tool: Tool
    args: dict[str, Any]
    text: str
    key: CallKey
    #: The kernel's own id of it; "" without a kernel.
    request: str
    #: What this run of the cell has of it already: the call comes again.
    before: CallRecord | None
    #: Where the parts of a result that streams go.
    parts: Parts | None = None

    def record(self, state: CallState) -> CallRecord:
        return CallRecord(
            session=self.key.session,
            cell=self.key.cell,
            tool=self.key.tool,
            args=self.args,
            occurrence=self.key.occurrence,
            effect=self.tool.effect,
            state=state,
            replayed=False,
        )


@dataclass
class _Flight:
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


class Calls:
    """All calls of all sessions of this process."""

    def __init__(
        self,
        catalogue: Catalogue,
        journal: Journal,
        contexts: ContextFactory,
        settings: BrokerSettings,
        observers: Sequence[BoundaryObserver] = (),
        learn: Learner | None = None,
        gate: Gate | None = None,
    ) -> None:
        """`gate`: None where there is nobody to ask; what is critical is refused then."""
        self._admission = Admission(gate, contexts, self._pins)
        self._catalogue = catalogue
        self._journal = journal
        self._contexts = contexts
        self._settings = settings
        self._observers = tuple(observers)
        self._learn = learn
        self._scrubber = Scrubber(contexts.secrets)
        self._attempts = Attempts(settings, self._scrubber)
        self.error_body = self._attempts.error_body
        self._entering: set[asyncio.Task[None]] = set()
        self._sessions: dict[str, Session] = {}
        self._flights: dict[CallKey, _Flight] = {}

    async def begin(
        self, session: str, cell: str, *, replay: bool = False, resume: bool = False, deadline_s: float | None = None
    ) -> None:
        """From now on the session's calls belong to this run of this cell. With `replay` it makes no new write.

        With `resume` the run goes on that another gateway began: what it called is in the journal. `deadline_s`: what
        the run may still take.
        """
        known = self._sessions.get(session)
        if known is None:
            budget = await self._journal.spent(session)
            slots = asyncio.Semaphore(self._settings.concurrent_calls)
            known = self._sessions.setdefault(session, Session(budget, slots))
        known.over = False
        ends = None if deadline_s is None else asyncio.get_running_loop().time() + deadline_s
        begun = Cell(cell, CellBudget(self._settings, known.budget), replay=replay, ends=ends)
        for made in await self._journal.made(session, cell) if resume else ():
            begun.take_up(made.request, _record(made), made.key)
            begun.budget.take_up(made.row)
        known.cell = begun

    async def end(self, session: str) -> tuple[CallRecord, ...]:
        """No calls any more. Waits a little for writes under way; what is not over by then is "executing"."""
        known = self._sessions.get(session)
        if known is None or known.cell is None:
            return ()
        cell, known.cell = known.cell, None
        if known.over:
            self._sessions.pop(session)
        self._admission.park(session, cell.id)
        flights = [self._flights[key] for key in cell.keys if key in self._flights]
        streams = _give_up(flight for flight in flights if flight.streams)
        await self._settle(flights)
        if streams:
            await asyncio.wait([flight.task for flight in streams], timeout=self._settings.settle_s)
        try:
            await self._reads_in(session)
        except ToolError as error:
            log.error("rows of reads are late", session=session, error=error.message)
        return cell.records

    def interrupt(self, session: str) -> None:
        """The session's cell was interrupted: its reads are given up, and what waits for a person. Writes go on."""
        known = self._sessions.get(session)
        if known is None or known.cell is None:
            return
        for key in known.cell.keys:
            flight = self._flights.get(key)
            if flight is not None and (flight.effect == "read" or flight.held) and not flight.given_up:
                flight.interrupted = True
                _give_up([flight])

    def forget(self, session: str) -> None:
        """The session is over, or has lost its kernel. Its calls under way go on; a running cell can still be ended."""
        known = self._sessions.get(session)
        if known is not None and known.cell is not None:
            known.over = True
        else:
            self._sessions.pop(session, None)

    async def close(self) -> None:
        """Wait a little for writes, then stop what is under way; the journal has it as not settled."""
        self._admission.close()
        flights = list(self._flights.values())
        await self._settle(flights)
        for flight in flights:
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in flights), return_exceptions=True)
        await self._journal.reads.close(self._settings.settle_s)

    async def call(
        self,
        grant: Grant,
        name: str,
        args: dict[str, Any],
        *,
        size: int = 0,
        request: str = "",
        parts: Parts | None = None,
    ) -> Outcome:
        """One call to its end. `size`: bytes that the arguments took on the way here; `request`: its kernel's own id;
        `parts`: where a result that streams goes, None: it is gathered to a list.

        Cancelling the caller cancels a read that nobody else waits for. A write goes on.

        Raises:
            ToolError: the call was refused before the journal knew of it, or its result is over a budget.
        """
        session = self._sessions.get(grant.session)
        cell = session.cell if session else None
        if session is None or cell is None:
            raise ToolDenied("No cell of this session is running, so no tool may be called.", tool=name[:MAX_NAME])
        if cell.paused is not None:
            raise cell.paused
        cell.budget.take_call()
        cell.budget.take_bytes(size)
        if name == BATCH:
            return await self._batch(grant, session, cell, parse_batch(args, self._admission.most), request)
        try:
            call = self._check(grant, session, cell, name, args, request, parts)
        except ToolError as error:
            cell.note_refused(grant.session, name[:MAX_NAME], args, to_body(error, name[:MAX_NAME], self._scrubber))
            raise
        outcome = await self._join(call)
        cell.budget.take_bytes(outcome.value.size)
        cell.budget.take_rows(outcome.value.rows)
        return outcome

    async def by_person(self, grant: Grant, name: str, args: dict[str, Any], cell: str) -> Outcome:
        """A call under a cell of its own, beside what the session runs; nobody else is asked. Raises ToolError."""
        own = Session(await self._journal.spent(grant.session), asyncio.Semaphore())
        one = Cell(cell, CellBudget(self._settings, own.budget), approved=True)
        return await self._join(self._check(grant, own, one, name, args, ""))

    async def _batch(self, grant: Grant, session: Session, cell: Cell, batch: Batch, request: str) -> Outcome:
        """Calls that a person is asked about together; the result has one entry for each.

        Raises:
            ToolError: one of them cannot be made, or they are parked; nothing is done then.
        """
        calls: list[_Call] = []
        for number, one in enumerate(batch.calls, 1):
            cell.budget.take_call()
            # a kernel's own ids have no dot
            calls.append(self._check(grant, session, cell, one.tool, one.args, request and f"{request}.{number}"))
        batch.check(call.tool for call in calls)
        await self._reads_in(grant.session)
        refusal = await self._admission.together([(call, await self._claim(call)) for call in calls], batch.title)
        if refusal is not None:
            cell.paused = refusal.error
            for call in calls:
                cell.note(call.key, call.record("pending"))
            raise refusal.error
        outcomes = [await self._join(call) for call in calls]
        answer = batch.answer((each.value, each.error) for each in outcomes)
        return Outcome(calls[0].record("applied"), Value(text=answer))

    def _check(
        self,
        grant: Grant,
        session: Session,
        cell: Cell,
        name: str,
        args: dict[str, Any],
        request: str,
        parts: Parts | None = None,
    ) -> _Call:
        if len(name) > 2 * MAX_NAME:
            raise ToolNotFound(f"There is no tool {name[:60]!r}….")
        check_names(args)
        if "tenant" in args:
            raise ToolDenied(f"{name}: the tenant is the session's own and no argument.", tool=name)
        try:
            tool, checked = self._catalogue.of(grant).resolve(name, args)
        except RecursionError:
            raise ToolInputError(f"{name}: the arguments are nested too deeply.", tool=name) from None
        check_allowed(grant, tool)
        if tool.streams and session.streams >= self._settings.concurrent_streams:
            limit = self._settings.concurrent_streams
            raise BudgetExceeded(
                f"{tool.name}: {limit} results stream already. Read one to its end, or close it, first.",
                tool=name,
                data={"budget": "concurrent_streams", "limit": limit},
            )
        text, digest = canonical(checked)
        key = cell.key(grant.session, tool.qualified_name, digest, request)
        return _Call(grant, session, cell, tool, checked, text, key, request, cell.record(key), parts)

    async def _join(self, call: _Call) -> Outcome:
        """Start the call, or join it where it is under way from an earlier run of the cell."""
        while (flight := self._flights.get(call.key)) is not None and (flight.given_up or flight.streams):
            _give_up([flight])
            await asyncio.wait([flight.task])
        joined = flight is not None
        if flight is None:
            flight = _Flight(asyncio.create_task(self._run(call)), call.tool.effect, call.tool.streams)
            self._flights[call.key] = flight
            call.session.streams += call.tool.streams
        call.cell.note(call.key, call.record("executing"))
        flight.task.add_done_callback(partial(self._landed, call, joined))
        flight.waiting += 1
        try:
            outcome = await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if flight.interrupted:
                raise UpstreamError(f"{call.tool.name}: the cell was interrupted.", tool=call.key.tool) from None
            if task is None or not task.cancelling():
                raise UpstreamError(f"{call.tool.name}: the gateway is stopping.", tool=call.key.tool) from None
            if flight.waiting == 1 and (flight.effect == "read" or flight.held):
                _give_up([flight])
            raise
        finally:
            flight.waiting -= 1
        return outcome

    def _landed(self, call: _Call, joined: bool, task: asyncio.Task[Outcome]) -> None:
        flight = self._flights.pop(call.key, None)
        call.session.streams -= call.tool.streams  # nobody joins one, so it lands once
        stopped: CallState = "pending" if flight is not None and flight.held else "unknown"
        record = call.record(stopped) if task.cancelled() else task.result().record
        replayed = call.before.replayed if call.before else record.replayed or joined
        call.cell.note(call.key, msgspec.structs.replace(record, replayed=replayed))

    async def _run(self, call: _Call) -> Outcome:
        """Never raises but when cancelled: what goes wrong is an outcome."""
        try:
            if call.tool.streams:  # takes no slot: it may wait for its reader, who may wait for another call
                return await self._read(call)
            async with call.session.slots:
                if call.tool.effect == "read" and call.key not in await self._known(call):
                    return await self._read(call)
                row = await self._entered(call)
                if isinstance(row, Outcome):
                    return row
                if call.tool.effect == "read":
                    return await self._perform(call, row)
            flight = self._flights[call.key]
            flight.held = True
            refusal = await self._admission.one(call, row)  # a call that waits for a person takes no slot
            flight.held = False
            if refusal is not None:
                return await self._refused(call, row, refusal)
            async with call.session.slots:
                return await self._perform(call, row)
        except Exception as error:  # noqa: BLE001 - the journal's own failures end here, with an answer and a log entry
            body = self.error_body(error, call.key.tool)
            return Outcome(msgspec.structs.replace(call.record("unknown"), error=body), error=body)

    async def _entered(self, call: _Call) -> Outcome | Row:
        """The row of a write, or of a read that the journal may have the answer of; or what it has come to already."""
        if call.tool.effect != "read":
            await self._reads_in(call.grant.session)  # what its arguments came from
        row = await self._claim(call)
        if row.settled:
            return self._replayed(call, row)
        if row.fresh:
            call.cell.budget.take_fresh_call()
        if call.cell.replay and row.state == "decided":  # a write that never went out
            return self._new_in_replay(call)
        return row

    async def _claim(self, call: _Call) -> Row:
        return await self._journal.claim(call.key, call.grant, call.tool.effect, call.text, call.request)

    async def _refused(self, call: _Call, row: Row, refusal: Refusal) -> Outcome:
        body = self.error_body(refusal.error, call.key.tool)
        if refusal.state == "failed":
            await self._journal.finish(row, call.tool.effect, "failed", error=body)
        if refusal.state == "pending":
            call.cell.paused = refusal.error
        return Outcome(msgspec.structs.replace(call.record(refusal.state), error=body), error=body)

    async def _known(self, call: _Call) -> frozenset[CallKey]:
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
        await self._reads_in(session)
        return await self._journal.keys(session, cell)

    async def _reads_in(self, session: str) -> None:
        """The rows of the session's reads are in the journal when this returns. Raises UpstreamError."""
        try:
            async with asyncio.timeout(self._settings.journal_s):
                await self._journal.reads.flush(session)
        except (TimeoutError, NotJournaled) as error:
            reason = str(error) or f"not within {self._settings.journal_s:g} s"
            raise UpstreamError(f"The journal does not have the session's reads so far: {reason}.") from None

    def _new_in_replay(self, call: _Call) -> Outcome:
        """A cell that ran before asks for a write that is new. The journal keeps it as decided: it never went out."""
        error = ToolDenied(
            f"{call.tool.name}: the session is being restored, and this cell did not make this change before, so it is "
            "not made now.",
            hint="Time or chance may have led to other arguments. Look at the state, then decide in a new cell.",
        )
        body = self.error_body(error, call.key.tool)
        return Outcome(msgspec.structs.replace(call.record("decided"), error=body), error=body)

    def _replayed(self, call: _Call, row: Row) -> Outcome:
        record = _settled(call.record(row.state), row)
        return Outcome(msgspec.structs.replace(record, replayed=True), _value(row), row.error)

    async def _read(self, call: _Call) -> Outcome:
        """A read that the journal does not have: it goes out at once, and its row is written behind it."""
        call.cell.budget.take_fresh_call()
        read = Read(call.key, call.grant, call.text, call.request, "executing", datetime.now(UTC))
        entering = asyncio.get_running_loop().call_later(self._settings.entered_after_s, self._enter, read)
        done = Attempt("applied")
        try:
            await self._observe("before", call.record("executing"))
            await self._attempt(call, done, resuming=False)
        except asyncio.CancelledError:
            if not done.batches:
                await self._journal.reads.put(replace(read, state="unknown", ended=datetime.now(UTC)))
                raise
            # a stream that nobody reads on: what was read was read
        finally:
            entering.cancel()
        await self._observe("sent", call.record("executing"))
        read = replace(
            read,
            state=done.state,
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

    def _enter(self, read: Read) -> None:
        """A read takes long: its row says from now on that it is under way."""
        task = asyncio.create_task(self._journal.reads.put(read))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _perform(self, call: _Call, row: Row) -> Outcome:
        effect, done = call.tool.effect, Attempt("applied")
        await self._observe("before", call.record(row.state))
        if effect != "read":
            await self._journal.executing(row)
        try:
            await self._attempt(call, done, resuming=effect != "read" and row.state not in ("decided", "pending"))
        except asyncio.CancelledError:
            await self._journal.finish(row, effect, "unknown")
            raise
        await self._observe("sent", call.record("executing"))
        value = done.value
        started, ended = await self._journal.finish(
            row,
            effect,
            done.state,
            result=value.text,
            table=value.table,
            error=done.error,
            rows=done.rows,
            cost=done.cost,
        )
        return await self._done(call, done, started, ended)

    async def _attempt(self, call: _Call, done: Attempt, *, resuming: bool) -> None:
        async def context() -> ToolContext:
            pins, key = await self._pins(call.session, call.grant), call.key.idempotency_key
            return await self._contexts.context(call.grant, pins, call.tool, idempotency_key=key, resuming=resuming)

        await self._attempts.run(call.tool, call.args, context, call.cell.budget, call.parts, done)

    async def _done(self, call: _Call, done: Attempt, started: datetime, ended: datetime | None) -> Outcome:
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

    async def _pins(self, session: Session, grant: Grant) -> SessionPins:
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

    async def _settle(self, flights: Sequence[_Flight]) -> None:
        writes = [flight.task for flight in flights if flight.effect != "read"]
        if writes:
            await asyncio.wait(writes, timeout=self._settings.settle_s)


def _give_up(flights: Iterable[_Flight]) -> list[_Flight]:
    """Cancel them; nobody joins them any more."""
    given_up = list(flights)
    for flight in given_up:
        flight.given_up = True
        flight.task.cancel()
    return given_up


def _value(row: Row) -> Value:
    return Value(row.result, row.result_table, row.result_rows)


def _settled(record: CallRecord, row: Row) -> CallRecord:
    """The record with what the journal knows of its outcome."""
    return msgspec.structs.replace(
        record,
        result=_value(row).shown(),
        error=row.error,
        result_bytes=row.result_bytes,
        started=row.started,
        ended=row.ended,
    )


def _record(made: Made) -> CallRecord:
    record = CallRecord(
        session=made.key.session,
        cell=made.key.cell,
        tool=made.key.tool,
        args=made.args,
        occurrence=made.key.occurrence,
        effect=made.effect,
        state=made.row.state,
        replayed=made.replayed,
    )
    return _settled(record, made.row)
