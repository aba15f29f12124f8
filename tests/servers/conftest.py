"""Real parts for the tools: a shop on loopback, an embedded Postgres, the local embedding model."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from shop_server import Faulty, serving
from supabase_world import LOGIN, ROLES, TABLES, World
from tool_bench import CONTROL, KEY, Bench, Remembering, context_for

from demo import tau
from demo.shop.app import create_app
from demo.shop.seed import build
from gateway.db import Database
from gateway.postgres import EmbeddedPostgres, PostgresConfig
from gateway.settings import DatabaseSettings
from servers.catalog.embedding import MiniLm
from servers.registry import Registry, load_registry
from servers.supabase.connections import Connections


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_registry()


@pytest.fixture(scope="session")
def faulty() -> Iterator[tuple[Faulty, str]]:
    """The retail shop and its URL."""
    faulty = Faulty(create_app(build(tau.load_data()), [KEY], CONTROL))
    with serving(faulty) as url:
        yield faulty, url


@pytest.fixture
def shop(faulty: tuple[Faulty, str]) -> Faulty:
    """The retail shop as it was at the start, without faults."""
    double, url = faulty
    httpx.post(f"{url}/_double/reset", headers={"authorization": f"Bearer {CONTROL}"}).raise_for_status()
    double.arm()
    return double


@pytest.fixture
def shop_state(faulty: tuple[Faulty, str]) -> Callable[[], dict[str, Any]]:
    """Reads the shop's whole state, by its own control."""

    def read() -> dict[str, Any]:
        answer = httpx.get(f"{faulty[1]}/_double/state", headers={"authorization": f"Bearer {CONTROL}"}, timeout=30)
        state: dict[str, Any] = answer.raise_for_status().json()
        return state

    return read


@pytest.fixture
def written(faulty: tuple[Faulty, str]) -> Callable[[], dict[str, Any]]:
    """Reads what differs from the shop's start."""

    def read() -> dict[str, Any]:
        answer = httpx.get(f"{faulty[1]}/_double/written", headers={"authorization": f"Bearer {CONTROL}"}, timeout=30)
        changed: dict[str, Any] = answer.raise_for_status().json()
        return changed

    return read


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


@pytest.fixture
def bench(registry: Registry, faulty: tuple[Faulty, str], shop: Faulty, http: httpx.AsyncClient) -> Bench:
    """An analyst's tools on the retail shop."""
    return Bench(registry, context_for(faulty[1], http))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    sockets = Path(tempfile.mkdtemp(prefix="omniops-t-"))
    folder = Path(tempfile.mkdtemp(prefix="omniops-t-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(PostgresConfig(data_dir=folder, socket_dir=sockets))
    try:
        url = asyncio.run(server.start())
        # a project's logins beside the gateway's own
        with (folder / "postgres" / "pg_hba.conf").open("a") as file:
            file.write("local all omniops_login,authenticator,strong trust\n")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")
        yield url
    finally:
        asyncio.run(server.stop())
        shutil.rmtree(folder)
        shutil.rmtree(sockets)


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    """Migrated, without rows of tools."""
    database = Database(postgres_url, DatabaseSettings(pool_size=2))
    await database.open()
    await database.execute("TRUNCATE product, handover")
    yield database
    await database.close()


@pytest.fixture(scope="session")
def embedder() -> MiniLm:
    return Remembering()


@pytest.fixture(scope="session")
def supabase_world(postgres_url: str) -> Iterator[World]:
    """A database like a Supabase project's, which also takes logins other than the gateway's."""
    name = f"project_{secrets.token_hex(6)}"
    owner = postgres_url.replace("///postgres?", f"///{name}?")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    with psycopg.connect(owner, autocommit=True) as connection:
        for statements in (ROLES, TABLES, LOGIN):
            connection.execute(statements.encode())
    yield World(owner, re.sub("user=[^&]*", "user=omniops_login", owner))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    connections = Connections()
    yield connections
    await connections.close()
