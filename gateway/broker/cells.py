"""What the broker remembers of a session and of its running cell."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from gateway.types import CallRecord
from servers.context import SessionPins

from .errors import ErrorBody
from .journal import CallKey
from .policy import CellBudget, SessionBudget


class Cell:
    """One run of one cell: counts occurrences of equal calls and keeps the record of every call."""

    def __init__(self, id: str, budget: CellBudget, *, replay: bool = False) -> None:
        """`replay`: the cell runs again for its variables only; writes that are new to the journal are refused."""
        self.id = id
        self.replay = replay
        self.budget = budget
        self._seen: Counter[tuple[str, str]] = Counter()
        self._unsettled: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._records: dict[CallKey | int, CallRecord] = {}

    def key(self, session: str, tool: str, args_hash: str) -> CallKey:
        """The next call of this tool with these arguments.

        A call whose outcome is unknown is not over: the same call again is that one, taken up where it stopped.
        """
        call = (tool, args_hash)
        if self._unsettled[call]:
            occurrence = self._unsettled[call].pop(0)
        else:
            self._seen[call] += 1
            occurrence = self._seen[call]
        return CallKey(session, self.id, tool, args_hash, occurrence)

    def note(self, key: CallKey, record: CallRecord) -> None:
        """The call's record so far; replaces an earlier one."""
        self._records[key] = record
        if record.state == "unknown":
            self._unsettled[key.tool, key.args_hash].append(key.occurrence)

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
    cell: Cell | None = None
    #: Forgotten as soon as its cell has ended.
    over: bool = False
    pins: SessionPins | None = None
    pinning: asyncio.Lock = field(default_factory=asyncio.Lock)
