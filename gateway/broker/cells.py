"""What the broker remembers of a session and of its running cell."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from gateway.types import CallRecord
from servers.context import SessionPins
from servers.errors import ToolError, ToolInputError

from .errors import ErrorBody
from .journal import CallKey
from .policy import CellBudget, SessionBudget


class Cell:
    """One run of one cell: counts occurrences of equal calls and keeps the record of every call."""

    def __init__(
        self, id: str, budget: CellBudget, *, replay: bool = False, ends: float | None = None, approved: bool = False
    ) -> None:
        """`replay`: the cell runs again for its variables only; writes that are new to the journal are refused.

        `ends`: when it has to be over, by the event loop's clock. `approved`: a person makes its calls.
        """
        self.id = id
        #: Its calls run in it, whoever brings them: by it logs know what they are about.
        self.context = contextvars.copy_context()
        self.replay = replay
        self.ends = ends
        self.approved = approved
        #: With which the session was had when the cell began; None: whoever has it.
        self.fence: int | None = None
        #: Set as soon as a call of it is parked: it makes no other.
        self.paused: ToolError | None = None
        self.budget = budget
        self._seen: Counter[tuple[str, str]] = Counter()
        self._unsettled: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._records: dict[CallKey | int, CallRecord] = {}
        #: Calls by the ids that the kernel gave them, and the other way round.
        self._made: dict[str, CallKey] = {}
        self._requests: defaultdict[CallKey, list[str]] = defaultdict(list)
        #: What the journal had of the cell before this run's first call; asked for by that.
        self.known: asyncio.Future[frozenset[CallKey]] | None = None

    def key(self, session: str, tool: str, args_hash: str, request: str = "") -> CallKey:
        """The call that the kernel knows as `request`, or else the next one of this tool with these arguments.

        A call whose outcome is unknown is not over: the same call again is that one, taken up where it stopped.

        Raises:
            ToolInputError: `request` was another call.
        """
        call = (tool, args_hash)
        if (made := self._made.get(request)) is not None:
            if (made.tool, made.args_hash) != call:
                raise ToolInputError("This call's id was another call's.", tool=tool)
            if made.occurrence in self._unsettled[call]:
                self._unsettled[call].remove(made.occurrence)
            return made
        if self._unsettled[call]:
            key = CallKey(session, self.id, tool, args_hash, self._unsettled[call].pop(0))
            # who made it before has had its answer, or comes again and is then as good as new
            for earlier in self._requests.pop(key, ()):
                self._made.pop(earlier, None)
        else:
            self._seen[call] += 1
            key = CallKey(session, self.id, tool, args_hash, self._seen[call])
        self._remember(request, key)
        return key

    def take_up(self, request: str, record: CallRecord, key: CallKey) -> None:
        """A call that this run made before, by the journal. One that was under way comes again under its own id."""
        call = (key.tool, key.args_hash)
        self._seen[call] = max(self._seen[call], key.occurrence)
        self._remember(request, key)
        self._records[key] = record
        if record.state == "unknown" and key.occurrence not in self._unsettled[call]:
            self._unsettled[call].append(key.occurrence)

    def note(self, key: CallKey, record: CallRecord) -> None:
        """The call's record so far; replaces an earlier one."""
        self._records[key] = record
        if record.state == "unknown":
            self._unsettled[key.tool, key.args_hash].append(key.occurrence)

    def record(self, key: CallKey) -> CallRecord | None:
        return self._records.get(key)

    def _remember(self, request: str, key: CallKey) -> None:
        if request:
            self._made[request] = key
            self._requests[key].append(request)

    def note_refused(self, session: str, tool: str, args: dict[str, Any], error: ErrorBody) -> None:
        """A call that never came to the journal."""
        self._records[len(self._records)] = CallRecord(
            session=session,
            cell=self.id,
            tool=tool,
            args=args,
            occurrence=0,
            effect="read",
            state="failed",
            replayed=False,
            error=error,
        )

    @property
    def keys(self) -> tuple[CallKey, ...]:
        return tuple(key for key in self._records if isinstance(key, CallKey))

    @property
    def records(self) -> tuple[CallRecord, ...]:
        """In order of arrival."""
        return tuple(self._records.values())


@dataclass
class Session:
    """A session that has run a cell here."""

    budget: SessionBudget
    #: One per call under way.
    slots: asyncio.Semaphore
    #: Results under way that stream.
    streams: int = 0
    cell: Cell | None = None
    #: Forgotten as soon as its cell has ended.
    over: bool = False
    pins: SessionPins | None = None
    pinning: asyncio.Lock = field(default_factory=asyncio.Lock)
