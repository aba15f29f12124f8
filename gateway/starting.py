"""Parts of a gateway that take more than their constructor to start."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.agent.model_error import NOT_CONFIGURED
from gateway.broker.spool import Spool
from gateway.checking.checker import Checker
from gateway.postgres import EmbeddedPostgres, PostgresConfig
from gateway.settings import Settings
from gateway.start_error import StartError
from servers.errors import ToolNotFound
from servers.registry import Registry, load_registry

if TYPE_CHECKING:
    from gateway.agent.model import ModelClient


async def open_database_url(stack: AsyncExitStack, settings: Settings, data_dir: Path, folder: Path) -> str:
    """The configured one, or that of an embedded Postgres, which ends with the gateway."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    limits = settings.database
    config = PostgresConfig(data_dir, folder / "postgres", limits.uid, limits.start_timeout_s, limits.stop_timeout_s)
    postgres = EmbeddedPostgres(config)
    url = await postgres.start()
    stack.push_async_callback(postgres.stop)
    return url


def spool_of(data_dir: Path) -> Spool:
    """Of reads' rows. Raises StartError."""
    try:
        return Spool(data_dir / "reads")
    except OSError as error:
        raise StartError(f"The folder {data_dir / 'reads'} cannot be used: {error.strerror}.") from error


def policies_of(settings: Settings) -> dict[str, str]:
    """By tenant, where it has one. Raises StartError."""
    found = {}
    for name, tenant in settings.tenants.items():
        if tenant.policy_file is None:
            continue
        try:
            found[name] = tenant.policy_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise StartError(f"tenants.{name}.policy_file {tenant.policy_file} cannot be read: {error}.") from error
    return found


def model_of(stack: AsyncExitStack, settings: Settings) -> ModelClient | str:
    """The client, or why there is none."""
    if settings.openai_api_key is None and settings.openai_base_url is None:
        return NOT_CONFIGURED
    from gateway.agent.model import ModelClient  # takes a second to load

    model = ModelClient.from_settings(settings)
    stack.push_async_callback(model.close)
    return model


async def checker_of(stack: AsyncExitStack, settings: Settings, folder: Path, registry: Registry) -> Checker:
    """It gets ready beside all else: cells that come before it is are checked a little later."""
    stubs = folder / "check"
    stubs.mkdir(mode=0o700, exist_ok=True)
    stack.callback(shutil.rmtree, stubs, ignore_errors=True)
    checker = Checker(settings.check, stubs)
    stack.push_async_callback(checker.close)
    stack.push_async_callback(cancelled, asyncio.create_task(checker.warm(registry)))
    return checker


async def cancelled(task: asyncio.Task[None]) -> None:
    """End it."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def registry_of(settings: Settings) -> Registry:
    """The tools: the built-in ones, and those of `tools_dir`. Raises StartError."""
    try:
        return load_registry(settings.tools_dir)
    except FileNotFoundError as error:
        raise StartError(f"tools_dir: {error}") from error


def check_everyday_tools(settings: Settings, registry: Registry) -> None:
    """Those that the prompt is to hold are there. Raises StartError."""
    try:
        for name in settings.agent.everyday_tools:
            registry.get(name)
    except ToolNotFound as error:
        raise StartError(f"agent.everyday_tools: {error.message}") from error
