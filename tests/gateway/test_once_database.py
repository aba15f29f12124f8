"""The journal's database breaks off, before and after it has committed, or is restarted: each write once."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import counting
import httpx
import pytest
from broker_world import World
from postgres_proxy import Fault, Proxy, proxied

from gateway.broker import Broker, Contexts, Journal
from gateway.broker.admission import Admission
from gateway.db import Database
from gateway.postgres import EmbeddedPostgres, PostgresConfig
from gateway.settings import BrokerSettings, DatabaseSettings, load_settings
from gateway.tool_catalogue import Catalogue
from gateway.types import Grant
from servers.errors import UpstreamError
from servers.registry import load_registry


@asynccontextmanager
async def world_on(url: str, folder: Path) -> AsyncIterator[World]:
    """A broker with counting tools, one connection for its journal and one for its tools."""
    counting.GATES.clear()
    counting.BEGUN.clear()
    database = Database(url, DatabaseSettings(pool_size=1))
    await database.open()
    await database.execute(counting.UPSTREAM)
    async with httpx.AsyncClient() as http:
        world = World(database, load_settings(data_dir=folder), folder, http)
        world.new_broker()
        try:
            yield world
        finally:
            await world.broker.close()
            await database.close()


@pytest.fixture
async def behind(database_url: str, folder: Path) -> AsyncIterator[tuple[World, Proxy]]:
    async with proxied(database_url, folder) as (proxy, url), world_on(url, folder) as world:
        yield world, proxy


async def asked(*_: Any) -> bool:
    return False


@pytest.mark.parametrize("fault", get_args(Fault))
@pytest.mark.parametrize("statement", ["claim", "executing", "finish"])
async def test_a_connection_that_breaks_at_the_journal_of_a_write_changes_nothing(
    behind: tuple[World, Proxy], monkeypatch: pytest.MonkeyPatch, statement: str, fault: Fault
) -> None:
    world, proxy = behind
    grant = await world.session()
    await world.broker.begin_cell("s1", "c1")
    original = getattr(Journal, statement)
    if statement == "executing":  # one that a person might have to be asked about is entered as decided first
        monkeypatch.setattr(Admission, "unasked", asked)

    async def armed(*args: Any, **kwargs: Any) -> Any:
        proxy.arm(fault)
        return await original(*args, **kwargs)

    monkeypatch.setattr(Journal, statement, armed)
    first = await world.broker.call(grant, "counting.add", {"name": "n"})
    monkeypatch.undo()
    assert proxy.broken == 1
    assert first == {"name": "n", "total": 1}
    await once(world, first)


@pytest.mark.parametrize("fault", get_args(Fault))
async def test_a_connection_that_breaks_at_the_row_of_a_read_changes_nothing(
    behind: tuple[World, Proxy], fault: Fault
) -> None:
    world, proxy = behind
    grant = await world.session()
    await world.broker.begin_cell("s1", "c1")
    proxy.arm(fault, b"counting.look")
    first = await world.broker.call(grant, "counting.look", {"name": "n"})
    await once(world, first, "look")
    assert proxy.broken == 1
    assert await world.looks("n") == 1


async def once(world: World, first: object, tool: str = "add") -> None:
    """The call is in the journal, and made again it is answered from there."""
    [record] = await world.broker.end_cell("s1")
    assert (record.state, record.replayed) == ("applied", False)
    await world.broker.begin_cell("s1", "c1")
    assert await world.broker.call(Grant("shop", "chat", "s1", "agent"), f"counting.{tool}", {"name": "n"}) == first
    [row] = await world.rows()
    assert (row["state"], row["occurrence"]) == ("applied", 1)
    assert await world.total("n") == (tool == "add")


@pytest.mark.parametrize("fault", get_args(Fault))
async def test_a_write_of_a_tool_whose_commit_has_no_answer_is_made_once(
    behind: tuple[World, Proxy], fault: Fault
) -> None:
    world, proxy = behind
    contexts = Contexts(world.settings, world.database, world.http)
    world.broker = Broker(Catalogue(load_registry()), Journal(world.database), contexts, BrokerSettings())
    grant = await world.session()
    await world.broker.begin_cell("s1", "c1")
    args: dict[str, object] = {"summary": "wants a person"}
    proxy.arm(fault, b"COMMIT")
    with pytest.raises(UpstreamError):
        await world.broker.call(grant, "support.hand_over", args)
    assert [row["state"] for row in await world.rows()] == ["unknown"]
    again = await world.broker.call(grant, "support.hand_over", args)
    [row] = await world.database.fetch("SELECT id, 'waiting' AS status FROM handover")
    assert again == row
    assert [row["state"] for row in await world.rows()] == ["applied"]


async def test_a_postgres_that_is_restarted_in_the_middle_of_writes_has_each_once(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="omniops-test-") as data:
        config = PostgresConfig(Path(data), folder / "run")
        server = EmbeddedPostgres(config)
        url = await server.start()
        async with world_on(url, folder) as world:
            grant = await world.session()
            await world.broker.begin_cell("s1", "c1")

            def call(tool: str, **args: object) -> asyncio.Task[object]:
                return asyncio.create_task(world.broker.call(grant, f"counting.{tool}", args))

            await call("add", name="before")
            waiting = call("wait_and_add", gate="g")
            await counting.BEGUN.setdefault("g", asyncio.Event()).wait()
            await server.stop()
            asked = call("add", name="asked while it was away")
            counting.GATES["g"].set()
            server = EmbeddedPostgres(config)
            starting = asyncio.create_task(server.start())
            try:
                assert await asked == {"name": "asked while it was away", "total": 1}
                [unanswered] = await asyncio.gather(waiting, return_exceptions=True)
                if isinstance(unanswered, Exception):  # the write itself came when nobody was there
                    assert isinstance(unanswered, UpstreamError)
                    await call("wait_and_add", gate="g")
                for name in ("before", "asked while it was away", "g"):
                    assert await world.total(name) == 1
                assert {row["state"] for row in await world.rows()} == {"applied"}
            finally:
                await starting
        await server.stop()
