"""One kernel and its Jupyter clients: what it says goes to all of them, what it answers to the one that asked.

There is one set of channels to the kernel, the gateway's. Clients come and go without the kernel's noticing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from gateway.jupyter import answers
from gateway.jupyter.about import About, Overrun
from gateway.jupyter.mailbox import GONE, Mailbox, Seat
from gateway.jupyter.resumed import Again, Resumed
from gateway.jupyter.shell import Item, Shell, is_cell
from gateway.jupyter.wire import Asked, BadMessage, Posted
from gateway.session_errors import SessionError, SessionLost
from gateway.sessions import Sessions
from gateway.settings import Settings
from gateway.types import CellRun
from kernel_pool.channels import Incoming, decode
from kernel_pool.kernel import Kernel
from kernel_pool.types import Exit, KernelPoolError

log = structlog.get_logger(__name__)

#: Requests whose answers are on their way; the oldest is forgotten where there are more.
_MOST_ASKED = 10_000
#: The gateway's alone.
_OURS = frozenset({"resume_request"})

#: Time for a cell that is about to run to get to its kernel.
_SENT_S = 5.0
#: And for what a kernel said last.
_LAST_S = 0.2


class _State(msgspec.Struct):
    execution_state: str = ""
    status: str = ""


class Hub:
    """One kernel's, over its restarts."""

    def __init__(self, about: About, sessions: Sessions, settings: Settings, over: Callable[[Hub], None]) -> None:
        """`over`: called when its session has ended."""
        self.about = about
        self._over = over
        self.state = "starting"
        self.last_activity = datetime.now(UTC)
        self._sessions = sessions
        self._settings = settings.jupyter
        self._code_kb = settings.cell.code_kb
        self._kernel: Kernel | None = None
        self._unwatch: Callable[[], None] | None = None
        self._mailboxes: list[Mailbox] = []
        self._asked: dict[str, Mailbox] = {}
        #: Requests for which the kernel is kept from being frozen, until it is idle again.
        self._held: dict[str, Kernel] = {}
        #: What comes for the clients of the gateway before, until the first of them is back.
        self._heir: Mailbox | None = None
        self._resumed: Resumed | None = None
        #: Set when a kernel that was on its way is there, with its variables.
        self._coming: asyncio.Event | None = None
        self._restarting = False
        self._restarts = asyncio.Lock()
        self._shell = Shell(self._run, self._send, self._abort)
        self._beside = Shell(self._run, self._send, self._abort)
        self._tasks: set[asyncio.Task[None]] = set()

    # -- clients --

    @property
    def connections(self) -> int:
        return sum(mailbox.seat is not None for mailbox in self._mailboxes)

    def enter(self, session_id: str) -> tuple[Mailbox, Seat]:
        """A client's connection. One with the session id of another that is there takes its place.

        Raises:
            BadMessage: there are too many.
        """
        mailbox = next((each for each in self._mailboxes if session_id and each.session_id == session_id), None)
        if mailbox is None and session_id and self._heir is not None:
            mailbox, self._heir = self._heir, None
            mailbox.session_id = session_id
        if mailbox is None:
            if self.connections >= self._settings.clients:
                raise BadMessage(f"the kernel has {self.connections} connections (jupyter.clients)")
            mailbox = self._mailbox(session_id)
        return mailbox, mailbox.enter()

    def _mailbox(self, session_id: str) -> Mailbox:
        unread, absent = self._settings.unread_mb * 2**20, self._settings.absent_mb * 2**20
        mailbox = Mailbox(session_id, unread=unread, absent=absent)
        self._mailboxes.append(mailbox)
        return mailbox

    def leave(self, mailbox: Mailbox, seat: Seat) -> None:
        """The end of a connection. What comes for the client is kept for it, if it has a session id."""
        mailbox.leave(seat)
        if mailbox.seat is None and not mailbox.session_id:
            self._forget(mailbox)
        away = [each for each in self._mailboxes if each.seat is None]
        for each in away[: max(0, len(away) - self._settings.absent)]:
            self._forget(each)

    def _forget(self, mailbox: Mailbox) -> None:
        if mailbox is self._heir:
            self._heir = None
        if mailbox in self._mailboxes:
            self._mailboxes.remove(mailbox)
        for msg_id in [msg_id for msg_id, each in self._asked.items() if each is mailbox]:
            del self._asked[msg_id]

    def take(self, mailbox: Mailbox, asked: Asked) -> None:
        """A client's message. Raises BadMessage for one that cannot be; Overrun for one too many."""
        msg_id, channel = asked.request.msg_id, asked.request.channel
        if asked.msg_type in _OURS or (self._kernel is not None and self._kernel.channels.is_own(msg_id)):
            raise BadMessage("this message is the gateway's alone")
        if asked.msg_type == "execute_request" and (channel != "shell" or not is_cell(asked)):
            raise BadMessage("an execute_request goes to the shell channel, its code is text")
        line = self._shell if channel == "shell" else self._beside
        if line.waiting >= self._settings.queue or line.size > self._settings.queue_mb * 2**20:
            raise Overrun("too many requests wait for this kernel")
        if channel != "stdin":
            self._asked.pop(msg_id, None)
            self._asked[msg_id] = mailbox
            if len(self._asked) > _MOST_ASKED:
                del self._asked[next(iter(self._asked))]
        if asked.msg_type == "shutdown_request":
            self._keep(self._shut_down(asked))
        else:
            line.put(asked)

    # -- the kernel --

    def bind(self, kernel: Kernel) -> None:
        """From here on it is about this kernel."""
        self._unbind()
        self._kernel = kernel
        self._unwatch = kernel.channels.watch(self._receive)
        self.state = "idle"
        kernel.exited.add_done_callback(lambda exited: self._on_exit(kernel, exited))

    def adopt(self, kernel: Kernel) -> None:
        """The kernel outlived the gateway before, whose clients are on their way."""
        self.bind(kernel)
        self._heir = self._mailbox("")

    def expect(self, work: asyncio.Task[Any]) -> None:
        """A kernel is on its way, which `work` gets."""
        coming = self._coming = asyncio.Event()
        self.state = "starting"

        def done(work: asyncio.Task[Any]) -> None:
            coming.set()
            if lost := self._sessions.requests.lost(self.about.session):
                self._die(lost)

        work.add_done_callback(done)

    def resume(self, msg_id: str, run: asyncio.Task[CellRun]) -> None:
        """In the kernel runs a cell that one of those clients asked for."""
        keeps = self._kernel is not None and self._kernel.profile.kernel == "forked"
        resumed = self._resumed = Resumed(msg_id, "held" if keeps else "open")
        self.state = "busy"
        if self._heir is not None:
            self._asked[msg_id] = self._heir

        def over(run: asyncio.Task[CellRun]) -> None:
            mailbox = self._asked.pop(msg_id, None)
            if mailbox is not None and not run.cancelled() and run.exception() is None:
                mailbox.put(resumed.reply(run.result()))

        run.add_done_callback(over)

    async def interrupt(self) -> None:
        """Interrupt what runs: a cell, or anything else. Raises SessionError, KernelPoolError."""
        if (running := self._shell.running) is not None:
            await asyncio.wait_for(running.asked.request.sent.wait(), _SENT_S)
        self._sessions.requests.interrupting(self.about.session)
        if self._kernel is not None:
            await self._kernel.interrupt()

    async def restart(self) -> None:
        """A new kernel in place of this one. Raises SessionError, KernelPoolError."""
        async with self._restarts:
            self._restarting = True
            try:
                self._shell.clear()
                self._beside.clear()
                # not told: clients take `restarting` for a kernel that died and comes back by itself
                self.state = "restarting"
                await self._sessions.requests.restart(self.about.session)
            finally:
                self._restarting = False
                if lost := self._sessions.requests.lost(self.about.session):
                    self._die(lost)
            self._tell(answers.status("starting"))
            self._tell(answers.status("idle"))

    def send_away(self, code: int, reason: str) -> None:
        for mailbox in self._mailboxes:
            if mailbox.seat is not None:
                mailbox.seat.end(code, reason)

    async def close(self, reason: str) -> None:
        """The kernel has ended, or the gateway is about to: no client is served any more."""
        self._unbind()
        self.send_away(GONE, reason)
        await self._shell.close()
        await self._beside.close()
        for task in tuple(self._tasks):
            task.cancel()

    def _unbind(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
        for kernel in self._held.values():
            kernel.let_go()
        self._held.clear()
        self._kernel = self._unwatch = None

    def _on_exit(self, kernel: Kernel, exited: asyncio.Future[Exit]) -> None:
        if kernel is self._kernel and not self._restarting and not exited.cancelled():
            # what it said last is on its way
            asyncio.get_running_loop().call_later(_LAST_S, self._die_of, kernel, exited.result().detail)

    def _die_of(self, kernel: Kernel, why: str) -> None:
        if kernel is self._kernel and not self._restarting:
            self._die(why)

    def _die(self, why: str) -> None:
        self.state = "dead"
        self._shell.clear()
        over = self._sessions.requests.over(self.about.session)
        if not over:
            self._tell(answers.notice(f"[The kernel is gone: {why}. Its variables are lost: restart it.]"))
        self._tell(answers.status("dead", reason=why))
        if over:
            self._over(self)

    # -- from the kernel --

    def _tell(self, posted: Posted) -> None:
        for mailbox in self._mailboxes:
            mailbox.put(posted)

    def _receive(self, incoming: Incoming) -> None:
        if incoming.msg_type == "iopub_welcome":
            return
        if self._kernel is not None and self._kernel.channels.is_own(incoming.parent_id):
            if self._resumed is not None:
                self._resumed.look(incoming)
            return
        posted = Posted(incoming)
        if not posted.sound:
            return
        if self._resumed is not None:
            try:
                for each in self._resumed.passes(incoming):
                    self._tell(each)
            except Again:
                return
        self.last_activity = datetime.now(UTC)
        if incoming.channel == "iopub":
            if incoming.msg_type == "status":
                self._note_status(incoming)
            self._tell(posted)
            return
        if incoming.channel == "stdin":
            mailbox = self._asked.get(incoming.parent_id)
        else:
            mailbox = self._asked.pop(incoming.parent_id, None)
            self._note_reply(incoming)
        if mailbox is not None:
            mailbox.put(posted)

    def _note_status(self, incoming: Incoming) -> None:
        state = decode(incoming.content, _State)
        if state is not None and state.execution_state in ("busy", "idle", "starting"):
            self.state = state.execution_state
        if self.state == "idle" and (kernel := self._held.pop(incoming.parent_id, None)) is not None:
            kernel.let_go()

    def _note_reply(self, incoming: Incoming) -> None:
        running = self._shell.running
        if running is None or running.asked.request.msg_id != incoming.parent_id:
            return
        running.replied = True
        reply = decode(incoming.content, _State)
        if reply is not None and reply.status == "error" and running.execute and running.execute.stop_on_error:
            self._shell.fail()

    # -- to the kernel --

    async def _send(self, asked: Asked) -> None:
        if self._kernel is None and self._coming is not None:
            await self._coming.wait()
        kernel = self._kernel
        try:
            if kernel is None or kernel.exited.done():
                return
            await kernel.hold()
            msg_id = asked.request.msg_id
            if asked.request.channel == "stdin":
                kernel.let_go()
            elif (before := self._held.get(msg_id)) is not None:
                before.let_go()
                self._held[msg_id] = kernel
            else:
                self._held[msg_id] = kernel
                if len(self._held) > self._settings.queue:
                    self._held.pop(next(iter(self._held))).let_go()
            if asked.msg_type == "interrupt_request":
                self._sessions.requests.interrupting(self.about.session)
            kernel.channels.forward(asked.request)
        except KernelPoolError as error:
            log.info("a request did not reach its kernel", session=self.about.session, error=str(error))

    async def _run(self, item: Item) -> None:
        """One cell to its end; whatever becomes of it, the client gets a reply."""
        if item.execute is None:
            return
        deadline_s = self._settings.deadline_s
        late = asyncio.get_running_loop().call_later(deadline_s, self._say_late, item.asked.header)
        try:
            run = await self._sessions.requests.run(
                self.about.session,
                item.execute.code,
                item.asked.request,
                deadline_s=deadline_s,
                code_kb=self._code_kb,
            )
            name, text = "KernelDied", run.result.reason
        except SessionLost as error:
            name, text = "KernelDied", f"{error} Restart the kernel."
        except (SessionError, KernelPoolError) as error:
            name, text = type(error).__name__, str(error)
        except Exception as error:  # the boundary to the client: it is to get an answer, the log has the reason
            log.exception("a cell did not run", session=self.about.session, error=str(error))
            name, text = "GatewayError", "The gateway failed; its log has the reason."
        finally:
            late.cancel()
        if not item.replied:
            self._answer(item, *answers.failed(name, text, item.asked.header))
            self._shell.fail()

    def _say_late(self, header: bytes) -> None:
        text = (
            f"[The cell ran longer than its {self._settings.deadline_s:g} s (jupyter.deadline_s): it is interrupted.]"
        )
        self._tell(answers.notice(text, header))

    def _abort(self, item: Item) -> None:
        self._answer(item, answers.aborted(item.asked.header))

    def _answer(self, item: Item, *posted: Posted) -> None:
        """In the kernel's place, busy and idle around it."""
        header = item.asked.header
        self._tell(answers.status("busy", header))
        mailbox = self._asked.pop(item.asked.request.msg_id, None)
        for each in posted:
            if each.message.channel == "iopub":
                self._tell(each)
            elif mailbox is not None:
                mailbox.put(each)
        self._tell(answers.status("idle", header))

    async def _shut_down(self, asked: Asked) -> None:
        """A client's shutdown_request: the session ends, or gets a new kernel."""
        content = decode(asked.request.parts[3], _Shutdown) or _Shutdown()
        reply = {"status": "ok", "restart": content.restart}
        mailbox = self._asked.pop(asked.request.msg_id, None)
        if mailbox is not None:
            mailbox.put(answers.made(asked.request.channel, "shutdown_reply", reply, asked.header))
        try:
            if content.restart:
                await self.restart()
            else:
                await self._sessions.end(self.about.session)
        except (SessionError, KernelPoolError) as error:
            log.info("a kernel could not be shut down", session=self.about.session, error=str(error))

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Shutdown(msgspec.Struct):
    restart: bool = False
