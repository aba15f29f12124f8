"""Sessions: a tenant's kernel with its broker socket, its cells one after the other, its transcript.

A session outlives its gateway: the next one takes over its kernel, and the cell that runs there (`adopt`). It outlives
its kernel too. Where that is gone (killed, crashed, the gateway stopped) the session is `lost` until `restore` leases a
new one and runs the finished cells again, their tool calls answered from the journal.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import structlog

from gateway.adoption import adopt_all
from gateway.broker import Broker
from gateway.cell_check import CellCheck, CellChecks
from gateway.cell_run import OutputStream
from gateway.cell_runner import CellRunner
from gateway.live_session import Job, LiveSession, SessionKernels
from gateway.saving import flush, save
from gateway.session_book import SessionBook
from gateway.session_care import SessionCare
from gateway.session_control import CellControl, unless_cancelled
from gateway.session_errors import BadCell, KeyReused, SessionBusy, SessionEnded
from gateway.session_files import SessionFiles
from gateway.session_moves import SessionMoves
from gateway.session_requests import SessionRequests
from gateway.session_rows import AskedUnder, CellRow, RunningCell, SessionInfo, SessionRows
from gateway.settings import CellSettings, FileSettings
from gateway.transcripts.clean import clean_text
from gateway.transcripts.notebook import Entry
from gateway.transcripts.record import Head
from gateway.transcripts.store import NAME, TranscriptStore
from gateway.transcripts.transcript import Transcript
from gateway.types import CallRecord, CellRun, EventSink, Role
from kernel_pool.pool import Kernel, Pool

log = structlog.get_logger(__name__)

_TITLE_CHARS = 200

T = TypeVar("T")


class Sessions:
    """All sessions of this gateway. Methods belong to one event loop."""

    def __init__(
        self,
        *,
        rows: SessionRows,
        pool: Pool,
        broker: Broker,
        transcripts: TranscriptStore,
        head: Callable[[str], Awaitable[Head | None]],
        settings: CellSettings,
        files: FileSettings,
        profile_for: Callable[[Role], str],
        checks: CellChecks,
        redact: Callable[[str], str] = str,
        bring_up: Callable[[Path], Awaitable[None]] | None = None,
        recover: bool = True,
    ) -> None:
        """`head`: the line that the transcript of a session must have; `bring_up`: has another gateway's here.

        `recover`: a session that is taken over from a gateway that is gone is restored at its first use.
        """
        self._checks = checks
        self._rows = rows
        self._pool = pool
        self._broker = broker
        self._kernels = SessionKernels(pool, broker, rows, checks.history)
        self._settings = settings
        self._profile_for = profile_for
        self._runner = CellRunner(
            rows,
            broker,
            self._kernels,
            envelope_tokens=settings.envelope_tokens,
            redact=redact,
            spooling=transcripts.spooling,
        )
        self._book = SessionBook(rows, transcripts, head, profile_for, bring_up)
        #: What there is to be seen, of all sessions.
        self.get, self.list = self._book.get, self._book.list
        self.cell, self.cells, self.counts = self._book.cell, self._book.cells, self._book.counts
        #: What can be done to cells that were asked for.
        control = CellControl(self._book, broker, settings, redact)
        self.interrupt, self.cancel = control.interrupt, control.cancel
        self.known, self.follow = control.known, control.follow
        #: Told each cell that ended.
        self.ran, self.admit = self._runner.ran, self._runner.admit
        self._tasks: set[asyncio.Task[Any]] = set()
        self.files = SessionFiles(self._book, self._kernels, files)
        self.moves = SessionMoves(
            self._book, self._kernels, self._runner, rows, pool, broker, settings, self._queue, recover=recover
        )
        self.restore, self.open, self.fetch = self.moves.restore, self.moves.open, self.moves.fetch
        #: For Jupyter's clients; whom to tell of kernels.
        self.requests = SessionRequests(
            self._book, self._kernels, self._runner, pool, broker, self._queue, rows, self.open
        )
        self.told = self._kernels.told
        self.care = SessionCare(self._book, self._kernels)

    async def create(
        self,
        tenant: str,
        principal: str,
        role: Role,
        title: str = "",
        *,
        customer: int | None = None,
        profile: str | None = None,
        kernel: bool = True,
        env: Mapping[str, str] | None = None,
        under: AskedUnder | None = None,
    ) -> SessionInfo:
        """A new session. With `kernel` one is leased now, else by the first cell. `profile`: None for the role's.
        `env`: variables that its kernels start with; a later gateway does not know them. `under`: a key under which
        the same caller gets the same session, whichever gateway made it.

        Raises:
            UnknownProfile
            KeyReused: the key stands for another request.
            QuotaExceeded: the tenant has as many kernels as it may.
            KernelPoolError: no kernel is to be had, or not with these variables.
            OSError: the transcript cannot be written.
        """
        profile = self._pool.profile(profile or self._profile_for(role)).name
        id = uuid.uuid4().hex
        title = " ".join(clean_text(title)[:_TITLE_CHARS].replace("\0", "").split())
        info = await self._rows.insert(
            id,
            tenant=tenant,
            principal=principal,
            role=role,
            profile=profile,
            title=title,
            customer=customer,
            under=under,
        )
        if info is None and under is not None:
            return await self._made_under(under)
        assert info is not None
        live = await self._book.take_in(info)
        live.env = dict(env or {})
        try:
            await live.transcript.add()
            if kernel:
                await self._kernels.lease(live)
        except BaseException:
            await self._rows.forget_key(id)
            await self.end(id)
            raise
        return info

    async def _made_under(self, asked: AskedUnder) -> SessionInfo:
        session, digest = await self._rows.made_under(asked) or ("", "")
        if digest != asked.digest:
            raise KeyReused(asked.key)
        return await self._book.get(session)

    async def run_cell(
        self,
        session: str,
        code: str,
        *,
        cell_id: str | None = None,
        deadline_s: float | None = None,
        sink: EventSink | None = None,
    ) -> CellRun:
        """Run a cell after those that are under way; "output" events go to `sink` meanwhile.

        `cell_id` of a cell that ran before, with the same code, runs that cell again under the same journal keys: what
        its calls changed is not changed twice. Of one that runs or waits, it joins that one, and is told its outputs
        from the first. A caller that goes away does not end the cell: its deadline does.

        Raises:
            SessionNotFound, SessionEnded
            SessionLost: the kernel is gone; `restore` first.
            SessionBusy: too many cells wait.
            BadCell: code, id or deadline cannot be.
            NotSaved: what the session ran before cannot be saved.
            CellCancelled: it was given up before it began.
            KernelPoolError: no kernel is to be had.
        """
        code = self._checked(code, cell_id)
        live = await self.open(session)
        deadline = self._deadline(live.grant.role, deadline_s)
        job = live.jobs.get(cell_id) if cell_id else None
        if job is None:
            if len(live.cells) > self._settings.queue:
                raise SessionBusy(session, len(live.cells))
            id, stream = cell_id or uuid.uuid4().hex[:16], self._runner.stream()

            async def body(job: Job) -> CellRun:
                async with live.lock:
                    check = self._checks.begin(code, live.history, live.grant)
                    try:
                        await self._kernels.ready(live)
                        cell, ran = await self._cell(live, code, id, known=cell_id is not None)
                    except BaseException:
                        await _drop(check)
                        raise
                    if ran:  # the journal has what it did: it goes its way again
                        await _drop(check)
                        check = None
                    job.begun = True
                    return await self._runner.run(live, cell, deadline, stream, check=check)

            job = self._job(live, id, Job(code, stream), body)
        elif job.code != code:
            raise BadCell(f"Cell {cell_id} runs with other code. Leave the id out for a new cell.")
        if sink is not None:
            job.stream.listen(sink)
        return await asyncio.shield(job.task)

    async def adopt(self) -> None:
        """Take over the sessions whose kernels outlived the gateway before, with the cells that run in them."""

        def queue(
            live: LiveSession, cell: RunningCell, stream: OutputStream, rest: Coroutine[Any, Any, CellRun]
        ) -> None:
            job = self._job(live, cell.id, Job(cell.code, stream, begun=True), lambda _: rest)
            for told in self.requests.resumed:
                told(live.grant.session, cell.msg_id, job.task)

        take_over = self._book.take_over
        await adopt_all(self._pool, self._rows, self._broker, self._runner, take_over, queue, self.told)

    @property
    def here(self) -> frozenset[str]:
        """Those that this gateway has in hand."""
        return frozenset(self._book.live)

    def kernel(self, session: str) -> Kernel | None:
        """The session's kernel, if it has one here."""
        live = self._book.live.get(session)
        return None if live is None else live.kernel

    def transcript(self, session: str) -> Transcript | None:
        """The session's transcript, if it is added to here."""
        live = self._book.live.get(session)
        return None if live is None else live.transcript

    async def end(self, session: str) -> None:
        """End the session and its kernel; a running cell ends with it. Safe to call again. Raises SessionNotFound."""
        try:
            live = await self._book.find(session)
        except SessionEnded:
            return
        live.over = True
        if live.kernel is not None:
            await self._pool.release(live.kernel)
        async with live.lock:
            await self._kernels.drop(live)
            await self._broker.disarm(session)
            await flush(live)
            await self._kernels.set_state(live, "ended")
            await save(live, lambda: self._broker.withdraw(session, "Its session has ended."))
            self._book.let_go(live)

    async def record(self, session: str, *entries: Entry) -> None:
        """Put messages of the conversation, or steps without a kernel, into the transcript."""
        live = await self._book.find(session)
        await save(live, lambda: live.transcript.add(*entries))

    async def begin_step(self, session: str, cell: str) -> None:
        """Let tool calls be made without a kernel, under the id of a pseudo-cell; cells wait until `end_step`.

        Raises:
            SessionNotFound, SessionEnded
        """
        live = await self._book.find(session)
        await live.lock.acquire()
        try:
            if live.over:
                raise SessionEnded(session)
            await self._broker.begin_cell(session, cell)
        except BaseException:
            live.lock.release()
            raise

    async def end_step(self, session: str) -> tuple[CallRecord, ...]:
        """The calls since `begin_step`."""
        live = await self._book.find(session)
        try:
            return await self._broker.end_cell(session)
        finally:
            live.lock.release()

    async def close(self, grace_s: float, *, keep: bool = False) -> None:
        """Let running cells end for `grace_s` seconds, then end every kernel; with `keep`, let go of it.

        A cell that is still running then goes on in its kernel, and a later gateway has its result.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        if keep:
            await self._let_go()
            return
        kernels = [live.kernel for live in self._book.live.values() if live.kernel is not None]
        await asyncio.gather(*(self._pool.release(kernel) for kernel in kernels), return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for live in self._book.live.values():
            await self._broker.disarm(live.grant.session)
        await self.care.save_all()
        self._book.live.clear()

    async def _let_go(self) -> None:
        # the sockets first: a call that finds none waits for the gateway that comes, one that is refused does not
        for live in tuple(self._book.live.values()):
            await self._broker.disarm(live.grant.session, for_good=False)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.care.save_all()
        self._book.live.clear()

    # -- cells --

    def _deadline(self, role: Role, asked_s: float | None) -> float:
        """Seconds. Who talks to a customer does not keep them waiting; staff may have long work. Raises BadCell."""
        usual, most, name = self._settings.deadline_s, self._settings.deadline_s, "cell.deadline_s"
        if role != "agent" and self._settings.long_deadline_s > most:
            most, name = self._settings.long_deadline_s, "cell.long_deadline_s"
        if asked_s is not None and not 0 < asked_s <= most:
            raise BadCell(f"deadline_s must be above 0 and at most {most:g} ({name}).")
        return asked_s or usual

    def _checked(self, code: str, cell_id: str | None) -> str:
        code = clean_text(code)
        if "\0" in code:
            raise BadCell("The cell's code holds a NUL character, which Python source cannot.")
        if len(code.encode()) > self._settings.code_kb * 1024:
            raise BadCell(f"The cell is larger than {self._settings.code_kb} KiB (cell.code_kb).")
        if cell_id is not None and not (NAME.match(cell_id) and "." not in cell_id):
            raise BadCell(
                "A cell id is made of up to 64 letters, digits, '-' and '_', the first of them no '-' or '_'."
            )
        return code

    async def _cell(self, live: LiveSession, code: str, id: str, *, known: bool) -> tuple[CellRow, bool]:
        """The cell, and whether it has run before."""
        found = await self._rows.cell(live.grant.session, id) if known else None
        if found is not None and found.code != code:
            raise BadCell(f"Cell {id} ran with other code. Leave the id out for a new cell.")
        if found is not None:
            return found, not found.stopped
        index, live.next_index = live.next_index, live.next_index + 1
        return CellRow(id=id, index=index, code=code, status="running"), False

    def _job(self, live: LiveSession, id: str, job: Job, body: Callable[[Job], Coroutine[Any, Any, CellRun]]) -> Job:
        live.jobs[id] = job
        job.task = self._queue(live, unless_cancelled(job, id, body(job)), job.over)

        def done(task: asyncio.Task[CellRun]) -> None:
            live.jobs.pop(id, None)
            job.stream.end()

        job.task.add_done_callback(done)
        return job

    def _queue(
        self, live: LiveSession, body: Coroutine[Any, Any, T], over: asyncio.Event | None = None
    ) -> asyncio.Task[T]:
        """Run to the end, whether or not the caller waits for it; `over` is set then."""
        over = over or asyncio.Event()
        live.cells.append(over)
        task = asyncio.create_task(body)
        self._tasks.add(task)
        live.tasks.add(task)

        def done(task: asyncio.Task[T]) -> None:
            over.set()
            live.cells.remove(over)
            self._tasks.discard(task)
            live.tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                log.debug("cell did not run", session=live.grant.session, error=str(task.exception()))

        task.add_done_callback(done)
        return task


async def _drop(check: CellCheck | None) -> None:
    if check is not None:
        await check.drop()
