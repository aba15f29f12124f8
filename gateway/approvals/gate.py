"""The broker's side: a write comes to the gate, and goes out, waits for a person, or is refused.

A call that waits is held while its kernel stays warm. After that it is parked: its cell ends as paused, and runs again
when a person has decided. Whatever was decided is in the database before anybody acts on it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from gateway.settings import Settings
from gateway.types import Grant
from servers.errors import ApprovalDenied, ApprovalRequired, ToolDenied, ToolError
from servers.preview import Preview
from servers.tool import Tool

from .policy import Ask, Recent, caps_of, decide, hold_of
from .rows import ApprovalRows
from .types import Approval, Asking, Refusal, Standing, View
from .view import look, shown, view_of
from .waiting import Waiting

log = structlog.get_logger(__name__)

#: Added to how long the database believes that a call is held, so that nobody else acts on a decision meanwhile.
_HELD_MARGIN_S = 10.0
#: A held call answers this long before its cell's deadline, or a quarter of what is left, so that the cell can end.
_DEADLINE_MARGIN_S = 2.0

Clock = Callable[[], datetime]
#: Hears of every new request.
OnAsked = Callable[[Approval], Awaitable[None]]


def wall_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Question:
    """A request that is to be made, or that waits already (`id`)."""

    reason: str
    view: View | None = None
    id: str = ""


class Gate:
    """Every write of every session passes here."""

    def __init__(
        self,
        rows: ApprovalRows,
        settings: Settings,
        *,
        clock: Clock = wall_clock,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._rows = rows
        self._all = settings
        self._settings = settings.approvals
        self._clock = clock
        self._redact = redact
        #: Calls that one batch may have.
        self.batch_calls = self._settings.batch_calls
        #: What is held for a cell, by session and cell.
        self._held: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self.waiting = Waiting(rows.over, self._settings.look_s)
        #: Told of new requests, in this gateway.
        self.on_asked: list[OnAsked] = []
        self._closed = False

    async def admit(self, asking: Asking) -> Refusal | None:
        """None: the call may go out. Waits for a person where one is asked and the session has time.

        Cancelled while it waits, the request is withdrawn.
        """
        try:
            return await self._admit(asking)
        except asyncio.CancelledError:
            await asyncio.shield(self._forget([asking]))
            raise

    async def unasked(self, grant: Grant, tool: Tool, args: Mapping[str, Any]) -> bool:
        """A new call runs by itself, and no preview is needed to know that."""
        caps = caps_of(self._all, grant)
        amount = _amount(tool, args)
        if tool.effect == "critical" or (caps.amount is not None and amount is None and tool.preview is not None):
            return False
        verdict = decide(grant, tool, caps, recent=await self._rows.recent(grant), amount=amount)
        return not isinstance(verdict, Ask)

    async def _admit(self, asking: Asking) -> Refusal | None:
        try:
            question = await self._question(asking)
            if question is None:
                return None
            id = question.id or await self._ask([(asking, question)], "", batch=False)
        except ToolError as error:
            return Refusal(error, "decided" if asking.replay else "failed")
        return await self._wait(id, [asking]) or await self._answer(asking)

    async def admit_batch(self, askings: Sequence[Asking], title: str) -> Refusal | None:
        """Ask about all of them at once. None: it has been decided, each call by itself (`admit` knows how).

        Raises:
            ToolError: one of them cannot be made; nothing is asked then.
        """
        try:
            return await self._admit_batch(askings, title)
        except asyncio.CancelledError:
            await asyncio.shield(self._forget(askings))
            raise

    async def _admit_batch(self, askings: Sequence[Asking], title: str) -> Refusal | None:
        new: list[tuple[Asking, _Question]] = []
        waits: set[str] = set()
        for asking in askings:
            standing = None if asking.fresh else await self._rows.standing(asking.call)
            if self._is_open(standing, asking):
                waits.add(standing.approval if standing else "")
            elif not self._lets(standing, asking) and asking.state in ("decided", "pending"):
                new.append((asking, await self._prepare(asking, "it is part of a batch")))
        if new:
            waits.add(await self._ask(new, shown(title), batch=True))
        for id in sorted(waits):
            if (refusal := await self._wait(id, list(askings))) is not None:
                return refusal
        return None

    def park(self, session: str, cell: str) -> None:
        """The cell is over: what is held for it is held no more."""
        self.waiting.wake(self._held.get((session, cell), ()))

    async def withdraw(self, session: str, why: str, cell: str | None = None) -> None:
        """Nobody wants what the session, or one cell of it, still asks for."""
        self.waiting.wake(await self._rows.withdraw(why, self._clock(), session=session, cell=cell))

    def close(self) -> None:
        """What is held is parked, and nothing is held any more."""
        self._closed = True
        self.waiting.wake_all()

    async def _question(self, asking: Asking) -> _Question | None:
        """What a person has to be asked; None for nothing. Raises ToolError: the call cannot be made."""
        if asking.state in ("executing", "unknown"):
            return None  # it went out before, and may be half done
        standing = None if asking.fresh else await self._rows.standing(asking.call)
        if self._lets(standing, asking):
            return None
        if standing is not None and self._is_open(standing, asking):
            return _Question("", id=standing.approval)
        caps = caps_of(self._all, asking.grant)
        critical = asking.tool.effect == "critical"
        preview = None
        amount = _amount(asking.tool, asking.args)
        if not critical and caps.amount is not None and amount is None and asking.tool.preview is not None:
            preview = await look(asking, self._settings.preview_s)
            amount = preview.amount or (None if not preview.note else "unknown")
        recent = Recent() if critical else await self._rows.recent(asking.grant)
        verdict = decide(asking.grant, asking.tool, caps, recent=recent, amount=amount)
        return await self._prepare(asking, verdict.reason, preview) if isinstance(verdict, Ask) else None

    def _lets(self, standing: Standing | None, asking: Asking) -> bool:
        """An approval lets out the very call that was shown: these arguments, this tenant, this session, in time."""
        return (
            standing is not None
            and standing.state == "approved"
            and standing.approved is True
            and standing.args_hash == asking.args_hash
            and standing.tenant == asking.grant.tenant
            and standing.principal == asking.grant.principal
            and standing.session == asking.grant.session
            and self._clock() < standing.expires
        )

    def _is_open(self, standing: Standing | None, asking: Asking) -> bool:
        return standing is not None and standing.state == "pending" and self._clock() < standing.expires

    async def _prepare(self, asking: Asking, reason: str, preview: Preview | None = None) -> _Question:
        """Raises ToolError: nobody is asked about this call."""
        if asking.replay:
            raise ToolDenied(
                f"{asking.tool.name}: the session is being restored, and nobody has approved this change, so it is not "
                "made now.",
                hint="Run its cell again, or a new one.",
            )
        now = self._clock()
        other = await self._rows.duplicate(asking, now)
        if other is not None:
            raise ApprovalRequired(
                f"{asking.tool.name}: the same call waits for approval already, from another cell, as {other}.",
                hint="Wait for that decision; do not ask again.",
                data={"approval": other},
            )
        if await self._rows.waiting(asking.grant.session) >= self._settings.pending:
            raise ApprovalRequired(
                f"{asking.tool.name}: {self._settings.pending} requests of this session wait for approval already.",
                hint="Collect writes in one `approvals.batch`.",
            )
        return _Question(reason, view_of(asking, preview or await look(asking, self._settings.preview_s), self._redact))

    async def _ask(self, questions: Sequence[tuple[Asking, _Question]], title: str, *, batch: bool) -> str:
        """The request's id: a new one, or that of whoever was faster."""
        id, now = secrets.token_hex(5), self._clock()
        await self._rows.expire(now)
        first = questions[0][0]
        made = await self._rows.insert(
            id,
            [(asking, question.reason, question.view) for asking, question in questions if question.view is not None],
            title=title,
            batch=batch,
            created=now,
            expires=now + timedelta(seconds=self._settings.expires_s),
            hold_s=self._patience(first) + _HELD_MARGIN_S,
        )
        if not made:
            standing = await self._rows.standing(first.call)
            if standing is None:
                raise ApprovalRequired(f"{first.tool.name}: its approval is being asked for already.")
            return standing.approval
        log.info("a person is asked", approval=id, session=first.grant.session, calls=len(questions))
        if self.on_asked and (approval := await self._rows.get(id)) is not None:
            for hear in self.on_asked:
                await hear(approval)
        return id

    async def _forget(self, askings: Sequence[Asking]) -> None:
        """Nobody waits for these any more. At the end of a gateway somebody will."""
        standings = [await self._rows.standing(asking.call) for asking in askings]
        ids = {each.approval for each in standings if each is not None and each.state == "pending"}
        if ids and not self._closed:
            await self._rows.withdraw("Nobody waits for it any more.", self._clock(), ids=ids)

    def _patience(self, asking: Asking) -> float:
        """Seconds that the call may be held."""
        hold = hold_of(self._settings, asking.grant)
        if asking.ends is None:
            return hold
        left = asking.ends - asyncio.get_running_loop().time()
        return max(0.0, min(hold, left - min(_DEADLINE_MARGIN_S, left / 4)))

    async def _wait(self, id: str, askings: Sequence[Asking]) -> Refusal | None:
        """Hold the calls of a request. None: it is over. A refusal: they are parked."""
        patience = min(self._patience(asking) for asking in askings)
        held = self._held[askings[0].grant.session, askings[0].cell]
        await self._rows.hold(id, patience + _HELD_MARGIN_S)
        held.add(id)
        try:
            over = bool(await self._rows.over([id])) or (
                not self._closed and await self.waiting.wait(id, patience) and bool(await self._rows.over([id]))
            )
        finally:
            held.discard(id)
            if not held:
                self._held.pop((askings[0].grant.session, askings[0].cell), None)
        if over or not await self._rows.park(id):
            await self._rows.tell([id])  # by the cell itself
            return None
        return Refusal(_parked(askings, id), "pending")

    async def _answer(self, asking: Asking) -> Refusal | None:
        """What was decided about one call."""
        standing = await self._rows.standing(asking.call)
        if standing is None or self._lets(standing, asking):
            return None if standing is not None else Refusal(ApprovalRequired("Its request is gone."), "decided")
        if standing.state in ("approved", "denied") and not standing.approved:
            return Refusal(denial(asking.tool.name, standing.decided_by, standing.note, standing.approval), "denied")
        return Refusal(
            ApprovalRequired(
                f"{asking.tool.name}: the request for approval is {standing.state}. {standing.note}".rstrip(),
                hint="Running the cell again asks anew.",
                data={"approval": standing.approval},
            ),
            "decided",
        )


def _amount(tool: Tool, args: Mapping[str, Any]) -> str | None:
    return str(args.get(tool.amount) or "0") if tool.amount else None


def denial(tool: str, who: str, note: str, approval: str) -> ApprovalDenied:
    """What the call raises that a person refused."""
    said = f" {who or 'A person'} said: {note}" if note else ""
    return ApprovalDenied(
        f"{tool}: a person has refused this call.{said}",
        tool="",
        hint="Do not try it again in another way; tell whoever asked for it.",
        data={"approval": approval},
    )


def _parked(askings: Sequence[Asking], id: str) -> ApprovalRequired:
    name = askings[0].tool.name if len(askings) == 1 else f"a batch of {len(askings)} calls"
    return ApprovalRequired(
        f"{name}: a person has to approve this; the request is {id}.",
        hint="The cell is paused. It runs again by itself when the person has decided.",
        data={"approval": id, "parked": True},
    )
