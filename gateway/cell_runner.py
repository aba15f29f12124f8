"""A session's cell from its row to its place in the transcript, whether this gateway began it or one before."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial

from structlog.contextvars import bind_contextvars

from gateway.broker import Broker
from gateway.cell_check import CellCheck, note_run, stopped
from gateway.cell_run import OutputStream, execute_cell, execute_request, resume_cell
from gateway.checking.types import Check
from gateway.envelope import Envelope, make_envelope
from gateway.live_session import LiveSession, SessionKernels
from gateway.saving import flush, save, save_soon, settle
from gateway.session_errors import SessionLost
from gateway.session_rows import CellRow, RunningCell, SessionRows
from gateway.tracing import Span, span
from gateway.transcripts.output_file import folder_of
from gateway.transcripts.overflow import CellOverflow, Spooling, told
from gateway.types import CallRecord, CellRun, Grant
from kernel_pool.channels import Request
from kernel_pool.pool import Kernel
from kernel_pool.types import CellResult

#: Runs of a session that may wait to be saved while more are run.
_UNSAVED = 32
#: Envelopes of cells with more output than this are made in a thread, bytes.
_THREAD_BYTES = 20_000


class CellRunner:
    """Runs cells; the caller holds the session's lock."""

    def __init__(
        self,
        rows: SessionRows,
        broker: Broker,
        kernels: SessionKernels,
        *,
        envelope_tokens: int,
        redact: Callable[[str], str],
        spooling: Spooling,
    ) -> None:
        self._spooling = spooling
        self._rows = rows
        self._broker = broker
        self._kernels = kernels
        self._envelope_tokens = envelope_tokens
        self._redact = redact
        #: Asked before each cell, by tenant: raise SessionError where it may not run.
        self.admit: list[Callable[[str], None]] = []
        #: Told each cell that ended, and whose it was.
        self.ran: list[Callable[[Grant, CellRun], None]] = []

    def stream(self) -> OutputStream:
        """For the outputs of a cell that is about to run."""
        return OutputStream(self._redact)

    async def run(
        self,
        live: LiveSession,
        cell: CellRow,
        deadline_s: float,
        stream: OutputStream,
        *,
        replay: bool = False,
        check: CellCheck | None = None,
    ) -> CellRun:
        """One cell in a kernel that is there. With `replay` its row goes on saying how it ended before.

        `check`: its check, which may keep it from running. Where no tool is within its reach, nobody waits for that.

        Raises:
            SessionLost: there is no kernel.
            NotSaved: what the session ran before cannot be saved.
        """
        session, kernel = live.grant.session, _kernel_of(live)
        _bind(live, cell)
        if not replay:
            self._ask(live.grant.tenant)
        await flush(live)
        await settle(live)
        known = await check.before(kernel) if check is not None else None
        if known is not None and known.stopped:
            return await self._stop(live, cell, known, stream)
        msg_id = uuid.uuid4().hex
        with _traced(live, cell) as made:
            if not replay:
                await self._rows.begin_cell(session, cell, msg_id, deadline_s, trace=made.note)
            await self._broker.begin_cell(session, cell.id, replay=replay, deadline_s=deadline_s)
            overflow = self._overflow(live, cell, msg_id)
            result = execute_cell(kernel, cell.code, cell.id, msg_id, deadline_s, stream, overflow)
            later = check.after if check is not None and known is None else None
            return _ended(made, await self._to_its_end(live, cell, msg_id, result, stream, overflow, known, later))

    async def run_request(self, live: LiveSession, cell: CellRow, request: Request, deadline_s: float) -> CellRun:
        """A Jupyter client's execute_request as a cell: unchecked, and without an envelope, which is for models.

        Raises:
            SessionLost: there is no kernel.
            NotSaved: what the session ran before cannot be saved.
        """
        session, kernel = live.grant.session, _kernel_of(live)
        _bind(live, cell)
        self._ask(live.grant.tenant)
        await flush(live, _UNSAVED)
        await settle(live)
        with _traced(live, cell) as made:
            await self._rows.begin_cell(session, cell, request.msg_id, deadline_s, trace=made.note)
            await self._broker.begin_cell(session, cell.id, deadline_s=deadline_s)
            overflow = self._overflow(live, cell, request.msg_id)
            result = execute_request(kernel, cell.code, request, deadline_s, overflow)
            msg_id, stream = request.msg_id, self.stream()
            return _ended(made, await self._to_its_end(live, cell, msg_id, result, stream, overflow, read=False))

    async def resume(self, live: LiveSession, cell: RunningCell, stream: OutputStream) -> CellRun:
        """The rest of a cell that runs in an adopted kernel, its calls allowed already. Raises SessionLost."""
        _bind(live, cell)
        with _traced(live, cell, cell.trace, cell.started) as made:
            overflow = self._overflow(live, cell, cell.msg_id)
            result = resume_cell(_kernel_of(live), cell, stream, overflow)
            return _ended(made, await self._to_its_end(live, cell, cell.msg_id, result, stream, overflow))

    def _overflow(self, live: LiveSession, cell: CellRow, msg_id: str) -> CellOverflow:
        run = hashlib.sha256(msg_id.encode(errors="replace")).hexdigest()[:12]
        return self._spooling.cell(folder_of(live.transcript.path) / f"{cell.id}-{run}.jsonl")

    def _ask(self, tenant: str) -> None:
        for each in self.admit:
            each(tenant)

    async def _to_its_end(
        self,
        live: LiveSession,
        cell: CellRow,
        msg_id: str,
        running: Awaitable[CellResult],
        stream: OutputStream,
        overflow: CellOverflow,
        check: Check | None = None,
        later: Callable[[], Awaitable[Check]] | None = None,
        *,
        read: bool = True,
    ) -> CellRun:
        """`later`: for the check, where the cell did not wait for it. `read`: somebody reads the envelope."""
        session = live.grant.session
        calls: tuple[CallRecord, ...] = ()
        live.executing = True
        try:
            result = await running
            result, spool, shown = told(result, await overflow.close(result), self._spooling.redaction)
            for output in shown:
                stream.put(output)
        except BaseException:
            await overflow.leave()
            raise
        finally:
            live.executing = False
            calls = await self._broker.end_cell(session)
            await stream.close()
            live.used = asyncio.get_running_loop().time()
        if any(call.state == "pending" for call in calls):
            if result.status == "interrupted":
                await self._broker.withdraw(session, "Its cell was interrupted.", cell.id)
            elif result.status in ("ok", "error"):  # whatever the code made of it: its call has not been made
                result = replace(result, status="paused", error=None)
        note_run(live.history, cell.code, result)
        if later is not None:
            check = await later()
        envelope = await self._envelope(live, cell, result, calls, check) if read else Envelope("", 0)
        run = CellRun(
            session=session,
            cell=cell.id,
            index=cell.index,
            code=cell.code,
            result=result,
            calls=calls,
            envelope=envelope.text,
            envelope_tokens=envelope.tokens,
            run=msg_id,
            spool=spool,
            check=check,
        )
        for hear in self.ran:
            hear(live.grant, run)
        if read:
            # the transcript first: a cell whose row says that it is over is in it
            ended = partial(self._rows.end_cell, session, cell.id, result.status)
            await save(live, partial(live.transcript.add, run), ended)
        else:
            save_soon(live, run, self._rows)
        if result.state_lost and not live.over:
            await self._kernels.lose(live, result.exit.detail if result.exit else result.reason)
        return run

    async def _stop(self, live: LiveSession, cell: CellRow, check: Check, stream: OutputStream) -> CellRun:
        """The cell as one that ended with an error before it began: in its row, in the transcript, in the envelope."""
        session, result = live.grant.session, stopped(check)
        for output in result.outputs:
            stream.put(output)
        await stream.close()
        envelope = await self._envelope(live, cell, result, (), check)
        run = CellRun(
            session=session,
            cell=cell.id,
            index=cell.index,
            code=cell.code,
            result=result,
            calls=(),
            envelope=envelope.text,
            envelope_tokens=envelope.tokens,
            check=check,
        )
        await save(live, lambda: live.transcript.add(run), lambda: self._rows.stop_cell(session, cell))
        return run

    async def _envelope(
        self, live: LiveSession, cell: CellRow, result: CellResult, calls: Sequence[CallRecord], check: Check | None
    ) -> Envelope:
        advice = tuple(each for each in check.findings if each.kind == "advice") if check else ()
        fresh = tuple(each for each in advice if each.name not in live.advised)
        live.advised.update(each.name for each in fresh)

        def make() -> Envelope:
            return make_envelope(
                cell.index,
                cell.code,
                result,
                calls,
                budget=self._envelope_tokens,
                redact=self._redact,
                check=check,
                advice=fresh,
            )

        return await asyncio.to_thread(make) if result.output_bytes > _THREAD_BYTES else make()


def _bind(live: LiveSession, cell: CellRow) -> None:
    """What this task logs from now on says which cell it is about; its tool calls do so as well."""
    bind_contextvars(session=live.grant.session, tenant=live.grant.tenant, cell=cell.id)


@contextmanager
def _traced(live: LiveSession, cell: CellRow, note: str = "", started: datetime | None = None) -> Iterator[Span]:
    with span("cell", note=note, started=started) as made:
        grant = live.grant
        made.set(omniops__session=grant.session, omniops__tenant=grant.tenant, omniops__cell=cell.id)
        yield made


def _ended(made: Span, run: CellRun) -> CellRun:
    made.set(omniops__status=run.result.status)
    if run.result.status not in ("ok", "paused"):
        made.failed()
    return run


def _kernel_of(live: LiveSession) -> Kernel:
    if live.kernel is None:
        raise SessionLost(live.grant.session, live.lost)
    return live.kernel
