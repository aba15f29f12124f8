"""The database: the gateway's own connections, tools' connections bound to one tenant, and migrations.

Two pools, so that slow SQL of tools never holds up the journal.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential

from .settings import DatabaseSettings

MIGRATIONS = Path(__file__).with_name("migrations")

#: Role of everything that a tool does in the database. Migrations grant what it may see, row-level security which rows.
TOOL_ROLE = "omniops_tool"

#: Any number that nobody else on this database locks.
MIGRATION_LOCK = 0x6F6D6E69
#: Seed of the locks that tools take.
EXCLUSIVE = 0x6F6D6E70

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]


class DatabaseError(Exception):
    """The database cannot be reached or migrated. The message says what to do and holds no password."""


@dataclass(frozen=True)
class TenantRows:
    """Statements inside one transaction that sees one tenant's rows."""

    connection: AsyncConnection[DictRow]

    async def fetch(self, sql: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
        cursor = await self.connection.execute(sql.encode(), parameters)
        return await cursor.fetchall()

    async def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """The number of rows touched."""
        return (await self.connection.execute(sql.encode(), parameters)).rowcount


@dataclass(frozen=True)
class TenantConnections:
    """`servers.context.TenantDatabase` for one tenant."""

    pool: AsyncConnectionPool[AsyncConnection[DictRow]]
    tenant: str
    statement_timeout_s: float
    url: str = field(repr=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[TenantRows]:
        """Commits at the end, rolls back on an exception; role and tenant end with it."""
        async with self.pool.connection() as connection, connection.transaction():
            await connection.execute(
                "SELECT set_config('role', %s, true), set_config('omniops.tenant', %s, true),"
                " set_config('statement_timeout', %s, true)",
                (TOOL_ROLE, self.tenant, f"{int(self.statement_timeout_s * 1000)}ms"),
            )
            yield TenantRows(connection)

    @asynccontextmanager
    async def exclusive(self, what: str) -> AsyncIterator[bool]:
        """An advisory lock, on a connection of its own: many that are held would use up the pool.

        It is a transaction's and not a session's, as poolers in between know only those.
        """
        connection = await AsyncConnection.connect(self.url, connect_timeout=10)
        async with connection:
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            cursor = await connection.execute(
                "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, %s))", (f"{what}/{self.tenant}", EXCLUSIVE)
            )
            row = await cursor.fetchone()
            yield row is not None and row[0]


class Database:
    """One Postgres. `open` first, `close` last."""

    def __init__(self, url: str, settings: DatabaseSettings) -> None:
        """Raises DatabaseError where `url` is none. Connects to nothing yet."""
        self._url = _readable(url)
        self._settings = settings
        self._own = self._pool()
        self._tools = self._pool()

    async def open(self) -> None:
        """Connect and migrate.

        Raises:
            DatabaseError: not reachable within `connect_timeout_s`, or a migration failed.
        """
        async with await self._connect() as connection:
            await migrate(connection)
        await self._own.open()
        await self._tools.open()

    async def close(self) -> None:
        await self._tools.close()
        await self._own.close()

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection[DictRow]]:
        """One of the gateway's own connections, in autocommit; `connection.transaction()` for more than a statement."""
        return self._own.connection()

    def counts(self) -> dict[str, int]:
        """Connections of both pools that are open and that are idle, and who waits for one."""
        stats = [pool.get_stats() for pool in (self._own, self._tools)]
        names = {"open": "pool_size", "idle": "pool_available", "waiting": "requests_waiting"}
        return {state: sum(each.get(name, 0) for each in stats) for state, name in names.items()}

    async def dedicated(self) -> AsyncConnection[DictRow]:
        """A connection of its own, outside the pools, in autocommit; the caller closes it. Raises psycopg.Error."""
        timeout = int(self._settings.connect_timeout_s)
        return await AsyncConnection.connect(
            self._url, autocommit=True, row_factory=dict_row, connect_timeout=max(1, timeout)
        )

    def blocking(self) -> psycopg.Connection[tuple[Any, ...]]:
        """The same for a thread, in a transaction that only reads, all of it as of one moment. Raises psycopg.Error."""
        timeout = int(self._settings.connect_timeout_s)
        connection = psycopg.connect(self._url, connect_timeout=max(1, timeout))
        connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
        return connection

    async def fetch(self, sql: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
        async with self._own.connection() as connection:
            return await (await connection.execute(sql.encode(), parameters)).fetchall()

    async def fetch_one(self, sql: str, parameters: Parameters = ()) -> dict[str, Any] | None:
        """The first row, or None."""
        async with self._own.connection() as connection:
            return await (await connection.execute(sql.encode(), parameters)).fetchone()

    async def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """The number of rows touched."""
        async with self._own.connection() as connection:
            return (await connection.execute(sql.encode(), parameters)).rowcount

    async def fetch_one_surely(self, sql: str, parameters: Parameters = ()) -> dict[str, Any] | None:
        """`fetch_one`, tried again while the database is away (`away_s`): for what may be applied twice.

        Where the connection broke after the statement was sent, nobody knows whether it was applied.
        """
        try:
            return await self.fetch_one(sql, parameters)
        except psycopg.OperationalError as error:
            if not is_away(error):
                raise
        async for attempt in AsyncRetrying(
            stop=stop_after_delay(self._settings.away_s),
            wait=wait_exponential(multiplier=0.02, max=1),
            retry=retry_if_exception(is_away),
            reraise=True,
        ):
            with attempt:
                return await self.fetch_one(sql, parameters)
        raise AssertionError("unreachable: tenacity returns or raises")

    def tenant(self, tenant: str) -> TenantConnections:
        """What a tool of this tenant gets."""
        return TenantConnections(self._tools, tenant, self._settings.statement_timeout_s, self._url)

    def _pool(self) -> AsyncConnectionPool[AsyncConnection[DictRow]]:
        return AsyncConnectionPool(
            self._url,
            kwargs={"autocommit": True, "row_factory": dict_row},
            min_size=1,
            max_size=self._settings.pool_size,
            timeout=self._settings.connect_timeout_s,
            open=False,
        )

    async def _connect(self) -> AsyncConnection[DictRow]:
        """A first connection: its error says more than a pool's would."""
        retrying = AsyncRetrying(
            stop=stop_after_delay(self._settings.connect_timeout_s),
            wait=wait_exponential(multiplier=0.1, max=2),
            retry=retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    return await AsyncConnection.connect(
                        self._url, autocommit=True, row_factory=dict_row, connect_timeout=10
                    )
        except psycopg.Error as error:
            raise DatabaseError(
                f"Cannot connect to the database {_where(self._url)}: {_first_line(error)}. Check DATABASE_URL."
            ) from None
        raise AssertionError("unreachable: tenacity returns or raises")


async def migrate(connection: AsyncConnection[DictRow], folder: Path = MIGRATIONS) -> tuple[str, ...]:
    """Apply what is missing of `folder`'s `*.sql`, in order of name, one transaction each; return what was applied.

    Raises:
        DatabaseError: a file failed, or was changed after it was applied.
    """
    applied: list[str] = []
    await connection.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
    try:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migration"
            " (name text PRIMARY KEY, sha256 text NOT NULL, applied timestamptz NOT NULL DEFAULT now())"
        )
        await connection.execute("ALTER TABLE migration ENABLE ROW LEVEL SECURITY")
        rows = await (await connection.execute("SELECT name, sha256 FROM migration")).fetchall()
        known = {row["name"]: row["sha256"] for row in rows}
        for name, sql in _read_migrations(folder):
            digest = hashlib.sha256(sql).hexdigest()
            if name not in known:
                await _apply(connection, name, sql, digest)
                applied.append(name)
            elif known[name] != digest:
                raise DatabaseError(
                    f"Migration {name} was changed after it was applied. Restore the file and put the change into a "
                    "new one; or, where the data may go, start on an empty database."
                )
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
    return tuple(applied)


async def _apply(connection: AsyncConnection[DictRow], name: str, sql: bytes, digest: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(sql)
            await connection.execute("INSERT INTO migration (name, sha256) VALUES (%s, %s)", (name, digest))
    except psycopg.Error as error:
        raise DatabaseError(f"Migration {name} failed, nothing of it was applied: {_first_line(error)}") from error


def _read_migrations(folder: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.sql"))]


def is_away(error: BaseException) -> bool:
    """The connection broke, or the server stops, starts or is full: the same statement may be answered later."""
    if not isinstance(error, psycopg.OperationalError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P")) or error.sqlstate == "53300"


def _may_pass(error: BaseException) -> bool:
    """True for a server that is not there (yet), false for one that says no (password, no such database)."""
    return isinstance(error, psycopg.OperationalError) and error.sqlstate in (None, "57P03")


def _readable(url: str) -> str:
    try:
        conninfo_to_dict(url)
    except psycopg.Error:  # its text quotes parts of the URL, maybe of the password
        raise DatabaseError("DATABASE_URL cannot be read. Wanted: postgresql://user:password@host:5432/name") from None
    return url


def _where(url: str) -> str:
    """The address without user and password."""
    parts = conninfo_to_dict(url)
    return f"{parts.get('dbname', '')!r} on {parts.get('host', 'localhost')}:{parts.get('port', 5432)}"


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0]
