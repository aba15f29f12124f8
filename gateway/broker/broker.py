"""The broker as the rest of the gateway sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.settings import BrokerSettings
from gateway.types import BoundaryObserver, CallRecord, Grant
from servers.registry import Registry

from .calls import Calls
from .contexts import ContextFactory
from .errors import from_body
from .journal import Journal
from .server import Door


class Broker:
    """Runs tool calls with the credentials that kernels do not have."""

    def __init__(
        self,
        registry: Registry,
        journal: Journal,
        contexts: ContextFactory,
        settings: BrokerSettings,
        observers: Sequence[BoundaryObserver] = (),
    ) -> None:
        self._settings = settings
        self._calls = Calls(registry, journal, contexts, settings, observers)
        self._doors: dict[str, Door] = {}

    async def arm(self, path: Path, grant: Grant) -> None:
        """Listen at `path` (in the kernel's folder) for the session's calls; an earlier kernel's socket is closed.

        Raises:
            OSError: the folder cannot hold a socket.
        """
        await self._shut(grant.session)
        door = Door(path, grant, self._calls, self._settings)
        await door.open()
        self._doors[grant.session] = door

    async def disarm(self, session: str) -> None:
        """The session has no kernel any more. Its calls under way go on and are journaled."""
        await self._shut(session)
        self._calls.forget(session)

    async def begin_cell(self, session: str, cell: str, *, replay: bool = False) -> None:
        """Calls of the session are allowed from now on, and journaled under `cell`. The session's row must exist.

        With `replay` (a session is restored) the cell gets its earlier calls' outcomes, and may make no new write.
        """
        await self._calls.begin(session, cell, replay=replay)

    async def end_cell(self, session: str) -> tuple[CallRecord, ...]:
        """Calls are refused from now on. The calls of this run of the cell, in order, with those that were refused."""
        return await self._calls.end(session)

    async def call(self, grant: Grant, tool: str, args: dict[str, object]) -> object:
        """A call without a kernel: the direct path. Same checks, same journal.

        Raises:
            ToolError: as a kernel would get it.
        """
        outcome = await self._calls.call(grant, tool, args)
        if outcome.error is not None:
            raise from_body(outcome.error)
        return outcome.record.result

    async def close(self) -> None:
        """Close every socket, wait a little for writes, stop the rest."""
        for session in list(self._doors):
            await self._shut(session)
        await self._calls.close()

    async def _shut(self, session: str) -> None:
        door = self._doors.pop(session, None)
        if door is not None:
            await door.close()
