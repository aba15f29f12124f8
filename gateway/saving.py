"""What a session did is kept in memory where it cannot be saved at present, and saved before anything more is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from gateway.session_errors import NotSaved

if TYPE_CHECKING:
    from gateway.live_session import LiveSession

log = structlog.get_logger(__name__)

#: What keeps something from being saved and may pass: a full disk, a database that is away.
PASSING = (OSError, psycopg.OperationalError, PoolTimeout)


async def save(live: LiveSession, *steps: Callable[[], Awaitable[object]], in_order: bool = True) -> None:
    """Take each step now or, where that cannot be at present, in `settle`. A step may be taken more than once.

    With `in_order` what is owed already comes first.
    """
    for step in steps:
        if not live.owed or not in_order:
            try:
                await step()
                continue
            except PASSING as error:
                log.error("a session cannot be saved", session=live.grant.session, error=str(error))
        live.owed.append(step)


async def settle(live: LiveSession) -> None:
    """Save what could not be saved when it was made; the caller holds the session's lock.

    Raises:
        NotSaved: it still cannot.
    """
    while live.owed:
        try:
            await live.owed[0]()
        except PASSING as error:
            raise NotSaved(live.grant.session, error) from error
        live.owed.popleft()
