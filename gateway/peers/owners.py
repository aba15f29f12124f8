"""Whose each session is. A gateway has its sessions for as long as it is heard of; then another may take them.

Two things keep a gateway that was away (stopped, cut off) from working on with a session that it has lost: it knows by
its own clock when it was heard of last (`check`), and what it writes carries a number that grew when the session was
taken (`fence`), so that the database refuses it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from gateway.db import Database
from gateway.saving import PASSING
from gateway.settings import PeerSettings

from .errors import Fenced, OwnedElsewhere

log = structlog.get_logger(__name__)

#: Beats of a gateway while its lease lasts.
_BEATS = 3

_OPEN = """
    INSERT INTO gateway (id, alive_until) VALUES (%(id)s, now() + make_interval(secs => %(lease_s)s))
    ON CONFLICT (id) DO UPDATE SET epoch = gateway.epoch + 1, url = '', started = now(),
        alive_until = excluded.alive_until
    RETURNING epoch
"""
_BEAT = """
    UPDATE gateway SET alive_until = now() + make_interval(secs => %(lease_s)s), url = %(url)s
    WHERE id = %(id)s AND epoch = %(epoch)s
"""
_TAKE = """
    WITH before AS (SELECT id, gateway FROM session WHERE id = %(session)s FOR UPDATE)
    UPDATE session SET gateway = %(id)s, fence = fence + 1 FROM before
    WHERE session.id = before.id AND (session.gateway IN ('', %(id)s) OR NOT EXISTS (
        SELECT FROM gateway WHERE gateway.id = session.gateway AND alive_until > now()))
    RETURNING fence, before.gateway
"""
_OWNER = """
    SELECT session.gateway, url, extract(epoch FROM alive_until - now())::float8 AS left_s
    FROM session JOIN gateway ON gateway.id = session.gateway WHERE session.id = %s
"""
_MINE = (
    "SELECT id FROM session WHERE id = ANY(%(ids)s) AND gateway = %(id)s AND fence = (%(fences)s::jsonb ->> id)::bigint"
)


class Owner(NamedTuple):
    """Another gateway that has a session. `left_s`: its lease; nothing left, and the session may be taken."""

    gateway: str
    url: str
    left_s: float


class Owners:
    """One gateway's view. Methods belong to one event loop."""

    def __init__(
        self, database: Database, settings: PeerSettings, id: str, clock: Callable[[], float] | None = None
    ) -> None:
        """`id`: of the data folder, which has one gateway at a time. `clock`: goes on while the machine sleeps."""
        self.id = id
        self.url = ""
        self._database = database
        self._settings = settings
        self._clock = clock or _clock
        self._epoch = 0
        self._until = 0.0
        self._held: dict[str, int] = {}
        self._alive: frozenset[str] = frozenset()
        #: Called with a session that another gateway has taken.
        self.lost: Callable[[str], Awaitable[None]] = _nobody

    async def open(self) -> bytes:
        """Be heard of from now on; the secret that gateways share."""
        asked = self._clock()
        row = await self._database.fetch_one(_OPEN, {"id": self.id, "lease_s": self._settings.lease_s})
        self._epoch, self._until = (row or {"epoch": 1})["epoch"], asked + self._settings.lease_s
        if self._settings.secret is not None:
            return self._settings.secret.get_secret_value().encode()
        await self._database.execute(
            "INSERT INTO gateway_secret (secret) VALUES (%s) ON CONFLICT DO NOTHING", (secrets.token_bytes(32),)
        )
        kept = await self._database.fetch_one("SELECT secret FROM gateway_secret")
        return bytes(kept["secret"]) if kept else b""

    async def announce(self, url: str) -> None:
        """Other gateways reach this one at `url`."""
        self.url = url.rstrip("/")
        await self.beat()

    async def run(self) -> None:
        """For ever: be heard of, and look whose the sessions are that are in hand."""
        while True:
            await asyncio.sleep(self._settings.lease_s / _BEATS)
            try:
                await self.beat()
            except PASSING as error:
                log.warning("the gateway is not heard of at present", error=str(error))

    async def beat(self) -> None:
        """Once."""
        asked = self._clock()
        values = {"id": self.id, "epoch": self._epoch, "url": self.url, "lease_s": self._settings.lease_s}
        if await self._database.execute(_BEAT, values):
            self._until = asked + self._settings.lease_s
        else:  # another gateway says that it is this one
            self._until = 0.0
            log.error("another gateway has this one's data folder, or a copy of it", id=self.id)
        await self._look()

    async def gone(self, gateway: str) -> None:
        """Returns when another gateway's lease is over."""
        while True:
            await asyncio.sleep(self._settings.lease_s / _BEATS)
            if gateway not in self._alive:
                return

    async def _look(self) -> None:
        alive = await self._database.fetch("SELECT id FROM gateway WHERE alive_until > now()")
        self._alive = frozenset(row["id"] for row in alive)
        if not self._held:
            return
        held = dict(self._held)
        values = {"ids": list(held), "id": self.id, "fences": _json(held)}
        mine = {row["id"] for row in await self._database.fetch(_MINE, values)}
        for session in held.keys() - mine:
            if self._held.get(session) == held[session]:
                log.warning("a session was taken by another gateway", session=session)
                del self._held[session]
                await self.lost(session)

    def made(self, session: str) -> None:
        """A session that this gateway has entered as its own, with fence 1."""
        self._held[session] = 1

    async def take(self, session: str) -> str:
        """The session is this gateway's when this returns; whose it was before, "" for nobody's.

        Raises:
            OwnedElsewhere
        """
        row = await self._database.fetch_one(_TAKE, {"session": session, "id": self.id})
        if row is None:
            owner = await self.owner(session)
            raise OwnedElsewhere(session, owner.url if owner else "")
        self._held[session] = row["fence"]
        return str(row["gateway"])

    def let_go(self, session: str) -> None:
        """It is not in hand any more, and stays this gateway's."""
        self._held.pop(session, None)

    def holds(self, session: str) -> bool:
        return session in self._held

    def fence(self, session: str) -> int | None:
        """What is to be written with; None where the session is not in hand."""
        return self._held.get(session)

    async def check(self, session: str) -> None:
        """Raises Fenced where another gateway may have the session by now. Past the lease the database is asked."""
        if self._clock() >= self._until:
            try:
                await self.beat()
            except PASSING as error:
                raise Fenced(session) from error
        if session not in self._held or self._clock() >= self._until:
            raise Fenced(session)

    async def owner(self, session: str) -> Owner | None:
        """The other gateway that has the session; None where it is this one's or nobody's."""
        row = await self._database.fetch_one(_OWNER, (session,))
        return None if row is None or row["gateway"] == self.id else Owner(**row)

    async def close(self, *, keep: bool) -> None:
        """Others may take the sessions at once; with `keep`, when this gateway's lease is over."""
        if not keep:
            await self._database.execute(
                "UPDATE gateway SET alive_until = now() WHERE id = %s AND epoch = %s", (self.id, self._epoch)
            )


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _json(held: dict[str, int]) -> str:
    return "{" + ",".join(f'"{session}":{fence}' for session, fence in held.items()) + "}"


async def _nobody(session: str) -> None:
    return
