"""Whether work may be sent to this gateway: each condition is tried for real, within a time of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from gateway.db import Database
from gateway.operations.draining import Drain
from gateway.settings import ReadySettings
from kernel_pool.pool import Pool

log = structlog.get_logger(__name__)

#: Tried in the data folder: a page's size or two.
_PROBE = b"\0" * 8192

#: What is wrong, for people; "" for nothing.
Why = str


class Readiness:
    """Conditions by name. An answer holds for `again_s`, so that who asks often costs no more than who does not."""

    def __init__(
        self, settings: ReadySettings, drain: Drain, conditions: Mapping[str, Callable[[], Awaitable[Why]]]
    ) -> None:
        """That the gateway is not `drain`ing is the first condition, and told at once."""
        self._settings = settings
        self._drain = drain
        self._conditions = conditions
        self._asked = float("-inf")
        self._under_way: asyncio.Task[None] | None = None
        #: What is tried of each; one that hangs is not tried beside itself.
        self._tries: dict[str, asyncio.Future[Why]] = {}
        #: The last answer.
        self.latest: dict[str, Why] = {}

    async def ask(self) -> Mapping[str, Why]:
        """What keeps each condition from holding."""
        if time.monotonic() - self._asked >= self._settings.again_s:
            if self._under_way is None or self._under_way.done():
                self._under_way = asyncio.create_task(self._try_all())
            await asyncio.shield(self._under_way)
        return {"running": "the gateway is stopping" if self._drain.begun else "", **self.latest}

    async def _try_all(self) -> None:
        found = await asyncio.gather(*(self._try(name) for name in self._conditions))
        latest = dict(zip(self._conditions, found, strict=True))
        if changed := {name: why for name, why in latest.items() if why != self.latest.get(name, "")}:
            log.info("readiness has changed", **changed)
        self.latest, self._asked = latest, time.monotonic()

    async def _try(self, name: str) -> Why:
        trying = self._tries.get(name)
        if trying is None or trying.done():
            trying = self._tries[name] = asyncio.ensure_future(self._conditions[name]())
        done, _ = await asyncio.wait([trying], timeout=self._settings.timeout_s)
        if not done:
            return f"no answer within {self._settings.timeout_s:g} s"
        try:
            return trying.result()
        except Exception as error:  # noqa: BLE001 - the boundary: whatever failed, the condition does not hold
            log.error("a condition could not be tried", condition=name, error=str(error))
            return "it could not be tried; the log has the reason"


def readiness_of(
    settings: ReadySettings, database: Database, pool: Pool, drain: Drain, data_dir: Path, runtime: Path
) -> Readiness:
    """The conditions of a gateway."""
    free = settings.free_mb * 2**20

    async def reachable() -> Why:
        try:
            await database.fetch_one("SELECT 1")
        except (psycopg.OperationalError, PoolTimeout):
            return "the database cannot be reached"
        return ""

    async def leasable() -> Why:
        return why_no_lease(pool)

    async def writable() -> Why:
        return await asyncio.to_thread(why_not_writable, data_dir, runtime, free)

    return Readiness(settings, drain, {"database": reachable, "kernels": leasable, "storage": writable})


def why_no_lease(pool: Pool) -> Why:
    """Why a lease that came now would get no kernel."""
    status = pool.status()
    if status.ready:
        return ""
    if status.leased >= status.maximum:
        return f"all {status.maximum} kernels are in use (pool.maximum)"
    if status.problem:
        return "kernels do not start; GET /v1/status has the reason"
    return ""


def why_not_writable(data_dir: Path, runtime: Path, free: int) -> Why:
    """Blocks. `free`: bytes that each of the folders is to have left."""
    for name, folder in (("data", data_dir), ("runtime", runtime)):
        try:
            left = shutil.disk_usage(folder).free
            _write(folder / f".ready-{secrets.token_hex(4)}")
        except OSError as error:
            return f"the {name} folder cannot be written: {error.strerror}"
        if left < free:
            return f"the {name} folder has {left // 2**20} MiB left; ready.free_mb is {free // 2**20}"
    return ""


def _write(path: Path) -> None:
    try:
        with open(path, "xb", buffering=0) as file:
            written = file.write(_PROBE)
            if written != len(_PROBE):
                raise OSError(28, os.strerror(28))
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
