"""One gateway's broker with counting tools, on a real database and real sockets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import counting
import httpx

from gateway.broker import Broker, Contexts, Journal
from gateway.db import Database
from gateway.settings import BrokerSettings, Settings
from gateway.tool_catalogue import Catalogue
from gateway.types import BoundaryObserver, CallRecord, Grant
from kernel_pool.sandbox.client import BrokerClient


@dataclass
class World:
    """One gateway's broker. `close_broker` and `new_broker` are a restart."""

    database: Database
    settings: Settings
    folder: Path
    http: httpx.AsyncClient
    observers: list[BoundaryObserver] = field(default_factory=list)
    broker: Broker = field(init=False)
    journal: Journal = field(init=False)

    def new_broker(self, **limits: Any) -> Broker:
        settings = BrokerSettings(**{"settle_s": 5, **limits})
        contexts = Contexts(self.settings, self.database, self.http)
        journal = self.journal = Journal(self.database)
        self.broker = Broker(Catalogue(counting.registry()), journal, contexts, settings, [self.observe])
        return self.broker

    async def observe(self, boundary: Any, record: CallRecord) -> None:
        for observer in self.observers:
            await observer(boundary, record)

    async def session(self, name: str = "s1", *, tenant: str = "shop", role: Any = "agent") -> Grant:
        grant = Grant(tenant=tenant, principal="chat", session=name, role=role)
        await self.database.execute(
            "INSERT INTO session (id, tenant, principal, role, state) VALUES (%s, %s, 'chat', %s, 'live')",
            (name, tenant, role),
        )
        return grant

    async def armed(self, name: str = "s1", cell: str = "c1", **options: Any) -> BrokerClient:
        """A session whose cell is running, as its kernel sees the broker."""
        grant = await self.session(name, **options)
        await self.broker.arm(self.path(name), grant)
        await self.broker.begin_cell(name, cell)
        return BrokerClient(str(self.path(name)))

    def path(self, name: str = "s1") -> Path:
        (self.folder / name).mkdir(exist_ok=True)
        return self.folder / name / "broker.sock"

    async def rerun(self, cell: str = "c1", name: str = "s1") -> tuple[CallRecord, ...]:
        """End the cell and begin it again."""
        records = await self.broker.end_cell(name)
        await self.broker.begin_cell(name, cell)
        return records

    async def total(self, name: str) -> int:
        row = await self.database.fetch_one(
            "SELECT coalesce(sum(amount), 0)::int AS n FROM effect WHERE name = %s", (name,)
        )
        return row["n"] or 0 if row else 0

    async def looks(self, name: str) -> int:
        row = await self.database.fetch_one("SELECT count(*)::int AS n FROM look WHERE name = %s", (name,))
        return row["n"] if row else 0

    async def rows(self) -> list[dict[str, Any]]:
        for session in await self.database.fetch("SELECT id FROM session"):
            await self.journal.reads.flush(session["id"])
        return await self.database.fetch("SELECT * FROM call ORDER BY id")
