"""Conversations: turns of the agent on a session, their messages kept, their costs counted in both ways of acting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from gateway.agent.cells import CellActor
from gateway.agent.counterfactual import direct_turn
from gateway.agent.direct import DirectActor, direct_tools
from gateway.agent.loop import run_turn
from gateway.agent.prompt import cells_prompt, direct_prompt
from gateway.agent.types import Message, Mode, TurnLimits, TurnResult
from gateway.approvals.notices import Notices
from gateway.direct_steps import DirectSteps
from gateway.session_errors import SessionBusy, SessionError, SessionLost
from gateway.session_rows import SessionInfo, SessionRows
from gateway.sessions import Sessions
from gateway.settings import AgentSettings
from gateway.tokens import Ledger, Prices
from gateway.tool_catalogue import Catalogue
from gateway.transcripts.clean import clean_json, clean_text
from gateway.transcripts.notebook import Said
from gateway.types import CellRun, Event, EventSink, Role
from kernel_pool.types import KernelPoolError
from servers.analytics.words import ANSWERED, UNANSWERED
from servers.registry import Registry

if TYPE_CHECKING:
    from gateway.agent.model import ModelClient

log = structlog.get_logger(__name__)


class ChatUnavailable(Exception):
    """No model is configured. The message says what to set."""


@dataclass
class _Conversation:
    """What goes from turn to turn."""

    history: list[Message]
    turns: int
    #: The tools as they were at its start: what the model is told of them stays, so that its prompt cache holds.
    tools: Registry
    ledger: Ledger = field(default_factory=Ledger)
    #: The same conversation as it would be with direct tool calls only; of this gateway's turns.
    direct_history: list[Message] = field(default_factory=list)
    direct_ledger: Ledger = field(default_factory=Ledger)
    task: asyncio.Task[TurnResult] | None = None


class Chat:
    """All conversations of this gateway."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        rows: SessionRows,
        steps: DirectSteps,
        notices: Notices,
        catalogue: Catalogue,
        model: ModelClient | str,
        settings: AgentSettings,
        policies: Mapping[str, str],
        code_kb: int,
    ) -> None:
        """`model`: or why there is none; `policies`: the shop's policy by tenant."""
        self._sessions = sessions
        self._rows = rows
        self._steps = steps
        self._notices = notices
        self._catalogue = catalogue
        self._model = model
        self._settings = settings
        self._code_kb = code_kb
        self._policies = policies
        self._conversations: dict[str, _Conversation] = {}
        #: Asked before each turn, by tenant: raise SessionError where it may not begin.
        self.admit: list[Callable[[str], None]] = []
        #: Told each turn that ended: tenant, model, how it went.
        self.turned: list[Callable[[str, str, TurnResult], None]] = []

    def require(self) -> ModelClient:
        """The model. Raises ChatUnavailable."""
        if isinstance(self._model, str):
            raise ChatUnavailable(self._model)
        return self._model

    async def start(
        self, session: SessionInfo, message: str, sink: EventSink, mode: Mode | None = None, *, before: str = ""
    ) -> asyncio.Task[TurnResult]:
        """Begin a turn. Cancelling the task stops what is under way; its result then has the reason "cancelled".

        `before`: what the model is told ahead of the message, and the customer did not say.

        Raises:
            ChatUnavailable
            SessionBusy: the session's last turn is still under way.
            QuotaUsedUp
        """
        model = self.require()
        for each in self.admit:
            each(session.tenant)
        conversation = await self._conversation(session)
        if conversation.task is not None and not conversation.task.done():
            raise SessionBusy(session.id, 1)
        turn = self._turn(session, conversation, model, clean_text(message), sink, mode or self._settings.mode, before)
        conversation.task = asyncio.create_task(turn)
        return conversation.task

    async def forget(self, session: str) -> None:
        """Stop the session's turn, if one is under way, and forget the conversation; the database keeps it."""
        conversation = self._conversations.pop(session, None)
        if conversation is not None and conversation.task is not None:
            conversation.task.cancel()
            await asyncio.wait([conversation.task])

    async def close(self) -> None:
        """Stop every turn and wait for its end."""
        await asyncio.gather(*(self.forget(session) for session in list(self._conversations)))

    async def _conversation(self, session: SessionInfo) -> _Conversation:
        if session.id not in self._conversations:
            turns = await self._rows.messages(session.id)
            tools = self._catalogue.of(session.grant)
            found = _Conversation([message for turn in turns for message in turn], len(turns), tools)
            self._conversations.setdefault(session.id, found)
        return self._conversations[session.id]

    async def _turn(
        self,
        session: SessionInfo,
        conversation: _Conversation,
        model: ModelClient,
        message: str,
        sink: EventSink,
        mode: Mode,
        before: str,
    ) -> TurnResult:
        started = datetime.now(UTC)
        conversation.turns += 1
        index = conversation.turns
        said = [Said(f"turn-{index}-before", "note", before, started)] if before else []
        said.append(Said(f"turn-{index}-customer", "customer", message, started))
        notice = ""

        async def begin() -> None:
            nonlocal notice
            await self._sessions.record(session.id, *said)
            notice = await self._notices.take(session.id)

        if await _to_its_end(begin()):
            _cancel_this_task()  # again, so that the turn ends in order
        kept: list[Event] = []

        async def pass_on(event: Event) -> None:
            # answer and end are told when the turn is on disk, the latter with what is known only then
            if event.kind in ("answer", "end"):
                kept.append(event)
            else:
                await sink(event)

        cells, direct = self._cells(session, conversation.tools), self._direct(session, conversation.tools)
        result = await run_turn(
            session=session.id,
            message="\n\n".join(part for part in (notice, before, message) if part),
            history=conversation.history,
            model=model,
            actor=cells if mode == "cells" else direct,
            fallback=direct,
            limits=TurnLimits.from_settings(self._settings),
            sink=pass_on,
            ledger=conversation.ledger,
        )
        for hear in self.turned:
            hear(session.tenant, model.settings.name, result)

        async def conclude() -> None:
            messages = [clean_json(each) for each in result.messages]
            conversation.history += messages
            usage = await self._usage(session, conversation, model, message, result)
            await self._save(session, index, message, result, messages, usage, started)
            for event in kept:
                more = {"session": session.id} | usage if event.kind == "end" else {}
                await sink(Event(event.kind, event.data | more))

        await _to_its_end(conclude())
        return result

    async def _save(
        self,
        session: SessionInfo,
        index: int,
        message: str,
        result: TurnResult,
        messages: list[Message],
        usage: dict[str, Any],
        started: datetime,
    ) -> None:
        now = datetime.now(UTC)
        said = []
        if result.fallback:
            text = f"Cells could not run, the turn went on with direct tool calls: {result.fallback}"
            said.append(Said(f"turn-{index}-fallback", "note", text, now))
        text = result.answer or result.message
        said.append(Said(f"turn-{index}-agent", "agent" if result.answer else "note", text, now, usage))
        await self._sessions.record(session.id, *said)
        if session.role == "agent":
            answer = clean_text(result.answer)
            await self._rows.add_said(session, index, message, answer, _words(result), (started, now))
        await self._rows.add_turn(
            session.id,
            index,
            mode=result.mode,
            messages=messages,
            reason=result.reason,
            usage=usage,
            started=started,
            ended=now,
        )

    async def _usage(
        self, session: SessionInfo, conversation: _Conversation, model: ModelClient, message: str, result: TurnResult
    ) -> dict[str, Any]:
        """What the turn cost, and what its tool calls would have cost as direct ones."""
        prices = Prices.from_settings(model.settings)
        calls = [call for step in result.steps for call in step.calls]
        actor = self._direct(session, conversation.tools)
        direct, messages = await direct_turn(
            system=actor.system,
            functions=self._functions(conversation.tools, session.role),
            history=conversation.direct_history,
            message=message,
            calls=calls,
            answer=result.answer,
            ledger=conversation.direct_ledger,
        )
        conversation.direct_history += messages
        return {
            "reason": result.reason,
            "mode": result.mode,
            "steps": len(result.steps),
            "calls": len(calls),
            "seconds": round(result.seconds, 3),
            "model_seconds": round(sum(step.model_s for step in result.steps), 3),
            "usage": result.tokens.as_dict(prices),
            "direct_usage": direct.as_dict(prices),
        }

    # -- the two ways of acting --

    def _cells(self, session: SessionInfo, tools: Registry) -> CellActor:
        async def run_cell(code: str, sink: EventSink) -> CellRun:
            code = code.replace("\0", "")
            try:
                try:
                    return await self._sessions.run_cell(session.id, code, sink=sink)
                except SessionLost as lost:
                    log.info("session is restored", session=session.id, reason=lost.reason)
                    await self._sessions.restore(session.id)
                    return await self._sessions.run_cell(session.id, code, sink=sink)
            except SessionError as error:
                raise KernelPoolError(str(error)) from error

        async def interrupt() -> None:
            await self._sessions.interrupt(session.id)

        system = cells_prompt(
            tools,
            self._settings.everyday_tools,
            shop=session.tenant,
            policy=self._policies.get(session.tenant, ""),
            role=session.role,
            max_servers=self._settings.prompt_servers,
        )
        return CellActor(system=system, run_cell=run_cell, interrupt=interrupt, code_kb=self._code_kb)

    def _direct(self, session: SessionInfo, tools: Registry) -> DirectActor:
        system = direct_prompt(shop=session.tenant, policy=self._policies.get(session.tenant, ""))
        functions = self._functions(tools, session.role)
        return DirectActor(system=system, functions=functions, broker=self._steps, grant=session.grant)

    def _functions(self, tools: Registry, role: Role) -> dict[str, dict[str, Any]]:
        names = direct_tools(tools, self._settings.everyday_tools, role, self._settings.direct_tools)
        return dict(zip(names, tools.openai_tools(names), strict=True))


def _words(result: TurnResult) -> list[str]:
    """What a turn was about, for the reports (servers.analytics.words): the tools that it used, and its end."""
    tools = [call.tool.rpartition(".")[2] for step in result.steps for call in step.calls]
    return [*dict.fromkeys(tools), ANSWERED if result.answer else UNANSWERED]


async def _to_its_end(work: Coroutine[Any, Any, None]) -> bool:
    """Wait for `work` even if this task is cancelled meanwhile; True if it was, and the cancellation is taken back."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            cancelled = True
            if this := asyncio.current_task():
                this.uncancel()
    task.result()
    return cancelled


def _cancel_this_task() -> None:
    if this := asyncio.current_task():
        this.cancel()
