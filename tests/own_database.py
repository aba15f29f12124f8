"""Databases of tests' own, on the test run's Postgres."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from gateway.db import migrate


@contextmanager
def own_database(server: str, *, empty: bool = False) -> Iterator[str]:
    """URL of a database on a server, which has all migrations or, if `empty`, nothing."""
    template = "template1" if empty else _migrated(server)
    name = _create(server, template)
    yield _url(server, name)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@cache
def _migrated(server: str) -> str:
    """A database that others are copied from: to migrate each of them took longer than most tests."""
    name = _create(server, "template1")

    async def work() -> None:
        async with await AsyncConnection.connect(_url(server, name), autocommit=True, row_factory=dict_row) as it:
            await migrate(it)

    with ThreadPoolExecutor(1) as thread:  # a loop of its own, whatever the test's
        thread.submit(asyncio.run, work()).result()
    return name


def _create(server: str, template: str) -> str:
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return name


def _url(server: str, name: str) -> str:
    return server.replace("///postgres?", f"///{name}?")
