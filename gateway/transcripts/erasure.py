"""Sessions erased: on demand, and when they are older than they are to be kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from gateway.db import Database
from gateway.identity.audit import Audit
from gateway.saving import PASSING
from gateway.session_errors import SessionError
from gateway.sessions import Sessions
from gateway.transcripts.erase import erase
from gateway.transcripts.errors import TranscriptError
from gateway.transcripts.index import Index
from gateway.transcripts.mirror import Mirror
from gateway.transcripts.notebook import Header
from gateway.transcripts.record import Head
from gateway.transcripts.store import TranscriptStore

log = structlog.get_logger(__name__)

#: Time between two looks for sessions that are too old.
_LOOK_S = 3600.0
_AT_ONCE = 100

#: What else the database has of a session's contents. What calls did, when and at whose word stays.
_BLANK = (
    "UPDATE session SET title = '' WHERE id = %s",
    "UPDATE cell SET code = '', stopped = true WHERE session = %s",
    "UPDATE turn SET messages = '[]' WHERE session = %s",
    "UPDATE call SET args = '{}', result = NULL, result_table = NULL, error = NULL WHERE session = %s",
    "UPDATE chat_message SET text = '', customer = NULL FROM session"
    " WHERE session.id = %s AND chat_message.tenant = session.tenant AND conversation = session.id",
    "UPDATE transcript SET erased = now() WHERE session = %s",
)
_OLD = """
    SELECT transcript.session, transcript.tenant FROM transcript JOIN session ON session.id = transcript.session
    WHERE erased IS NULL AND session.state <> 'live' AND changed < now() - make_interval(days => %s)
    ORDER BY changed LIMIT %s
"""


class StillOpen(Exception):
    """A session that has not ended cannot be erased. The message says what to do."""


class Eraser:
    """Erases sessions that have ended."""

    def __init__(
        self, database: Database, sessions: Sessions, store: TranscriptStore, index: Index, mirror: Mirror | None = None
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._store = store
        self._index = index
        self._mirror = mirror

    async def erase(self, session: str, reason: str, by: str, which: Callable[[bytes], bool] | None = None) -> int:
        """Remove what a session said and made, from its files and from the database; the number of lines emptied.

        With `which` only contents of lines of which it says so, from the record alone.

        Raises:
            StillOpen
            SessionNotFound
            TranscriptError, RecordDamaged: nothing was removed.
        """
        info = await self._sessions.get(session)
        if info.state != "ended" or self._sessions.transcript(session) is not None:
            raise StillOpen(f"Session {session} has not ended. End it first: DELETE /v1/sessions/{session}.")
        header = Header(info.id, info.tenant, info.role, info.created, "", info.state)
        await self._sessions.fetch(info.id, info.tenant)
        known: Head | None = await self._index.head(session)
        transcript = await asyncio.to_thread(self._store.open, header, known)
        if which is None:  # whatever comes of it, somebody asked for it
            await Audit(self._database).note(by, info.tenant, "transcript.erase", session)
        removed = await asyncio.to_thread(erase, transcript, reason, by, which)
        if which is not None:
            if not removed:
                return 0
            await Audit(self._database).note(by, info.tenant, "transcript.erase", f"{session}, {removed} lines")
        if self._store.spooling.room is not None:
            self._store.spooling.room.forget(info.tenant)
        if self._mirror is not None:
            await self._mirror.replace(transcript.record)
        await self._index.put(transcript.facts)
        if which is not None:
            return removed
        async with self._database.connection() as connection, connection.transaction():
            for statement in _BLANK:
                await connection.execute(statement.encode(), (session,))
        log.info("a session was erased", session=session, tenant=info.tenant, by=by)
        return removed

    async def retain(self, days: int) -> None:
        """For ever: erase sessions that have not been used for so many days. 0: none."""
        while days > 0:
            try:
                await self.look(days)
            except PASSING as error:
                log.warning("old sessions cannot be looked for at present", error=str(error))
            await asyncio.sleep(_LOOK_S)

    async def follow(self, me: str) -> None:
        """For ever: remove copies here of what other gateways have erased. `me`: this gateway."""
        while self._mirror is not None:
            try:
                await self._mirror.drop_erased(self._store.root, me)
            except PASSING as error:
                log.warning("it cannot be looked for at present what was erased", error=str(error))
            await asyncio.sleep(_LOOK_S)

    async def look(self, days: int) -> list[str]:
        """One look for them; those that were erased."""
        done: list[str] = []
        for row in await self._database.fetch(_OLD, (days, _AT_ONCE)):
            session = row["session"]
            try:
                await self._sessions.end(session)
                await self.erase(session, f"kept for {days} days", "retention")
                done.append(session)
            except (SessionError, StillOpen, TranscriptError, OSError) as error:
                log.error("an old session could not be erased", session=session, error=str(error))
        return done
