"""Which sessions there are: those that this gateway has in hand, and those that only the database knows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.live_session import LiveSession
from gateway.session_errors import CellNotFound, SessionEnded, SessionNotFound
from gateway.session_rows import CellRow, SessionInfo, SessionRows
from gateway.transcripts.notebook import Header, Node
from gateway.transcripts.record import Head
from gateway.transcripts.store import NAME, TranscriptStore
from gateway.types import Role

_RESTARTED = "the gateway was restarted"
_MOVED = "the gateway that had it is gone"


@dataclass(frozen=True)
class Counts:
    """Sessions by whether they have a kernel, and their cells by state."""

    sessions: dict[str, int]
    cells: dict[str, int]


class SessionBook:
    """Finds sessions and their cells, and opens those that are to be worked with."""

    def __init__(
        self,
        rows: SessionRows,
        transcripts: TranscriptStore,
        head: Callable[[str], Awaitable[Head | None]],
        profile_for: Callable[[Role], str],
        bring_up: Callable[[Path], Awaitable[None]] | None = None,
    ) -> None:
        """`head`: the line that a session's record must have; `bring_up`: has the record of another gateway here."""
        self._rows = rows
        self._head = head
        self._transcripts = transcripts
        self._profile_for = profile_for
        #: Those in hand, by id.
        self.live: dict[str, LiveSession] = {}
        self._bring_up = bring_up
        self._opening = asyncio.Lock()

    def counts(self) -> Counts:
        """Of those in hand."""
        live = tuple(self.live.values())
        leased = sum(each.kernel is not None for each in live)
        running = sum(each.executing for each in live)
        waiting = sum(len(each.cells) for each in live) - running
        return Counts({"yes": leased, "no": len(live) - leased}, {"running": running, "waiting": max(0, waiting)})

    async def get(self, session: str, tenant: str | None = None) -> SessionInfo:
        """`tenant`: the caller's; a session of another one is not found. Raises SessionNotFound."""
        info = await self._rows.get(session, tenant) if NAME.match(session) else None
        if info is None:
            raise SessionNotFound(session)
        return self._as_seen(info)

    async def list(
        self,
        tenant: str | None = None,
        limit: int = 100,
        after: str | None = None,
        roles: Collection[Role] | None = None,
    ) -> tuple[SessionInfo, ...]:
        """The newest first; of all tenants and roles for None. `after`: the last one of the page before."""
        return tuple(self._as_seen(info) for info in await self._rows.newest(tenant, limit, after, roles))

    async def cell(self, session: str, cell: str) -> tuple[CellRow, Node | None]:
        """A cell, and what it came to as the transcript has it; None while it runs, or where its kernel died with it.

        Raises:
            SessionNotFound, CellNotFound
        """
        info = await self.get(session)
        row = await self._rows.cell(session, cell) if NAME.match(cell) else None
        if row is None:
            raise CellNotFound(session, cell)
        row = _as_run(info, row)
        return (row, None) if row.status == "running" else (row, await self._noted(info, cell))

    async def cells(self, session: str) -> tuple[CellRow, ...]:
        """Those that were begun, in order. Raises SessionNotFound."""
        info = await self.get(session)
        return tuple(_as_run(info, cell) for cell in await self._rows.cells(session))

    async def find(self, session: str) -> LiveSession:
        """The session, to work with it; one that is not in hand has lost its kernel.

        Raises:
            SessionNotFound, SessionEnded
            OwnedElsewhere: another gateway that lives has it.
        """
        live = self.live.get(session)
        if live is not None:
            if live.over and not live.lock.locked():  # all that is left is to save its end
                raise SessionEnded(session)
            return live
        async with self._opening:
            if session in self.live:
                return self.live[session]
            info = await self._rows.get(session) if NAME.match(session) else None
            if info is None:
                raise SessionNotFound(session)
            if info.state == "ended":
                raise SessionEnded(session)
            live, from_other = await self._take(info)
            await self._rows.abandon(session)
            live.lost = _why_lost(info, _MOVED if from_other else _RESTARTED)
            live.moved = from_other and bool(live.lost)
            return live

    async def take_in(self, info: SessionInfo) -> LiveSession:
        """A session that is new, as one in hand."""
        return await self._take_in(info, None)

    async def _take_in(self, info: SessionInfo, known: Head | None) -> LiveSession:
        header = Header(info.id, info.tenant, info.role, info.created, info.title, info.state)
        transcript = await asyncio.to_thread(self._transcripts.open, header, known)
        if transcript.record.head.seq:  # what a gateway that was killed had not brought up to date
            self._transcripts.keeping.changed(transcript)
        profile = info.profile or self._profile_for(info.role)
        live = LiveSession(info.grant, transcript, profile, used=asyncio.get_running_loop().time())
        self.live[info.id] = live
        return live

    async def take_over(self, info: SessionInfo) -> LiveSession:
        """A session that an earlier gateway began.

        Raises:
            OwnedElsewhere
            RecordDamaged: its record is not as it was written.
        """
        live, _ = await self._take(info)
        return live

    async def _take(self, info: SessionInfo) -> tuple[LiveSession, bool]:
        """The session, and whether another gateway than this one's predecessors had it."""
        owners, before = self._rows.owners, ""
        if owners is not None:
            before = await owners.take(info.id)
        from_other = owners is not None and before not in ("", owners.id)
        try:
            if from_other:
                await self._fetch(info)
            cells = await self._rows.cells(info.id)
            live = await self._take_in(info, await self._head(info.id))
        except BaseException:
            if owners is not None:
                owners.let_go(info.id)
            raise
        live.next_index = max((cell.index for cell in cells), default=0) + 1
        return live, from_other

    async def fetch(self, info: SessionInfo) -> None:
        """Have the record of a session here that is, or was, another gateway's."""
        owners = self._rows.owners
        if owners is None or info.gateway in ("", owners.id) or info.id in self.live:
            return
        await self._fetch(info)

    async def _fetch(self, info: SessionInfo) -> None:
        if self._bring_up is not None:
            await self._bring_up(self._transcripts.path(info.tenant, info.id))

    def let_go(self, live: LiveSession) -> None:
        """Of a session that has ended, when all of it is saved."""
        if live.over and not live.owed:
            self.drop(live)

    def drop(self, live: LiveSession) -> None:
        """It is not in hand any more."""
        self.live.pop(live.grant.session, None)
        if self._rows.owners is not None:
            self._rows.owners.let_go(live.grant.session)

    async def _noted(self, info: SessionInfo, cell: str) -> Node | None:
        live = self.live.get(info.id)
        if live is not None:
            return await asyncio.to_thread(live.transcript.cell, cell)
        header = Header(info.id, info.tenant, info.role, info.created)
        await self.fetch(info)

        def look() -> Node | None:
            return self._transcripts.open(header, repair=False).cell(cell)

        return await asyncio.to_thread(look)

    def _as_seen(self, info: SessionInfo) -> SessionInfo:
        if info.state == "ended" or (info.elsewhere and info.id not in self.live):
            return info
        live = self.live.get(info.id)
        if live is None:
            reason = _why_lost(info)
        elif live.kernel is not None and live.kernel.exited.done():
            reason = live.kernel.exited.result().detail
        else:
            reason = live.lost
        return msgspec.structs.replace(info, state="lost" if reason else "live", reason=reason)


def _why_lost(info: SessionInfo, why: str = _RESTARTED) -> str:
    """Of a session that has no kernel here; "" for one that never ran a cell."""
    if info.state == "lost":
        return info.reason or why
    return why if info.cells else ""


def _as_run(info: SessionInfo, cell: CellRow) -> CellRow:
    """Without its kernel no cell runs, whatever its row says."""
    gone = cell.status == "running" and info.state != "live"
    return msgspec.structs.replace(cell, status="dead") if gone else cell
