"""Migrations, and connections that see one tenant."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from gateway.db import TOOL_ROLE, Database, DatabaseError, migrate
from gateway.settings import DatabaseSettings


async def connect(url: str) -> psycopg.AsyncConnection[dict[str, object]]:
    return await psycopg.AsyncConnection.connect(url, autocommit=True, row_factory=dict_row)


async def test_migrations_apply_in_order_and_once(empty_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (n int); INSERT INTO a VALUES (1);")
    (tmp_path / "0002_b.sql").write_text("UPDATE a SET n = n + 1")
    async with await connect(empty_database_url) as connection:
        assert await migrate(connection, tmp_path) == ("0001_a.sql", "0002_b.sql")
        assert await migrate(connection, tmp_path) == ()
        assert await (await connection.execute("SELECT n FROM a")).fetchone() == {"n": 2}


async def test_a_failing_migration_is_named_and_leaves_nothing(empty_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_bad.sql").write_text("CREATE TABLE a (n int); SELECT nonsense;")
    async with await connect(empty_database_url) as connection:
        with pytest.raises(DatabaseError, match=r"0001_bad\.sql failed, nothing of it was applied.*nonsense"):
            await migrate(connection, tmp_path)
        assert await (await connection.execute("SELECT to_regclass('a') AS t")).fetchone() == {"t": None}


async def test_a_migration_that_was_changed_afterwards_is_refused(empty_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (n int)")
    async with await connect(empty_database_url) as connection:
        await migrate(connection, tmp_path)
        (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (n bigint)")
        with pytest.raises(DatabaseError, match=r"0001_a\.sql was changed after it was applied"):
            await migrate(connection, tmp_path)


async def test_two_gateways_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    import asyncio

    both = [Database(empty_database_url, DatabaseSettings(pool_size=1)) for _ in range(2)]
    await asyncio.gather(*(one.open() for one in both))
    rows = await both[0].fetch("SELECT count(*) AS n FROM migration WHERE name = '0001_core.sql'")
    assert rows == [{"n": 1}]
    for one in both:
        await one.close()


async def with_notes(database: Database) -> None:
    """A table as tools have them: rows of two tenants, policy by tenant."""
    await database.execute(
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{TOOL_ROLE}')"
        f" THEN CREATE ROLE {TOOL_ROLE}; END IF; END $$"
    )
    await database.execute("CREATE TABLE note (tenant text, body text)")
    await database.execute("ALTER TABLE note ENABLE ROW LEVEL SECURITY")
    await database.execute("CREATE POLICY own ON note USING (tenant = current_setting('omniops.tenant'))")
    await database.execute(f"GRANT SELECT, INSERT ON note TO {TOOL_ROLE}")
    await database.execute("INSERT INTO note VALUES ('a', 'of a'), ('b', 'of b')")


async def test_a_tools_transaction_sees_its_tenant_only(database: Database) -> None:
    await with_notes(database)
    async with database.tenant("a").transaction() as rows:
        assert await rows.fetch("SELECT body FROM note") == [{"body": "of a"}]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await rows.execute("INSERT INTO note VALUES ('b', 'smuggled')")


async def test_nothing_of_a_tenant_stays_on_the_connection(database_url: str) -> None:
    database = Database(database_url, DatabaseSettings(pool_size=1))
    await database.open()
    await with_notes(database)
    for tenant in ("a", "b", "a"):
        async with database.tenant(tenant).transaction() as rows:
            assert await rows.fetch("SELECT body FROM note") == [{"body": f"of {tenant}"}]
    await database.close()


async def test_tools_cannot_read_the_journal(database: Database) -> None:
    await with_notes(database)
    for table in ("session", "cell", "call", "migration"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with database.tenant("a").transaction() as rows:
                await rows.fetch(f"SELECT * FROM {table}")


async def test_a_tools_statement_has_a_time_limit(database_url: str) -> None:
    database = Database(database_url, DatabaseSettings(pool_size=1, statement_timeout_s=0.05))
    await database.open()
    await with_notes(database)
    with pytest.raises(psycopg.errors.QueryCanceled):
        async with database.tenant("a").transaction() as rows:
            await rows.fetch("SELECT pg_sleep(30)")
    await database.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:hunter22@127.0.0.1:1/x", "Cannot connect to the database 'x' on 127.0.0.1:1"),
        ("postgresql://u:hunter22@[::1/x", "cannot be read"),
        ("hunter22", "cannot be read"),
    ],
)
async def test_an_unreachable_database_is_named_without_its_password(url: str, message: str) -> None:
    with pytest.raises(DatabaseError, match=message) as caught:
        await Database(url, DatabaseSettings(connect_timeout_s=0.2)).open()
    assert "hunter22" not in str(caught.value)
