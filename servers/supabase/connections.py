"""Connections to tenants' projects, kept per tenant: one tenant's are never another's, also on the same database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from ..errors import ToolDenied, UpstreamError
from .login import check_login

if TYPE_CHECKING:
    from .project import SupabaseProject

#: Time to get a connection, in seconds.
CONNECT_S = 10.0

Pool = AsyncConnectionPool[AsyncConnection[DictRow]]


class Connections:
    """Opened at the first use. `close` at the end."""

    def __init__(self) -> None:
        self._pools: dict[str, tuple[tuple[str, str, int], Pool]] = {}
        self._clients: dict[str, tuple[tuple[str, float, int], httpx.AsyncClient]] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def pool(self, project: SupabaseProject) -> Pool:
        """The tenant's pool, whose login was checked.

        Raises:
            ToolDenied: the login can do more than it may.
            UpstreamError: the database cannot be reached.
        """
        wanted = (project.database_url, project.role, project.in_flight)
        async with self._opening.setdefault(project.tenant, asyncio.Lock()):
            known, pool = self._pools.get(project.tenant, (None, None))
            if pool is not None and known == wanted:
                return pool
            if pool is not None:  # its settings or credentials have changed
                del self._pools[project.tenant]
                self._leave(pool)
            pool = await _open(project)
            self._pools[project.tenant] = (wanted, pool)
            return pool

    def http(self, project: SupabaseProject) -> httpx.AsyncClient:
        """The tenant's HTTP client: answers are bounded, and nothing is sent after a redirection."""
        wanted = (project.url, project.statement_timeout_s, project.result_mb)
        known, client = self._clients.get(project.tenant, (None, None))
        if client is not None and known == wanted:
            return client
        if client is not None:
            self._leave(client)
        client = _client(project)
        self._clients[project.tenant] = (wanted, client)
        return client

    async def close(self) -> None:
        for _, pool in self._pools.values():
            self._leave(pool)
        for _, client in self._clients.values():
            self._leave(client)
        self._pools.clear()
        self._clients.clear()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _leave(self, what: Pool | httpx.AsyncClient) -> None:
        """Close it when its calls are over."""
        closing = what.aclose() if isinstance(what, httpx.AsyncClient) else what.close()
        task = asyncio.create_task(closing)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _open(project: SupabaseProject) -> Pool:
    try:
        pool = Pool(
            project.database_url,
            # poolers between us and the database take no prepared statements
            kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": None, "connect_timeout": 10},
            min_size=0,
            max_size=project.in_flight,
            timeout=CONNECT_S,
            open=False,
            reconnect_timeout=CONNECT_S,
        )
        await pool.open()
    except psycopg.Error:
        raise ToolDenied("The tenant's database_url cannot be read.") from None
    try:
        async with pool.connection() as connection:
            await check_login(connection, project.role)
    except (psycopg.Error, PoolTimeout) as error:
        await pool.close()
        raise unreachable(error) from None
    except BaseException:
        await pool.close()
        raise
    return pool


def unreachable(error: Exception) -> UpstreamError:
    """The database did not let us in; its own words hold names, but no password."""
    told = str(error).strip().partition("\n")[0][:300]
    failure = UpstreamError(
        f"The tenant's database cannot be reached: {told or type(error).__name__}.",
        hint="`omniops credentials check TENANT` says more, on the gateway's machine.",
    )
    failure.retryable = True
    return failure


def _client(project: SupabaseProject) -> httpx.AsyncClient:
    most = project.result_mb * 2**20

    async def bound(response: httpx.Response) -> None:
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _Bounded(response.stream, most)

    return httpx.AsyncClient(
        timeout=httpx.Timeout(project.statement_timeout_s + 5.0, connect=CONNECT_S),
        limits=httpx.Limits(max_connections=project.in_flight),
        headers={"accept-encoding": "identity"},
        follow_redirects=False,
        event_hooks={"response": [bound]},
    )


class TooLarge(Exception):
    """An answer has more bytes than the project's `result_mb`."""


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._left = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise TooLarge
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
