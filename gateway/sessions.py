"""Sessions: a tenant's kernel with its broker socket, its cells one after the other, its transcript.

A session outlives its kernel. Where the kernel is gone (killed, crashed, the gateway restarted) the session is `lost`
until `restore` leases a new one and runs the finished cells again, their tool calls answered from the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import structlog

from gateway.broker import Broker
from gateway.cell_run import OutputStream, execute_cell
from gateway.envelope import Envelope, make_envelope
from gateway.live_session import LiveSession, SessionKernels
from gateway.session_errors import BadCell, SessionBusy, SessionEnded, SessionLost, SessionNotFound
from gateway.session_rows import CellRow, SessionInfo, SessionRows
from gateway.settings import CellSettings
from gateway.transcripts.clean import clean_text
from gateway.transcripts.notebook import Entry, Header
from gateway.transcripts.store import NAME, TranscriptStore
from gateway.types import CallRecord, CellRun, EventSink, Grant, Role
from kernel_pool.pool import Kernel, Pool
from kernel_pool.types import CellResult, KernelGone

log = structlog.get_logger(__name__)

#: Envelopes of cells with more output than this are made in a thread, bytes.
_THREAD_BYTES = 20_000
#: Time between two interrupts of a cell that does not stop.
_INTERRUPT_EVERY_S = 0.5
#: Time between two looks for idle sessions.
_REAP_EVERY_S = 30.0
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
        settings: CellSettings,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._rows = rows
        self._pool = pool
        self._broker = broker
        self._kernels = SessionKernels(pool, broker, rows)
        self._transcripts = transcripts
        self._settings = settings
        self._redact = redact
        self._live: dict[str, LiveSession] = {}
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def create(
        self,
        tenant: str,
        principal: str,
        role: Role,
        title: str = "",
        *,
        customer: int | None = None,
        kernel: bool = True,
    ) -> SessionInfo:
        """A new session. With `kernel` one is leased now, else by the first cell.

        Raises:
            KernelPoolError: no kernel is to be had.
        """
        id = uuid.uuid4().hex
        title = " ".join(clean_text(title)[:_TITLE_CHARS].replace("\0", "").split())
        info = await self._rows.insert(
            id, tenant=tenant, principal=principal, role=role, title=title, customer=customer
        )
        live = await self._take_in(info)
        if kernel:
            try:
                await self._kernels.lease(live)
            except BaseException:
                await self.end(id)
                raise
        await live.transcript.add()
        return info

    async def get(self, session: str, tenant: str | None = None) -> SessionInfo:
        """`tenant`: the caller's; a session of another one is not found. Raises SessionNotFound."""
        info = await self._rows.get(session, tenant) if NAME.match(session) else None
        if info is None:
            raise SessionNotFound(session)
        return self._as_seen(info)

    async def list(self, tenant: str | None = None, limit: int = 100) -> tuple[SessionInfo, ...]:
        """The newest first; of all tenants for None."""
        return tuple(self._as_seen(info) for info in await self._rows.newest(tenant, limit))

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
        its calls changed is not changed twice. A caller that goes away does not end the cell: its deadline does.

        Raises:
            SessionNotFound, SessionEnded
            SessionLost: the kernel is gone; `restore` first.
            SessionBusy: too many cells wait.
            BadCell: code, id or deadline cannot be.
            KernelPoolError: no kernel is to be had.
        """
        code, deadline = self._checked(code, cell_id, deadline_s)
        live = await self._find(session)
        if len(live.cells) > self._settings.queue:
            raise SessionBusy(session, len(live.cells))

        async def body() -> CellRun:
            async with live.lock:
                await self._kernels.ready(live)
                cell = await self._cell(live, code, cell_id)
                return await self._run(live, cell, deadline, sink)

        return await self._queue(live, body())

    async def restore(self, session: str) -> tuple[CellRun, ...]:
        """A new kernel for the session, with the variables that its cells had made; those runs.

        Cells that ended by themselves, well or with an error, run again in order. One that was interrupted, or whose
        kernel died, does not: run it again by its id. What they changed is not changed again, nor anything new.

        Raises:
            SessionNotFound, SessionEnded, KernelPoolError
        """
        live = await self._find(session)

        async def body() -> tuple[CellRun, ...]:
            async with live.lock:
                if live.over:
                    raise SessionEnded(session)
                await self._kernels.lose(live, "it is being restored")
                await self._kernels.lease(live)
                runs: list[CellRun] = []
                for cell in await self._rows.cells(session):
                    if cell.status in ("ok", "error") and live.kernel is not None:
                        runs.append(await self._run(live, cell, self._settings.deadline_s, None, replay=True))
                if live.kernel is not None:
                    await self._kernels.set_state(live, "live")
                return tuple(runs)

        return await self._queue(live, body())

    def kernel(self, session: str) -> Kernel | None:
        """The session's kernel, if it has one here."""
        live = self._live.get(session)
        return None if live is None else live.kernel

    async def interrupt(self, session: str) -> bool:
        """Interrupt the cell that runs or is about to. True when it has ended; False where none was, or it goes on.

        Raises:
            SessionNotFound, SessionEnded
        """
        live = await self._find(session)
        if not live.cells:
            return False
        current = live.cells[0]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.interrupt_grace_s):
                # again and again: an interrupt that comes before the cell has begun is lost, and code may catch one
                while not current.is_set():
                    await _interrupt(live.kernel if live.executing else None)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(current.wait(), _INTERRUPT_EVERY_S if live.executing else 0.02)
        return current.is_set()

    async def end(self, session: str) -> None:
        """End the session and its kernel; a running cell ends with it. Safe to call again. Raises SessionNotFound."""
        try:
            live = await self._find(session)
        except SessionEnded:
            return
        live.over = True
        if live.kernel is not None:
            await self._pool.release(live.kernel)
        async with live.lock:
            await self._kernels.drop(live)
            await self._broker.disarm(session)
            await self._kernels.set_state(live, "ended")
            self._live.pop(session, None)

    async def record(self, session: str, *entries: Entry) -> None:
        """Put messages of the conversation, or steps without a kernel, into the transcript."""
        live = await self._find(session)
        await live.transcript.add(*entries)

    async def begin_step(self, session: str, cell: str) -> None:
        """Let tool calls be made without a kernel, under the id of a pseudo-cell; cells wait until `end_step`.

        Raises:
            SessionNotFound, SessionEnded
        """
        live = await self._find(session)
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
        live = await self._find(session)
        try:
            return await self._broker.end_cell(session)
        finally:
            live.lock.release()

    async def reap(self, idle_s: float) -> None:
        """For ever: take the kernels of sessions that were idle for `idle_s` seconds. `restore` brings them back."""
        while True:
            await asyncio.sleep(min(_REAP_EVERY_S, idle_s))
            now = asyncio.get_running_loop().time()
            for live in list(self._live.values()):
                if live.kernel is not None and not live.cells and now - live.used > idle_s:
                    await self._take_idle(live, idle_s)

    async def close(self, grace_s: float) -> None:
        """Let running cells end for `grace_s` seconds, then end every kernel."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        kernels = [live.kernel for live in self._live.values() if live.kernel is not None]
        await asyncio.gather(*(self._pool.release(kernel) for kernel in kernels), return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for live in self._live.values():
            await self._broker.disarm(live.grant.session)
        self._live.clear()

    # -- one session's kernel --

    async def _find(self, session: str) -> LiveSession:
        live = self._live.get(session)
        if live is not None:
            return live
        async with self._opening:
            if session in self._live:
                return self._live[session]
            info = await self._rows.get(session) if NAME.match(session) else None
            if info is None:
                raise SessionNotFound(session)
            if info.state == "ended":
                raise SessionEnded(session)
            live = await self._take_in(info)
            cells = await self._rows.cells(session)
            live.next_index = max((cell.index for cell in cells), default=0) + 1
            live.lost = "the gateway was restarted" if cells else ""
            return live

    async def _take_in(self, info: SessionInfo) -> LiveSession:
        header = Header(info.id, info.tenant, info.role, info.created, info.title, info.state)
        transcript = await asyncio.to_thread(self._transcripts.open, header)
        grant = Grant(tenant=info.tenant, principal=info.principal, session=info.id, role=info.role)
        live = LiveSession(grant, transcript, used=asyncio.get_running_loop().time())
        self._live[info.id] = live
        return live

    def _as_seen(self, info: SessionInfo) -> SessionInfo:
        if info.state == "ended":
            return info
        live = self._live.get(info.id)
        if live is None:
            reason = "the gateway was restarted" if info.cells else ""
        elif live.kernel is not None and live.kernel.exited.done():
            reason = live.kernel.exited.result().detail
        else:
            reason = live.lost
        return msgspec.structs.replace(info, state="lost" if reason else "live", reason=reason)

    async def _take_idle(self, live: LiveSession, idle_s: float) -> None:
        try:
            async with live.lock:
                if not live.cells and not live.over:
                    await self._kernels.lose(live, f"it was not used for {idle_s:g} s")
        except Exception as error:  # noqa: BLE001 - one session's trouble must not end the watch over the others
            log.error("an idle kernel could not be taken", session=live.grant.session, error=str(error))

    # -- cells --

    def _checked(self, code: str, cell_id: str | None, deadline_s: float | None) -> tuple[str, float]:
        code = clean_text(code)
        if "\0" in code:
            raise BadCell("The cell's code holds a NUL character, which Python source cannot.")
        if len(code.encode()) > self._settings.code_kb * 1024:
            raise BadCell(f"The cell is larger than {self._settings.code_kb} KiB (cell.code_kb).")
        if cell_id is not None and not (NAME.match(cell_id) and "." not in cell_id):
            raise BadCell(
                "A cell id is made of up to 64 letters, digits, '-' and '_', the first of them no '-' or '_'."
            )
        if deadline_s is not None and not 0 < deadline_s <= self._settings.deadline_s:
            raise BadCell(f"deadline_s must be above 0 and at most {self._settings.deadline_s:g} (cell.deadline_s).")
        return code, deadline_s or self._settings.deadline_s

    async def _cell(self, live: LiveSession, code: str, cell_id: str | None) -> CellRow:
        known = await self._rows.cell(live.grant.session, cell_id) if cell_id else None
        if known is not None and known.code != code:
            raise BadCell(f"Cell {cell_id} ran with other code. Leave the id out for a new cell.")
        if known is not None:
            return known
        index, live.next_index = live.next_index, live.next_index + 1
        return CellRow(id=cell_id or uuid.uuid4().hex[:16], index=index, code=code, status="running")

    async def _run(
        self, live: LiveSession, cell: CellRow, deadline_s: float, sink: EventSink | None, *, replay: bool = False
    ) -> CellRun:
        """One cell in a kernel that is there, from its row to its place in the transcript."""
        session, kernel = live.grant.session, live.kernel
        if kernel is None:
            raise SessionLost(session, live.lost)
        await self._rows.begin_cell(session, cell)
        await self._broker.begin_cell(session, cell.id, replay=replay)
        stream = OutputStream(sink, self._redact)
        live.executing = True
        try:
            result = await execute_cell(kernel, cell.code, cell.id, deadline_s, stream)
        finally:
            live.executing = False
            calls = await self._broker.end_cell(session)
            await stream.close()
            live.used = asyncio.get_running_loop().time()
        envelope = await self._envelope(cell, result, calls)
        run = CellRun(
            session=session,
            cell=cell.id,
            index=cell.index,
            code=cell.code,
            result=result,
            calls=calls,
            envelope=envelope.text,
            envelope_tokens=envelope.tokens,
        )
        await asyncio.gather(self._rows.end_cell(session, cell.id, result.status), live.transcript.add(run))
        if result.state_lost and not live.over:
            await self._kernels.lose(live, result.exit.detail if result.exit else result.reason)
        return run

    async def _envelope(self, cell: CellRow, result: CellResult, calls: Any) -> Envelope:
        def make() -> Envelope:
            budget = self._settings.envelope_tokens
            return make_envelope(cell.index, cell.code, result, calls, budget=budget, redact=self._redact)

        return await asyncio.to_thread(make) if result.output_bytes > _THREAD_BYTES else make()

    async def _queue(self, live: LiveSession, body: Coroutine[Any, Any, T]) -> T:
        """Run to the end, whether or not the caller waits for it."""
        over = asyncio.Event()
        live.cells.append(over)
        task = asyncio.create_task(body)
        self._tasks.add(task)

        def done(task: asyncio.Task[T]) -> None:
            over.set()
            live.cells.remove(over)
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                log.debug("cell did not run", session=live.grant.session, error=str(task.exception()))

        task.add_done_callback(done)
        return await asyncio.shield(task)


async def _interrupt(kernel: Kernel | None) -> None:
    if kernel is not None:
        with contextlib.suppress(KernelGone):
            await kernel.interrupt()
