"""The broker as the rest of the gateway sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.approvals.gate import Gate
from gateway.settings import BrokerSettings
from gateway.tool_catalogue import Catalogue
from gateway.tool_search import ToolSearch
from gateway.tool_vectors import ToolVectors
from gateway.types import BoundaryObserver, CallRecord, Grant, Learner
from gateway.work.runs import WorkRuns

from .calls import Calls
from .contexts import ContextFactory
from .errors import from_body
from .held import Held
from .journal import Journal
from .looks import Looks
from .server import Door


class Broker:
    """Runs tool calls with the credentials that kernels do not have."""

    def __init__(
        self,
        catalogue: Catalogue,
        journal: Journal,
        contexts: ContextFactory,
        settings: BrokerSettings,
        observers: Sequence[BoundaryObserver] = (),
        learn: Learner | None = None,
        gate: Gate | None = None,
        vectors: ToolVectors | None = None,
        held: Held | None = None,
        work: WorkRuns | None = None,
    ) -> None:
        """`gate`: who is asked about writes; None: nobody, so that what is critical is refused.

        `vectors`: what tools mean, by which they are found too. `held`: the sessions that this gateway has; None: all.
        `work`: where runs of long work are entered.
        """
        self._settings = settings
        self._gate = gate
        self._calls = Calls(catalogue, journal, contexts, settings, observers, learn, gate, held, work)
        self.search = ToolSearch(catalogue, vectors)
        self._doors: dict[str, Door] = {}

    async def arm(self, path: Path, grant: Grant) -> None:
        """Listen at `path` (in the kernel's folder) for the session's calls; an earlier kernel's socket is closed.

        Raises:
            OSError: the folder cannot hold a socket.
        """
        await self._shut(grant.session)
        looks = Looks(grant, self.search, self._settings)
        door = Door(path, grant, self._calls, looks, self._settings)
        await door.open()
        self._doors[grant.session] = door

    async def disarm(self, session: str, *, for_good: bool = True) -> None:
        """The session has no kernel any more. Its calls under way go on and are journaled.

        Not `for_good`, its kernel waits for the gateway that comes next.
        """
        await self._shut(session, for_good=for_good)
        self._calls.forget(session)

    async def begin_cell(
        self, session: str, cell: str, *, replay: bool = False, resume: bool = False, deadline_s: float | None = None
    ) -> None:
        """Calls of the session are allowed from now on, and journaled under `cell`. The session's row must exist.

        With `replay` (a session is restored) the cell gets its earlier calls' outcomes, and may make no new write.
        With `resume` the cell goes on that runs in an adopted kernel: its calls so far are known from the journal.
        `deadline_s`: what the cell may still take; a call waits no longer for a person.
        """
        await self._calls.begin(session, cell, replay=replay, resume=resume, deadline_s=deadline_s)

    async def end_cell(self, session: str) -> tuple[CallRecord, ...]:
        """Calls are refused from now on. The calls of this run of the cell, in order, with those that were refused."""
        return await self._calls.end(session)

    def interrupt(self, session: str) -> None:
        """The session's cell is being interrupted: its reads under way are given up, its writes go on."""
        self._calls.interrupt(session)

    async def withdraw(self, session: str, why: str, cell: str | None = None) -> None:
        """Nobody wants what the session, or one cell of it, still asks a person for."""
        if self._gate is not None:
            await self._gate.withdraw(session, why, cell)

    async def call(self, grant: Grant, tool: str, args: dict[str, object]) -> object:
        """A call without a kernel: the direct path. Same checks, same journal.

        Raises:
            ToolError: as a kernel would get it.
        """
        outcome = await self._calls.call(grant, tool, args)
        if outcome.error is not None:
            raise from_body(outcome.error)
        return outcome.value.plain()

    async def by_person(self, grant: Grant, tool: str, args: dict[str, object], cell: str) -> object:
        """A call that a person makes themselves, beside what the session runs; journaled under the pseudo-cell `cell`.

        Raises:
            ToolError
        """
        outcome = await self._calls.by_person(grant, tool, args, cell)
        if outcome.error is not None:
            raise from_body(outcome.error)
        return outcome.value.plain()

    async def close(self) -> None:
        """Close every socket, wait a little for writes, stop the rest."""
        for session in list(self._doors):
            await self._shut(session)
        await self.search.close()
        await self._calls.close()

    async def _shut(self, session: str, *, for_good: bool = True) -> None:
        door = self._doors.pop(session, None)
        if door is not None:
            await door.close(for_good=for_good)
