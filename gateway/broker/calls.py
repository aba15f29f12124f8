"""The life of a call: checked, journaled, sent, journaled, answered; once for every time that the cell makes it.

A call is known by session, cell, tool, arguments and occurrence. What the journal has settled is answered from it. What
is under way in this process is awaited, whoever started it: a call does not end with the kernel that made it. What
the journal left open (the gateway was killed, the upstream did not answer) goes out again, reads as they are, writes
with `ToolContext.resuming`, for the tool to look upstream first.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import structlog

from gateway.settings import BrokerSettings
from gateway.types import Boundary, BoundaryObserver, CallRecord, CallState, Grant
from servers.context import SessionPins, ToolContext
from servers.errors import BudgetExceeded, ToolDenied, ToolError, ToolInputError, ToolNotFound, UpstreamError
from servers.registry import Registry
from servers.tool import Tool

from .canonical import MAX_NAME, canonical, check_names, decode_result, encode_result
from .cells import Cell, Session
from .contexts import ContextFactory
from .errors import DEFINITE, ErrorBody, to_body
from .journal import CallKey, Journal, Row
from .policy import MIB, CellBudget, SessionBudget, check_allowed
from .scrub import Scrubber

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a call came to: `text`, the result as JSON, or `error`."""

    record: CallRecord
    text: str | None = None
    error: ErrorBody | None = None


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
    waiting: int = 0
    #: A read that was cancelled and is about to end: nobody joins it any more.
    given_up: bool = False


class Calls:
    """All calls of all sessions of this process."""

    def __init__(
        self,
        registry: Registry,
        journal: Journal,
        contexts: ContextFactory,
        settings: BrokerSettings,
        observers: Sequence[BoundaryObserver] = (),
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._contexts = contexts
        self._settings = settings
        self._observers = tuple(observers)
        self._scrubber = Scrubber(contexts.secrets)
        self._sessions: dict[str, Session] = {}
        self._flights: dict[CallKey, _Flight] = {}

    async def begin(self, session: str, cell: str, *, replay: bool = False) -> None:
        """From now on the session's calls belong to this run of this cell. With `replay` it makes no new write."""
        known = self._sessions.get(session)
        if known is None:
            budget = SessionBudget(await self._journal.count(session))
            slots = asyncio.Semaphore(self._settings.concurrent_calls)
            known = self._sessions.setdefault(session, Session(budget, slots))
        known.over = False
        known.cell = Cell(cell, CellBudget(self._settings, known.budget), replay=replay)

    async def end(self, session: str) -> tuple[CallRecord, ...]:
        """No calls any more. Waits a little for writes under way; what is not over by then is "executing"."""
        known = self._sessions.get(session)
        if known is None or known.cell is None:
            return ()
        cell, known.cell = known.cell, None
        if known.over:
            self._sessions.pop(session)
        flights = [self._flights[key] for key in cell.keys if key in self._flights]
        await self._settle(flights)
        return cell.records

    def forget(self, session: str) -> None:
        """The session is over, or has lost its kernel. Its calls under way go on; a running cell can still be ended."""
        known = self._sessions.get(session)
        if known is not None and known.cell is not None:
            known.over = True
        else:
            self._sessions.pop(session, None)

    async def close(self) -> None:
        """Wait a little for writes, then stop what is under way; the journal has it as not settled."""
        flights = list(self._flights.values())
        await self._settle(flights)
        for flight in flights:
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in flights), return_exceptions=True)

    async def call(self, grant: Grant, name: str, args: dict[str, Any], *, size: int = 0) -> Outcome:
        """One call to its end. `size`: bytes that the arguments took on the way here.

        Cancelling the caller cancels a read that nobody else waits for. A write goes on.

        Raises:
            ToolError: the call was refused before the journal knew of it, or its result is over a budget.
        """
        session = self._sessions.get(grant.session)
        cell = session.cell if session else None
        if session is None or cell is None:
            raise ToolDenied("No cell of this session is running, so no tool may be called.", tool=name[:MAX_NAME])
        cell.budget.take_call()
        cell.budget.take_bytes(size)
        try:
            call = self._check(grant, session, cell, name, args)
        except ToolError as error:
            cell.note_refused(grant.session, name[:MAX_NAME], args, to_body(error, name[:MAX_NAME], self._scrubber))
            raise
        outcome = await self._join(call)
        cell.budget.take_bytes(len(outcome.text or ""))
        return outcome

    def error_body(self, error: Exception, tool: str) -> ErrorBody:
        """Any exception as what a kernel may see of it; what it may not see is logged under a reference."""
        if not isinstance(error, ToolError):
            error = self._unexpected(error, tool)
        return to_body(error, tool, self._scrubber)

    def _check(self, grant: Grant, session: Session, cell: Cell, name: str, args: dict[str, Any]) -> _Call:
        if len(name) > 2 * MAX_NAME:
            raise ToolNotFound(f"There is no tool {name[:60]!r}….")
        check_names(args)
        if "tenant" in args:
            raise ToolDenied(f"{name}: the tenant is the session's own and no argument.", tool=name)
        try:
            tool, checked = self._registry.resolve(name, args)
        except RecursionError:
            raise ToolInputError(f"{name}: the arguments are nested too deeply.", tool=name) from None
        check_allowed(grant, tool)
        text, digest = canonical(checked)
        key = cell.key(grant.session, tool.qualified_name, digest)
        return _Call(grant, session, cell, tool, checked, text, key)

    async def _join(self, call: _Call) -> Outcome:
        """Start the call, or join it where it is under way from an earlier run of the cell."""
        while (flight := self._flights.get(call.key)) is not None and flight.given_up:
            await asyncio.wait([flight.task])
        joined = flight is not None
        if flight is None:
            flight = self._flights[call.key] = _Flight(asyncio.create_task(self._run(call)), call.tool.effect)
        call.cell.note(call.key, call.record("executing"))
        flight.task.add_done_callback(partial(self._landed, call, joined))
        flight.waiting += 1
        try:
            outcome = await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise UpstreamError(f"{call.tool.name}: the gateway is stopping.", tool=call.key.tool) from None
            if flight.waiting == 1 and flight.effect == "read":
                flight.given_up = True
                flight.task.cancel()
            raise
        finally:
            flight.waiting -= 1
        return outcome

    def _landed(self, call: _Call, joined: bool, task: asyncio.Task[Outcome]) -> None:
        self._flights.pop(call.key, None)
        record = call.record("unknown") if task.cancelled() else task.result().record
        call.cell.note(call.key, msgspec.structs.replace(record, replayed=record.replayed or joined))

    async def _run(self, call: _Call) -> Outcome:
        """Never raises but when cancelled: what goes wrong is an outcome."""
        async with call.session.slots:
            try:
                row = await self._journal.claim(call.key, call.grant, call.tool.effect, call.text)
                if row.settled:
                    return self._replayed(call, row)
                call.session.budget.calls += row.fresh
                if call.cell.replay and row.fresh and call.tool.effect != "read":
                    return self._new_in_replay(call)
                return await self._perform(call, row)
            except Exception as error:  # noqa: BLE001 - the journal's own failures end here, with an answer and a log entry
                body = self.error_body(error, call.key.tool)
                return Outcome(msgspec.structs.replace(call.record("unknown"), error=body), error=body)

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
        record = msgspec.structs.replace(
            call.record(row.state),
            replayed=True,
            result=None if row.result is None else decode_result(row.result),
            error=row.error,
            result_bytes=len(row.result or ""),
            started=row.started,
            ended=row.ended,
        )
        return Outcome(record, row.result, row.error)

    async def _perform(self, call: _Call, row: Row) -> Outcome:
        effect = call.tool.effect
        await self._observe("before", call.record(row.state))
        if effect != "read":
            await self._journal.executing(row)
        resuming = effect != "read" and row.state != "decided"
        context = self._contexts.context(
            call.grant,
            await self._pins(call.session, call.grant),
            idempotency_key=call.key.idempotency_key,
            resuming=resuming,
        )
        begun = time.monotonic()
        try:
            text, error, state = await self._attempt(call, context)
        except asyncio.CancelledError:
            await self._journal.finish(row, effect, "unknown")
            raise
        call.cell.budget.take_seconds(time.monotonic() - begun)
        await self._observe("sent", call.record("executing"))
        started, ended = await self._journal.finish(row, effect, state, result=text, error=error)
        record = msgspec.structs.replace(
            call.record(state),
            result=None if text is None else decode_result(text),
            error=error,
            result_bytes=len(text or ""),
            started=started,
            ended=ended,
        )
        await self._observe("after", record)
        return Outcome(record, text, error)

    async def _attempt(self, call: _Call, context: ToolContext) -> tuple[str | None, ErrorBody | None, CallState]:
        """The tool itself: the result as JSON or an error, and what state the call is in by that."""
        write, name = call.tool.effect != "read", call.key.tool
        try:
            async with asyncio.timeout(self._settings.call_timeout_s) as limit:
                value = await call.tool.call(context, call.args)
        except Exception as error:  # noqa: BLE001 - a tool's bug must not end the broker
            if isinstance(error, TimeoutError) and limit.expired():
                error = self._too_slow(call.tool)
            open_end = write and not isinstance(error, DEFINITE)
            return None, self.error_body(error, name), "unknown" if open_end else "failed"
        try:
            text = self._scrubber.known(encode_result(name, value))
            self._check_size(call.tool, text)
        except ToolError as error:
            return None, self.error_body(error, name), "applied" if write else "failed"
        return text, None, "applied"

    def _check_size(self, tool: Tool, text: str) -> None:
        most = self._settings.result_mb * MIB
        if len(text) > most:
            raise BudgetExceeded(
                f"{tool.name}: the result takes {len(text):,} bytes; the most is {most:,}. Ask for less at once.",
                data={"budget": "result_mb", "limit": self._settings.result_mb, "result_bytes": len(text)},
            )

    def _too_slow(self, tool: Tool) -> ToolError:
        error = UpstreamError(f"{tool.name}: no answer within {self._settings.call_timeout_s:g} s.")
        error.retryable = True
        return error

    def _unexpected(self, error: Exception, what: str) -> ToolError:
        """A bug of ours or of a tool: the details stay in the host's log."""
        reference = secrets.token_hex(4)
        details = self._scrubber.text("".join(traceback.format_exception(error)))
        log.error("tool call failed unexpectedly", tool=what, reference=reference, error=details)
        message = f"{what} failed inside the gateway; its log has the reason under {reference}."
        return UpstreamError(message, tool=what, data={"reference": reference})

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
                self._unexpected(error, f"observer of {record.tool}")

    async def _settle(self, flights: Sequence[_Flight]) -> None:
        writes = [flight.task for flight in flights if flight.effect != "read"]
        if writes:
            await asyncio.wait(writes, timeout=self._settings.settle_s)
