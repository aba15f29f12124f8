"""Rules for all tests: with `CI` set, a skip is a failure, for CI installs all that a Debian machine can have."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import psycopg
import pytest
from docker_daemon import docker_host as docker_host
from docker_daemon import sandbox_image as sandbox_image

from gateway.db import Database
from gateway.postgres import EmbeddedPostgres, PostgresConfig
from gateway.settings import DatabaseSettings


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of an embedded Postgres for the whole test run."""
    with tempfile.TemporaryDirectory(prefix="omniops-test-") as folder:
        server = EmbeddedPostgres(PostgresConfig(Path(folder), Path(folder) / "run"))
        yield asyncio.run(server.start())
        asyncio.run(server.stop())


@pytest.fixture
def database_url(postgres: str) -> Iterator[str]:
    """URL of an empty database of this test's own."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield postgres.replace("///postgres?", f"///{name}?")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open, migrated database of this test's own."""
    opened = Database(database_url, DatabaseSettings(pool_size=4))
    await opened.open()
    yield opened
    await opened.close()
