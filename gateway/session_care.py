"""What is done for sessions without anybody's asking: idle kernels taken, what could not be saved saved later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from gateway.live_session import LiveSession, SessionKernels
from gateway.saving import flush, settle
from gateway.session_book import SessionBook
from gateway.session_errors import NotSaved

log = structlog.get_logger(__name__)

#: Time between two attempts to save what could not be saved.
_SAVE_EVERY_S = 2.0
#: Time between two looks for idle sessions.
_REAP_EVERY_S = 30.0


class SessionCare:
    """Over all sessions of this gateway."""

    def __init__(self, book: SessionBook, kernels: SessionKernels) -> None:
        self._book = book
        self._kernels = kernels
        #: Whether a session that runs nothing is in use all the same.
        self.in_use: Callable[[str], bool] = lambda session: False

    async def reap(self, idle_s: float) -> None:
        """For ever: take the kernels of sessions that were idle for `idle_s` seconds. `restore` brings them back."""
        while True:
            await asyncio.sleep(min(_REAP_EVERY_S, idle_s))
            now = asyncio.get_running_loop().time()
            for live in list(self._book.live.values()):
                idle = live.kernel is not None and not live.cells and now - live.used > idle_s
                if idle and not self.in_use(live.grant.session):
                    await self._take_idle(live, idle_s)

    async def keep_saving(self) -> None:
        """For ever: save what could not be saved when it was made."""
        while True:
            await asyncio.sleep(_SAVE_EVERY_S)
            for live in [live for live in self._book.live.values() if live.owed and not live.lock.locked()]:
                async with live.lock:
                    try:
                        await settle(live)
                        self._book.let_go(live)
                    except NotSaved:
                        continue
                    except Exception as error:  # noqa: BLE001 - the others are to be saved all the same
                        log.error("a session cannot be saved", session=live.grant.session, error=str(error))

    async def save_all(self) -> None:
        """What can be saved is saved when this returns."""
        for live in self._book.live.values():
            await flush(live)
            try:
                await settle(live)
            except NotSaved as error:
                log.error("the end of a session is lost", session=live.grant.session, error=str(error))

    async def _take_idle(self, live: LiveSession, idle_s: float) -> None:
        try:
            async with live.lock:
                if not live.cells and not live.over:
                    await self._kernels.lose(live, f"it was not used for {idle_s:g} s")
        except Exception as error:  # noqa: BLE001 - one session's trouble must not end the watch over the others
            log.error("an idle kernel could not be taken", session=live.grant.session, error=str(error))
