"""A broker with counting tools, on a real database and real sockets."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import counting
import httpx
import pytest
from broker_world import World
from jupyter_world import http as http
from jupyter_world import jupyter as jupyter
from jupyter_world import kernel as kernel

from gateway.db import Database
from gateway.settings import load_settings
from kernel_pool.sandbox.client import BrokerClient


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path for sockets."""
    with tempfile.TemporaryDirectory(prefix="omniops-") as name:
        yield Path(name)


@pytest.fixture
async def world(database: Database, folder: Path) -> AsyncIterator[World]:
    counting.GATES.clear()
    counting.BEGUN.clear()
    await database.execute(counting.UPSTREAM)
    settings = load_settings(data_dir=folder, openai_api_key="hunter2222")
    async with httpx.AsyncClient() as http:
        made = World(database, settings, folder, http)
        made.new_broker()
        yield made
        for gate in counting.GATES.values():
            gate.set()
        await made.broker.close()


@pytest.fixture
def call() -> Callable[..., Any]:
    """A call from a kernel's thread, awaited here."""

    async def from_thread(client: BrokerClient, tool: str, **args: object) -> Any:
        return await asyncio.to_thread(client.call, f"counting.{tool}", args)

    return from_thread
