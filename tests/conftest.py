"""Rules for all tests: with `CI` set, a skip is a failure, for CI installs all that a Debian machine can have."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import psycopg
import pytest
from docker_daemon import docker_host as docker_host
from docker_daemon import pytest_configure as pytest_configure
from docker_daemon import pytest_unconfigure as pytest_unconfigure
from docker_daemon import sandbox_image as sandbox_image
from own_database import own_database

from gateway.db import Database
from gateway.postgres import EmbeddedPostgres, PostgresConfig
from gateway.settings import DatabaseSettings

_CONTAINER_TIMEOUT_S = 900
#: What pytest-xdist adds to the name of a test of a group.
_GROUP = re.compile(r"@[^@\[\]/]+\Z")

# Who was started in the background may ignore SIGINT, and would let its children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run at once: those that share a fixture of their module, or the arena, and their place stay together.

    What runs in a container may be the first that does: then it waits for the image to be made.
    """
    for item in items:
        values = _parameters(item).values()
        places = [place for place in ("local", "runc", "runsc") if any(_names(value, place) for value in values)]
        if places and places != ["local"] and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_CONTAINER_TIMEOUT_S))
        if _shares_a_fixture(item):
            shared = "arena" if "arena" in getattr(item, "fixturenames", ()) else item.path.stem
            item.add_marker(pytest.mark.xdist_group("-".join([shared, *places])))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Forget the groups in the names of tests that failed: without workers, no test is called so."""
    if hasattr(session.config, "workerinput") or session.config.cache is None:
        return
    failed: dict[str, bool] = session.config.cache.get("cache/lastfailed", {})
    plain = {_GROUP.sub("", name): kept for name, kept in failed.items()}
    session.config.cache.set("cache/lastfailed", plain)


def _parameters(item: pytest.Item) -> dict[str, object]:
    return item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}


def _names(value: object, place: str) -> bool:
    return value == place if isinstance(value, str) else isinstance(value, tuple) and value[:1] == (place,)


def _shares_a_fixture(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return True
    fixtures = [each for found in item._fixtureinfo.name2fixturedefs.values() for each in found]
    return any(fixture.scope in ("module", "class", "package") or fixture.argname == "arena" for fixture in fixtures)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of an embedded Postgres for the whole test run."""
    with tempfile.TemporaryDirectory(prefix="omniops-test-") as folder:
        server = EmbeddedPostgres(PostgresConfig(Path(folder), Path(folder) / "run"))
        url = asyncio.run(server.start())
        with psycopg.connect(url, autocommit=True) as connection:  # no test cuts the power
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield url
        asyncio.run(server.stop())


@pytest.fixture
def database_url(postgres: str) -> Iterator[str]:
    """URL of a database of this test's own, migrated."""
    with own_database(postgres) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: str) -> Iterator[str]:
    """URL of a database of this test's own, with nothing in it."""
    with own_database(postgres, empty=True) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open, migrated database of this test's own."""
    opened = Database(database_url, DatabaseSettings(pool_size=4))
    await opened.open()
    yield opened
    await opened.close()
