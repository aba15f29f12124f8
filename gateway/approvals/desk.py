"""The person's side: what waits, and the decision. Reached over HTTP alone, with a token that no sandbox has."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog

from gateway.broker.errors import to_body
from gateway.broker.scrub import Scrubber
from gateway.settings import ApprovalSettings

from .gate import Clock, denial, wall_clock
from .rows import ApprovalRows, error_text
from .types import Approval, ApprovalState
from .view import shown

log = structlog.get_logger(__name__)

_NOTE = 1000


class ApprovalError(Exception):
    """A decision that cannot be taken; nothing has happened. The message is for people."""

    status = 409
    code = "approval_refused"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ApprovalNotFound(ApprovalError):
    status, code = 404, "approval_not_found"


class NotYours(ApprovalError):
    """Somebody else has to decide."""

    status, code = 403, "not_yours_to_decide"


class TooLate(ApprovalError):
    """It has been decided, withdrawn, or is past its time."""

    status, code = 409, "already_decided"


class BadDecision(ApprovalError):
    status, code = 422, "bad_decision"


@dataclass(frozen=True)
class Person:
    """Who looks and decides, as the token says. `tenants`: None for all."""

    name: str
    tenants: frozenset[str] | None
    #: May decide, not only look.
    decides: bool
    #: A tenant's own token: it reaches no session of role operator.
    narrow: bool = False

    def reaches(self, approval: Approval) -> bool:
        return (self.tenants is None or approval.tenant in self.tenants) and not (
            self.narrow and approval.role == "operator"
        )


class Desk:
    """Lists, shows, decides."""

    def __init__(
        self,
        rows: ApprovalRows,
        settings: ApprovalSettings,
        *,
        decided: Callable[[str], None],
        clock: Clock = wall_clock,
        scrubber: Scrubber | None = None,
    ) -> None:
        """`decided`: told of each request that was decided here."""
        self._rows = rows
        self._settings = settings
        self._decided = decided
        self._clock = clock
        self._scrubber = scrubber or Scrubber()

    async def find(
        self,
        person: Person,
        *,
        tenant: str | None = None,
        session: str | None = None,
        state: ApprovalState | None = None,
        limit: int = 100,
    ) -> tuple[Approval, ...]:
        """Requests that the person reaches, the newest first."""
        await self._expire()
        tenants = person.tenants if tenant is None else frozenset({tenant})
        if tenant is not None and person.tenants is not None and tenant not in person.tenants:
            return ()
        found = await self._rows.find(tenants=tenants, session=session, state=state, limit=limit)
        return tuple(each for each in found if person.reaches(each))

    async def get(self, person: Person, id: str) -> Approval:
        """Raises ApprovalNotFound, also for one that the person does not reach."""
        await self._expire()
        found = await self._rows.get(id)
        if found is None or not person.reaches(found):
            raise ApprovalNotFound(f"There is no request {shown(id, 64)!r}.", "`omniops approvals list` shows them.")
        return found

    async def approve(
        self, person: Person, id: str, *, calls: Collection[int] | None = None, note: str = ""
    ) -> Approval:
        """Let the calls at these positions go out, and refuse the others; None: all.

        Raises:
            ApprovalError: nothing has happened.
        """
        found = await self._open(person, id)
        positions = {call.position for call in found.calls}
        chosen = positions if calls is None else set(calls)
        if not chosen:
            raise BadDecision("No call is named.", "Deny the request, or name calls by their positions.")
        if not chosen <= positions:
            wrong = ", ".join(map(str, sorted(chosen - positions)))
            raise BadDecision(f"The request has no call {wrong}.", f"It has {len(positions)}, numbered from 1.")
        return await self._decide(person, found, chosen, note)

    async def deny(self, person: Person, id: str, *, note: str = "") -> Approval:
        """Refuse all calls; `note` is told to whoever made them. Raises ApprovalError: nothing has happened."""
        return await self._decide(person, await self._open(person, id), set(), note)

    async def _open(self, person: Person, id: str) -> Approval:
        found = await self.get(person, id)
        if not person.decides:
            raise NotYours("This token decides about no call.", "See `approvals.approvers` in the configuration.")
        if found.principal == person.name and not self._settings.own_sessions:
            raise NotYours(
                f"{person.name} started the session that asks, and nobody decides about their own.",
                "Have somebody else decide: each person has a token of their own in `approvals.approvers`. Where one "
                "person does everything, set `approvals.own_sessions`.",
            )
        self._require_open(found)
        return found

    def _require_open(self, found: Approval) -> None:
        """Raises TooLate."""
        if found.state in ("approved", "denied"):
            when = f"{found.decided:%Y-%m-%d %H:%M} UTC" if found.decided else "before"
            raise TooLate(f"{found.decided_by} has {found.state} this on {when}; nothing more happens.")
        if found.state != "pending":
            raise TooLate(f"The request is {found.state}, so nothing happens. {found.note}".rstrip())

    async def _decide(self, person: Person, found: Approval, chosen: set[int], note: str) -> Approval:
        note = shown(note, _NOTE)
        errors = {}
        for call in found.calls:
            if call.position not in chosen:
                tool = call.view.tool
                error = denial(tool.rpartition(".")[2], person.name, note, found.id)
                errors[call.call] = error_text(to_body(error, tool, self._scrubber))
        done = await self._rows.decide(found.id, chosen, who=person.name, note=note, now=self._clock(), errors=errors)
        after = await self.get(person, found.id)
        if not done:
            self._require_open(after)
            raise TooLate("The request has expired, so nothing happens.")
        log.info("a person has decided", approval=found.id, who=person.name, state=after.state, calls=len(chosen))
        self._decided(found.id)
        return after

    async def _expire(self) -> None:
        for id in await self._rows.expire(self._clock()):
            self._decided(id)
