"""The gateway put together: settings, database, tools, broker, pool, sessions, agent; started in order, stopped in
reverse."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.agent.model import ModelClient, ModelError
from gateway.auth import Tokens
from gateway.broker import Broker, Contexts, Journal
from gateway.broker.scrub import Scrubber
from gateway.catalog import Catalog
from gateway.chat import Chat
from gateway.data_dir import DataDir, DataDirError, remove_runtime_dir, runtime_dir
from gateway.db import Database, DatabaseError
from gateway.kernels import pool_of
from gateway.postgres import EmbeddedPostgres, PostgresConfig, PostgresError
from gateway.session_rows import SessionRows
from gateway.sessions import Sessions
from gateway.settings import Settings
from gateway.transcripts.store import NAME, TranscriptStore
from gateway.types import BoundaryObserver
from kernel_pool.pool import Pool
from kernel_pool.types import KernelPoolError
from servers.catalog.embedding import MiniLm
from servers.errors import ToolNotFound
from servers.registry import Collision, Registry, load_registry


class StartError(Exception):
    """The gateway cannot start. The message says what failed and what to do, and holds no secret."""


@dataclass(frozen=True)
class Gateway:
    """What the routes work with."""

    settings: Settings
    tokens: Tokens
    #: The operator's token.
    token: str
    database: Database
    broker: Broker
    pool: Pool
    sessions: Sessions
    chat: Chat
    catalog: Catalog
    transcripts: TranscriptStore
    scrubber: Scrubber
    data_dir: DataDir
    #: One line for people.
    isolation: str


@asynccontextmanager
async def open_gateway(
    settings: Settings, *, registry: Registry | None = None, observers: tuple[BoundaryObserver, ...] = ()
) -> AsyncIterator[Gateway]:
    """A running gateway without its HTTP server.

    `registry` and `observers` (of tool calls) are for other tool sets and for tests.

    Raises:
        StartError
    """
    async with AsyncExitStack() as stack:
        try:
            gateway = await _start(stack, settings, registry, observers)
        except (DataDirError, DatabaseError, PostgresError, KernelPoolError, Collision) as error:
            raise StartError(str(error)) from error
        yield gateway


async def _start(
    stack: AsyncExitStack, settings: Settings, registry: Registry | None, observers: tuple[BoundaryObserver, ...]
) -> Gateway:
    policies = _policies(settings)
    registry = registry or load_registry()
    _check_everyday_tools(settings, registry)
    data_dir = DataDir(settings.data_dir)
    data_dir.open()
    stack.callback(data_dir.close)
    token = settings.server.token.get_secret_value() if settings.server.token else data_dir.token()
    tokens = _tokens(settings, token)
    folder = runtime_dir(settings.runtime_dir, data_dir.path)
    stack.callback(remove_runtime_dir, folder)
    pool, isolation = await pool_of(settings, folder / "pool", {"tools.json": registry.index()})
    database_url = asyncio.create_task(_database_url(stack, settings, data_dir.path, folder))
    try:
        await pool.start()
    finally:
        url = await database_url
        stack.push_async_callback(pool.close)
    database = Database(url, settings.database)
    await database.open()
    stack.push_async_callback(database.close)
    http = await stack.enter_async_context(httpx.AsyncClient())
    embedder = MiniLm()
    contexts = Contexts(settings, database, http, embedder)
    scrubber = Scrubber((*contexts.secrets, token))
    broker = Broker(registry, Journal(database), contexts, settings.broker, observers)
    stack.push_async_callback(broker.close)
    transcripts = TranscriptStore(data_dir.transcripts, scrubber.known)
    rows = SessionRows(database)
    sessions = Sessions(
        rows=rows, pool=pool, broker=broker, transcripts=transcripts, settings=settings.cell, redact=scrubber.known
    )
    stack.push_async_callback(sessions.close, settings.server.shutdown_grace_s)
    stack.push_async_callback(_cancelled, asyncio.create_task(sessions.reap(settings.cell.idle_s)))
    chat = Chat(
        sessions=sessions,
        rows=rows,
        broker=broker,
        registry=registry,
        model=_model(stack, settings),
        settings=settings.agent,
        policies=policies,
        code_kb=settings.cell.code_kb,
    )
    stack.push_async_callback(chat.close)
    return Gateway(
        settings=settings,
        tokens=tokens,
        token=token,
        database=database,
        broker=broker,
        pool=pool,
        sessions=sessions,
        chat=chat,
        catalog=Catalog(settings, database, embedder, http),
        transcripts=transcripts,
        scrubber=scrubber,
        data_dir=data_dir,
        isolation=isolation,
    )


async def _database_url(stack: AsyncExitStack, settings: Settings, data_dir: Path, folder: Path) -> str:
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    limits = settings.database
    config = PostgresConfig(data_dir, folder / "postgres", limits.uid, limits.start_timeout_s, limits.stop_timeout_s)
    postgres = EmbeddedPostgres(config)
    url = await postgres.start()
    stack.push_async_callback(postgres.stop)
    return url


def _model(stack: AsyncExitStack, settings: Settings) -> ModelClient | str:
    try:
        model = ModelClient.from_settings(settings)
    except ModelError as error:
        return str(error)
    stack.push_async_callback(model.close)
    return model


def _tokens(settings: Settings, operator: str) -> Tokens:
    for name in settings.tenants:
        if not NAME.match(name):
            raise StartError(f"{name!r} cannot be a tenant: up to 64 letters, digits, '_', '-' and '.' only.")
    own = {name: tenant.token.get_secret_value() for name, tenant in settings.tenants.items() if tenant.token}
    try:
        return Tokens(operator, own)
    except ValueError as error:
        raise StartError(f"The access tokens cannot be used: {error}.") from None


def _policies(settings: Settings) -> dict[str, str]:
    found = {}
    for name, tenant in settings.tenants.items():
        if tenant.policy_file is None:
            continue
        try:
            found[name] = tenant.policy_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise StartError(f"tenants.{name}.policy_file {tenant.policy_file} cannot be read: {error}.") from error
    return found


def _check_everyday_tools(settings: Settings, registry: Registry) -> None:
    try:
        for name in settings.agent.everyday_tools:
            registry.get(name)
    except ToolNotFound as error:
        raise StartError(f"agent.everyday_tools: {error.message}") from error


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
