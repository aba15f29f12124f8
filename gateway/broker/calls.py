"""All calls of all sessions: whose they are, which cell made them, and whether they may be made at all.

A call is known by session, cell, tool, arguments and occurrence. What is under way is joined (`flights`); how one goes
from its row in the journal to its answer is in `runs`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from gateway.approvals.gate import Gate
from gateway.approvals.types import BATCH
from gateway.settings import BrokerSettings
from gateway.tool_catalogue import Catalogue
from gateway.types import BoundaryObserver, CallRecord, Grant, Learner
from gateway.work.runs import WorkRuns
from servers.errors import BudgetExceeded, ToolDenied, ToolError, ToolInputError, ToolNotFound

from .attempt import Attempts, Parts, Value
from .batch import Batch, parse_batch
from .canonical import MAX_NAME, canonical, check_names
from .cells import Cell, Session
from .contexts import ContextFactory
from .errors import to_body
from .flights import Flights, Heard, give_up, told
from .held import Held
from .journal import Journal
from .one_call import Call, Outcome, record_of
from .policy import CellBudget, check_allowed
from .runs import Runs
from .scrub import Scrubber

log = structlog.get_logger(__name__)


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
        held: Held | None = None,
        work: WorkRuns | None = None,
    ) -> None:
        """`gate`: None where there is nobody to ask; what is critical is refused then. `work`: where the runs of long
        work are entered; None: such tools are refused.
        """
        self._catalogue = catalogue
        self._journal = journal
        self._settings = settings
        self._scrubber = Scrubber(contexts.secrets)
        attempts = Attempts(settings, self._scrubber, work)
        self.error_body = attempts.error_body
        self._sessions: dict[str, Session] = {}
        self._flights = Flights(settings.settle_s)
        self._runs = Runs(
            journal, contexts, settings, attempts, self._flights, observers=observers, learn=learn, gate=gate, held=held
        )
        self._admission = self._runs.admission
        #: Calls that wait for others.
        self._waiting: set[asyncio.Task[Outcome]] = set()
        self._held = held

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
        begun.fence = None if self._held is None else self._held.fence(session)
        for made in await self._journal.made(session, cell) if resume else ():
            begun.take_up(made.request, record_of(made), made.key)
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
        flights = self._flights.of_all(cell.keys)
        streams = give_up(flight for flight in flights if flight.streams or flight.work)
        await self._flights.settle(flights)
        if streams:
            await asyncio.wait([flight.task for flight in streams], timeout=self._settings.settle_s)
        try:
            await self._runs.reads_in(session)
        except ToolError as error:
            log.error("rows of reads are late", session=session, error=error.message)
        return cell.records

    def interrupt(self, session: str) -> None:
        """The session's cell was interrupted: its reads are given up, and what waits for a person. Writes go on."""
        known = self._sessions.get(session)
        if known is None or known.cell is None:
            return
        for flight in self._flights.of_all(known.cell.keys):
            if flight.stoppable and not flight.given_up:
                flight.interrupted = True
                give_up([flight])

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
        flights = self._flights.all
        await self._flights.settle(flights)
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
        session, cell = self._running(grant, name, size)
        if name == BATCH:
            return await self._batch(grant, session, cell, parse_batch(args, self._admission.most), request)
        call = self._checked(grant, session, cell, name, args, request, parts)
        return _counted(call, await self._flights.join(call, self._runs.run))

    def hear(
        self,
        grant: Grant,
        name: str,
        args: dict[str, Any],
        heard: Heard,
        *,
        size: int,
        request: str,
        parts: Parts | None,
    ) -> Callable[[], object]:
        """`call`, with no task of its own but where it has to wait for another: `heard` is told what comes of it.
        Returns what gives the call up, as cancelling the caller would; nothing is heard then.

        Raises:
            ToolError: the call was refused before the journal knew of it.
        """
        session, cell = self._running(grant, name, size)
        if name == BATCH:
            batch = parse_batch(args, self._admission.most)
            return told(self._batch(grant, session, cell, batch, request), heard, self._waiting)
        call = self._checked(grant, session, cell, name, args, request, parts)
        flight = self._flights.begin(call, self._runs.run)

        def counted(outcome: Outcome | Exception) -> None:
            try:
                outcome = outcome if isinstance(outcome, Exception) else _counted(call, outcome)
            except ToolError as error:
                outcome = error
            heard(outcome)

        if flight is None:
            return told(self._flights.join(call, self._runs.run), counted, self._waiting)
        return self._flights.listen(flight, call.key.tool, counted)

    def _running(self, grant: Grant, name: str, size: int) -> tuple[Session, Cell]:
        """Whose call it is; it is counted. Raises ToolError."""
        session = self._sessions.get(grant.session)
        cell = session.cell if session else None
        if session is None or cell is None:
            raise ToolDenied("No cell of this session is running, so no tool may be called.", tool=name[:MAX_NAME])
        if cell.paused is not None:
            raise cell.paused
        cell.budget.take_call()
        cell.budget.take_bytes(size)
        return session, cell

    def _checked(
        self,
        grant: Grant,
        session: Session,
        cell: Cell,
        name: str,
        args: dict[str, Any],
        request: str,
        parts: Parts | None,
    ) -> Call:
        try:
            return self._check(grant, session, cell, name, args, request, parts)
        except ToolError as error:
            cell.note_refused(grant.session, name[:MAX_NAME], args, to_body(error, name[:MAX_NAME], self._scrubber))
            raise

    async def by_person(self, grant: Grant, name: str, args: dict[str, Any], cell: str) -> Outcome:
        """A call under a cell of its own, beside what the session runs; nobody else is asked. Raises ToolError."""
        own = Session(await self._journal.spent(grant.session), asyncio.Semaphore())
        one = Cell(cell, CellBudget(self._settings, own.budget), approved=True)
        return await self._flights.join(self._check(grant, own, one, name, args, ""), self._runs.run)

    async def _batch(self, grant: Grant, session: Session, cell: Cell, batch: Batch, request: str) -> Outcome:
        """Calls that a person is asked about together; the result has one entry for each.

        Raises:
            ToolError: one of them cannot be made, or they are parked; nothing is done then.
        """
        calls: list[Call] = []
        for number, one in enumerate(batch.calls, 1):
            cell.budget.take_call()
            # a kernel's own ids have no dot
            calls.append(self._check(grant, session, cell, one.tool, one.args, request and f"{request}.{number}"))
        batch.check(call.tool for call in calls)
        await self._runs.reads_in(grant.session)
        refusal = await self._admission.together([(call, await self._runs.claim(call)) for call in calls], batch.title)
        if refusal is not None:
            cell.paused = refusal.error
            for call in calls:
                cell.note(call.key, call.record("pending"))
            raise refusal.error
        outcomes = [await self._flights.join(call, self._runs.run) for call in calls]
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
    ) -> Call:
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
        return Call(grant, session, cell, tool, checked, text, key, request, cell.record(key), parts)


def _counted(call: Call, outcome: Outcome) -> Outcome:
    """Raises BudgetExceeded: it is more than the cell may have."""
    call.cell.budget.take_bytes(outcome.value.size)
    call.cell.budget.take_rows(outcome.value.rows)
    return outcome
