"""The ReAct loop: ask the model, act, show it what came back, until it answers or a limit ends the turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from gateway.agent.arguments import assistant_message, call_ids, tool_message, with_ids
from gateway.agent.model_error import ModelError
from gateway.agent.reply import Reply
from gateway.agent.types import Acted, Action, Actor, EndReason, Message, Step, ToolCall, TurnLimits, TurnResult
from gateway.tokens import Counted, Ledger, Prices, RequestTokens
from gateway.tracing import span
from gateway.types import Event, EventSink

if TYPE_CHECKING:
    from gateway.agent.model import ModelClient

log = structlog.get_logger(__name__)

#: A request whose reply could not have this many tokens within the turn's limits is not sent.
_LEAST_OUTPUT = 64


async def run_turn(
    *,
    session: str,
    message: str,
    history: Sequence[Message],
    model: ModelClient,
    actor: Actor,
    limits: TurnLimits,
    sink: EventSink,
    fallback: Actor | None = None,
    ledger: Ledger | None = None,
) -> TurnResult:
    """Answer one message of a customer.

    `history` holds the earlier turns' messages without a system message; `ledger` is the conversation's (None: a new
    one). `fallback` takes over when `actor` cannot act any more. The sink must not raise.

    Always returns a result: failures of the model, of cells and of tools are reasons, not exceptions. Cancelling the
    task that runs it stops what is under way and *returns* a result of reason "cancelled".
    """
    turn = _Turn(session, model, actor, fallback, limits, sink, ledger or Ledger(), [*history])
    return await turn.run(message)


@dataclass(frozen=True)
class _End:
    reason: EndReason
    #: The answer, or one sentence on why there is none.
    text: str


@dataclass
class _Turn:
    session: str
    model: ModelClient
    actor: Actor
    fallback: Actor | None
    limits: TurnLimits
    sink: EventSink
    ledger: Ledger
    history: list[Message]
    messages: list[Message] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    #: Unusable replies in a row.
    bad: int = 0
    fell_back: str = ""
    #: A call waits for a person: the model may only say so.
    paused: bool = False

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.first = len(self.ledger.requests)
        self.prices = Prices.from_settings(self.model.settings)

    async def run(self, message: str) -> TurnResult:
        self.messages.append({"role": "user", "content": message})
        end = await self._bounded()
        answered = end.reason in ("answered", "paused")
        self._answer_open_calls()
        # the next turn's model has to know, and some endpoints insist on alternating roles
        said = end.text if answered else f"(No answer was given: {end.reason}.)"
        self.messages.append({"role": "assistant", "content": said})
        tokens = self.ledger.since(self.first)
        result = TurnResult(
            session=self.session,
            reason=end.reason,
            answer=end.text if answered else "",
            message="" if answered else end.text,
            messages=tuple(self.messages),
            steps=tuple(self.steps),
            tokens=tokens,
            mode=self.actor.mode,
            fallback=self.fell_back,
            seconds=time.monotonic() - self.started,
        )
        log.info("turn ended", session=self.session, reason=end.reason, steps=len(self.steps), mode=self.actor.mode)
        if answered:
            await self.sink(Event("answer", {"text": end.text}))
        usage = tokens.as_dict(self.prices)
        await self.sink(Event("end", {"reason": end.reason, "message": result.message, "usage": usage}))
        return result

    async def _bounded(self) -> _End:
        """The steps, within the turn's time; a cancellation becomes an end like any other."""
        end: _End | None = None
        cancelled = False
        scope = asyncio.timeout(self.limits.max_seconds)
        try:
            async with scope:
                end = await self._steps()
        except TimeoutError:
            if not scope.expired():
                raise
        except asyncio.CancelledError:
            cancelled = True
        if end is not None and end.reason != "cancelled":
            return end
        if scope.expired() and not cancelled:
            return _End("max_seconds", f"The turn reached its limit of {self.limits.max_seconds:g} seconds.")
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        return _End("cancelled", "The turn was cancelled.")

    async def _steps(self) -> _End:
        end = await self._acting()
        if not self.paused or end.reason == "cancelled":
            return end
        # a person has to decide, so there is an answer, whatever kept the model from one
        return _End("paused", end.text if end.reason == "answered" else self.limits.paused_answer)

    async def _acting(self) -> _End:
        for number in range(1, self.limits.max_steps + 1):
            request = [{"role": "system", "content": self.actor.system}, *self.history, *self.messages]
            counted = await self.ledger.count(request, self.actor.tools)
            room = self._room(counted.tokens)
            if isinstance(room, _End):
                return room
            started = time.monotonic()
            try:
                reply = await self._ask(number, request, counted, room)
            except ModelError as error:
                await self._error(number, str(error))
                return _End("model_error", str(error))
            end = await self._take(number, reply, time.monotonic() - started)
            if end is not None:
                return end
        return _End("max_steps", f"The turn reached its limit of {self.limits.max_steps} steps.")

    def _room(self, request: RequestTokens) -> int | _End:
        """Tokens that the reply may have; or the limit that this request would break."""
        so_far = self.ledger.since(self.first)
        tokens = self.limits.max_tokens - so_far.spent - request.input
        if tokens < _LEAST_OUTPUT:
            return _End("max_tokens", f"The turn reached its limit of {self.limits.max_tokens:,} tokens.")
        dollars = (
            self.limits.max_dollars - so_far.dollars_at_most(self.prices) - request.dollars(self.prices, caching=False)
        )
        affordable = dollars * 1_000_000 / self.prices.output if self.prices.output else math.inf
        if dollars < 0 or affordable < _LEAST_OUTPUT:
            return _End("max_dollars", f"The turn reached its limit of ${self.limits.max_dollars:g}.")
        return int(min(self.model.settings.max_output_tokens, tokens, affordable))

    async def _ask(self, number: int, request: Sequence[Message], counted: Counted, room: int) -> Reply:
        """One request, entered in the ledger whatever comes of it. Raises ModelError."""

        async def on_text(attempt: int, text: str) -> None:
            await self.sink(Event("text", {"step": number, "attempt": attempt, "text": text}))

        reply: Reply | None = None
        try:
            with span(f"chat {self.model.settings.name}", kind="client") as made:
                made.set(gen_ai__operation__name="chat", gen_ai__request__model=self.model.settings.name)
                reply = await self.model.complete(
                    request,
                    self.actor.tools,
                    max_output=room,
                    patience_s=self.limits.max_seconds - (time.monotonic() - self.started),
                    on_text=on_text,
                )
                if reply.usage is not None:
                    used = reply.usage
                    made.set(gen_ai__usage__input_tokens=used.input, gen_ai__usage__output_tokens=used.output)
            return reply
        finally:
            said = None if reply is None else assistant_message(reply.text, reply.calls)
            await self.ledger.record(counted, said, None if reply is None else reply.usage)

    async def _take(self, number: int, reply: Reply, model_s: float) -> _End | None:
        """What follows from a reply: an end, or None to go on."""
        if reply.finish == "content_filter":
            self._step(number, Acted(()), "content filter", model_s, 0.0)
            return _End("model_error", "The model's provider withheld its reply (content filter).")
        cut = reply.finish == "length"
        calls = with_ids(reply.calls, call_ids([*self.history, *self.messages]))
        if self.paused and (calls or cut or not reply.text.strip()):
            return _End("paused", reply.text.strip() if not cut and reply.text.strip() else self.limits.paused_answer)
        if not calls:
            if reply.text.strip() and not cut:
                self._step(number, Acted(()), "", model_s, 0.0)
                return _End("answered", reply.text.strip())
            fault = "Your reply was cut off: it was too long. Be shorter." if cut else "Your reply was empty."
            self.messages.append({"role": "assistant", "content": reply.text[:2000].strip() or "(no reply)"})
            self.messages.append({"role": "user", "content": f"[automatic notice] {fault} Call a function or answer."})
            return await self._faulty(number, fault, model_s)
        return await self._act(number, reply.text, calls, cut, model_s)

    async def _act(self, number: int, text: str, calls: tuple[ToolCall, ...], cut: bool, model_s: float) -> _End | None:
        checked = {call.id: self.actor.check(call) for call in calls}
        actions = [action for action in checked.values() if isinstance(action, Action)]
        hint = " The reply was cut off: it was too long." if cut else ""
        faults = {key: f"{fault}{hint}" for key, fault in checked.items() if isinstance(fault, str)}
        self.messages.append(assistant_message(text, calls))
        if not actions:
            self.messages += [tool_message(key, fault) for key, fault in faults.items()]
            return await self._faulty(number, next(iter(faults.values())), model_s)
        self.bad = 0
        started = time.monotonic()
        acted = await self.actor.act(number, actions, self.sink)
        answers = {message["tool_call_id"]: message for message in acted.messages}
        answers |= {key: tool_message(key, fault) for key, fault in faults.items()}
        self.messages += [answers[call.id] for call in calls]
        self._step(number, acted, "; ".join(faults.values()), model_s, time.monotonic() - started)
        if acted.cancelled:
            return _End("cancelled", "")
        self.paused = acted.paused
        if acted.answer and not faults:
            await self.sink(Event("text", {"step": number, "attempt": 1, "text": acted.answer}))
            return _End("answered", acted.answer)
        return await self._fall_back(number, acted.unavailable) if acted.unavailable else None

    def _answer_open_calls(self) -> None:
        """The API takes no history in which a call has no answer; a cancellation may have come before one."""
        answered = {message["tool_call_id"] for message in self.messages if message["role"] == "tool"}
        unanswered = [key for key in call_ids(self.messages) if key not in answered]
        self.messages += [tool_message(key, "Not run: the turn was ended.") for key in unanswered]

    async def _fall_back(self, number: int, reason: str) -> _End | None:
        if self.fallback is None or self.fallback is self.actor:
            await self._error(number, reason)
            return _End("sandbox_down", f"Cells cannot run: {reason}")
        log.warning("turn falls back", session=self.session, to=self.fallback.mode, reason=reason)
        self.actor, self.fell_back = self.fallback, reason
        await self.sink(Event("fallback", {"step": number, "mode": self.actor.mode, "reason": reason}))
        return None

    async def _faulty(self, number: int, fault: str, model_s: float) -> _End | None:
        self._step(number, Acted(()), fault, model_s, 0.0)
        await self._error(number, fault)
        self.bad += 1
        if self.bad < self.limits.max_bad_replies:
            return None
        return _End("bad_replies", f"The model gave {self.bad} unusable replies in a row; the last: {fault}")

    async def _error(self, number: int, text: str) -> None:
        await self.sink(Event("error", {"step": number, "message": text}))

    def _step(self, number: int, acted: Acted, fault: str, model_s: float, act_s: float) -> None:
        self.steps.append(
            Step(number, self.actor.mode, acted.cells, acted.runs, acted.calls, fault, model_s=model_s, act_s=act_s)
        )
