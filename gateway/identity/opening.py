"""Identity as a gateway starts it: the configuration's tokens checked, the first key made, changes listened for."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack

import httpx

from gateway.auth import Tokens
from gateway.db import Database
from gateway.identity.allowance import Allowance
from gateway.identity.identity import Identity
from gateway.identity.keys import NewKey
from gateway.settings import Settings
from gateway.start_error import StartError
from gateway.transcripts.store import NAME

_LABEL = "made at the first start"


async def open_identity(
    stack: AsyncExitStack, settings: Settings, tokens: Tokens, database: Database, http: httpx.AsyncClient
) -> tuple[Identity, NewKey | None]:
    """And the first key, where this is the first start on the database and no token is set for the server."""
    allowance = Allowance(database, settings)
    await allowance.look()
    identity = Identity(tokens, database, settings.identity, settings.limits, http, allowance)
    stack.push_async_callback(identity.book.flush)
    for work in (identity.book.run(), identity.book.keep_notes(), allowance.run()):
        stack.push_async_callback(_cancelled, asyncio.create_task(work))
    first = None if settings.server.token is not None else await identity.keys.first(_LABEL, "omniops serve")
    return identity, first


def tokens_of(settings: Settings, operator: str) -> Tokens:
    """Those of the configuration, and the server's own. Raises StartError."""
    for name in settings.tenants:
        if not NAME.match(name):
            raise StartError(f"{name!r} cannot be a tenant: up to 64 letters, digits, '_', '-' and '.' only.")
    own = {name: tenant.token.get_secret_value() for name, tenant in settings.tenants.items() if tenant.token}
    approvers = {
        name: (each.token.get_secret_value(), each.tenants) for name, each in settings.approvals.approvers.items()
    }
    for name, (_, tenants) in approvers.items():
        if unknown := sorted(set(tenants) - set(settings.tenants)):
            raise StartError(f"approvals.approvers.{name}.tenants: there is no tenant {unknown[0]!r}.")
    try:
        reader = settings.metrics.token
        return Tokens(operator, own, approvers, reader.get_secret_value() if reader else None)
    except ValueError as error:
        raise StartError(f"The access tokens cannot be used: {error}.") from None


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
