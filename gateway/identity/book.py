"""Keys as requests are held against them: looked up once, kept a moment, forgotten when the database says so."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from datetime import UTC, datetime

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from gateway.auth import Principal
from gateway.db import Database
from gateway.identity.keys import KeyRows, Known
from gateway.settings import IdentitySettings

log = structlog.get_logger(__name__)

_CHANNEL = "LISTEN omniops_keys"
_AGAIN_S = 1.0


class KeyBook:
    """Belongs to one event loop. `run` it, to hear of changes and to note when keys are used."""

    def __init__(self, database: Database, rows: KeyRows, settings: IdentitySettings) -> None:
        self._database = database
        self._rows = rows
        self._settings = settings
        self._kept: dict[str, tuple[Known, float]] = {}
        self._used: dict[str, datetime] = {}
        #: Grows with each change of any key that this gateway hears of.
        self._changes = 0
        self._changed = asyncio.Event()

    def knows(self, id: str) -> bool:
        """Whether a key with this id is kept: to look at a token of it costs nothing."""
        return id in self._kept

    async def principal(self, id: str, digest: bytes) -> Principal | None:
        """Whom the key stands for; None where it counts no more, or never did. Raises psycopg.Error."""
        known = await self._known(id)
        if known is None or known.key.ended(now := datetime.now(UTC)):
            return None
        found: Principal | None = None
        for held, ends in known.secrets:
            if hmac.compare_digest(held, digest) and (ends is None or ends > now):
                until = min((end for end in (ends, known.key.expires) if end is not None), default=None)
                found = Principal(
                    f"key:{id}",
                    known.key.role,
                    known.key.tenant,
                    until=None if until is None else until.timestamp(),
                    key=(id, digest),
                )
        if found is not None:
            self._used[id] = now
        return found

    def forget(self) -> None:
        """Look each key up again, and let those look who wait for a change."""
        self._changes += 1
        self._kept.clear()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self) -> None:
        """Wait for the next change of any key, or for the time after which one may have been missed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self._settings.cache_s, _AGAIN_S)):
                await self._changed.wait()

    async def run(self) -> None:
        """For ever: hear of changes."""
        while True:
            try:
                async with await self._database.dedicated() as connection:
                    await connection.execute(_CHANNEL)
                    self.forget()  # what was changed before we listened
                    async for _ in connection.notifies():
                        self.forget()
            except (psycopg.Error, OSError) as error:
                log.warning("changes of keys are not heard of for now", error=str(error))
            self.forget()
            await asyncio.sleep(_AGAIN_S)

    async def keep_notes(self) -> None:
        """For ever: note when keys were used."""
        while True:
            await asyncio.sleep(self._settings.last_use_s)
            await self.flush()

    async def flush(self) -> None:
        used, self._used = self._used, {}
        if used:
            try:
                await self._rows.used(used)
            except (psycopg.Error, PoolTimeout) as error:
                log.warning("when keys were used is not noted", keys=len(used), error=str(error))

    async def _known(self, id: str) -> Known | None:
        kept = self._kept.get(id)
        if kept is not None and time.monotonic() - kept[1] < self._settings.cache_s:
            return kept[0]
        begun, changes = time.monotonic(), self._changes
        found = await self._rows.known(id)
        if found is None:
            self._kept.pop(id, None)
        elif changes == self._changes:  # else what was read may be older than the change
            self._kept[id] = (found, begun)
        return found
