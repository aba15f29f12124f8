"""What tools have answered, per tenant: learned beside the calls, kept in the database, shown as return types.

A call only puts its result into a queue, and leaves it out where that is full. Gateways on one database learn together:
each adds to the row what it has seen since it last wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import psycopg
import structlog
from psycopg.types.json import Jsonb

from gateway.db import Database
from gateway.settings import ObservingSettings
from gateway.types import Grant
from servers.foreign.observing import ObservingLimits, Seen, merged, observe, with_observed
from servers.tool import Tool

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Place:
    tenant: str
    tool: str
    digest: str


class ObservedShapes:
    """`open` first, `close` last. `changed(tenant)` is called when a tenant's stubs may look different."""

    def __init__(self, database: Database, settings: ObservingSettings) -> None:
        self._database = database
        self._settings = settings
        self._limits = ObservingLimits(settings.depth, settings.keys, settings.items, settings.values)
        self._queue: asyncio.Queue[tuple[_Place, object]] = asyncio.Queue(settings.waiting)
        self._known: dict[_Place, Seen] = {}
        self._new: dict[_Place, Seen] = {}
        self._told: dict[_Place, Seen] = {}
        self._writing = asyncio.Lock()
        self._work: asyncio.Task[None] | None = None
        self.changed: Callable[[str], None] = lambda tenant: None

    async def open(self) -> None:
        """Read what is known, and begin to learn."""
        rows = await self._database.fetch("SELECT tenant, tool, digest, shape FROM observed_shape")
        for row in rows:
            place = _Place(row["tenant"], row["tool"], row["digest"])
            self._known[place] = self._told[place] = msgspec.convert(row["shape"], Seen)
        self._work = asyncio.create_task(self._learn())

    async def close(self) -> None:
        """Write what was learned."""
        if self._work is not None:
            self._work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._work
        while not self._queue.empty():
            place, result = self._queue.get_nowait()
            self._add(place, observe(result, self._limits))
        await self._write()

    def learn(self, grant: Grant, tool: Tool, result: object) -> None:
        """Take a result of a foreign tool that declares none. Returns at once."""
        if tool.foreign is None or tool.foreign.result is not None or not self._settings.enabled:
            return
        place = _Place(grant.tenant, tool.qualified_name, tool.foreign.digest)
        known = self._known.get(place)
        if known is None or known.n < self._settings.results:
            with contextlib.suppress(asyncio.QueueFull):
                self._queue.put_nowait((place, result))

    @property
    def tenants(self) -> frozenset[str]:
        """Those of whose results something is known."""
        return frozenset(place.tenant for place in self._known)

    def shown(self, tenant: str, tool: Tool) -> Tool:
        """The tool with the return type that this tenant's results had."""
        if tool.foreign is None or tool.foreign.result is not None:
            return tool
        seen = self._known.get(_Place(tenant, tool.qualified_name, tool.foreign.digest))
        return tool if seen is None else with_observed(tool, seen)

    async def written(self) -> None:
        """Wait until all that was given so far is known and in the database."""
        await self._queue.join()
        await self._write()

    async def _learn(self) -> None:
        while True:
            place, result = await self._queue.get()
            try:
                # A result may be large: it is looked at in a thread, in bounds.
                seen = await asyncio.to_thread(observe, result, self._limits)
                self._add(place, seen)
            finally:
                self._queue.task_done()
            if self._queue.empty():
                await asyncio.sleep(self._settings.pause_s)  # for others to come: one write for them all
            if self._queue.empty():
                await self._write()

    def _add(self, place: _Place, seen: Seen) -> None:
        new = self._new.get(place)
        self._new[place] = merged(new, seen, self._limits) if new else seen

    async def _write(self) -> None:
        async with self._writing:
            await self._write_new()

    async def _write_new(self) -> None:
        new, self._new = self._new, {}
        tenants = set()
        for place, seen in new.items():
            try:
                whole = await self._merge(place, seen)
            except psycopg.Error as error:
                log.warning("an observed shape could not be kept", tool=place.tool, error=str(error).partition("\n")[0])
                continue
            self._known[place] = whole
            told = self._told.get(place)
            if told is None or whole.n >= 2 * told.n or msgspec.structs.replace(told, n=whole.n) != whole:
                self._told[place] = whole
                tenants.add(place.tenant)
        for tenant in tenants:
            self.changed(tenant)

    async def _merge(self, place: _Place, seen: Seen) -> Seen:
        """Add to the row, which other gateways add to as well; the whole."""
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO observed_shape (tenant, tool, digest, shape) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (tenant, tool) DO NOTHING",
                (place.tenant, place.tool, place.digest, Jsonb({})),
            )
            cursor = await connection.execute(
                "SELECT digest, shape FROM observed_shape WHERE tenant = %s AND tool = %s FOR UPDATE",
                (place.tenant, place.tool),
            )
            row = await cursor.fetchone()
            assert row is not None
            if row["digest"] == place.digest:
                seen = merged(msgspec.convert(row["shape"], Seen), seen, self._limits)
            await connection.execute(
                "UPDATE observed_shape SET digest = %s, shape = %s, changed = clock_timestamp()"
                " WHERE tenant = %s AND tool = %s",
                (place.digest, Jsonb(msgspec.to_builtins(seen)), place.tenant, place.tool),
            )
        return seen
