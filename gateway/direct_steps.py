"""Tool calls without a kernel: those of one step under a pseudo-cell, in the transcript at its end."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.broker import Broker
from gateway.sessions import Sessions
from gateway.transcripts.notebook import DirectStep
from gateway.types import CallRecord, Grant
from servers.errors import ToolError

#: Tool and arguments.
Call = tuple[str, dict[str, Any]]


class DirectSteps:
    """The broker for direct calls: a step waits for the session's running cell."""

    def __init__(self, sessions: Sessions, broker: Broker) -> None:
        self._sessions = sessions
        self._broker = broker
        self._started: dict[str, tuple[str, datetime]] = {}

    async def begin_cell(self, session: str, cell: str) -> None:
        await self._sessions.begin_step(session, cell)
        self._started[session] = (cell, datetime.now(UTC))

    async def end_cell(self, session: str) -> tuple[CallRecord, ...]:
        cell, started = self._started.pop(session, (uuid.uuid4().hex, datetime.now(UTC)))
        calls = await self._sessions.end_step(session)
        await self._sessions.record(session, DirectStep(cell, calls, started, datetime.now(UTC)))
        return calls

    async def call(self, grant: Grant, tool: str, args: dict[str, Any]) -> object:
        return await self._broker.call(grant, tool, args)

    async def again(
        self, grant: Grant, cell: str, calls: Sequence[tuple[str, dict[str, Any]]]
    ) -> tuple[CallRecord, ...]:
        """Make a step's calls again: what the journal has settled is answered from it. Raises SessionError."""
        await self.begin_cell(grant.session, cell)
        try:
            for tool, args in calls:
                with contextlib.suppress(ToolError):  # it is in the record
                    await self.call(grant, tool, args)
        finally:
            records = await self.end_cell(grant.session)
        return records
