"""A broker that asks people, and the people, on a real database and real sockets; the clock is the test's."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import counting
import httpx

from gateway.approvals.desk import Desk, Person
from gateway.approvals.gate import Gate
from gateway.approvals.reverts import Reverts
from gateway.approvals.rows import ApprovalRows
from gateway.approvals.types import Approval
from gateway.broker import Broker, Contexts, Journal
from gateway.db import Database
from gateway.settings import BrokerSettings, Settings, load_settings
from gateway.tool_catalogue import Catalogue
from gateway.types import CallRecord, Grant
from kernel_pool.sandbox.client import BrokerClient, CallFailed

ANNA = Person("approver:anna", None, decides=True)
BORIS = Person("approver:boris", None, decides=True)


@dataclass
class Clock:
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **time: float) -> None:
        self.now += timedelta(**time)


@dataclass
class People:
    """One gateway's broker and desk."""

    database: Database
    folder: Path
    http: httpx.AsyncClient
    clock: Clock
    settings: Settings
    gate: Gate = field(init=False)
    broker: Broker = field(init=False)
    desk: Desk = field(init=False)
    reverts: Reverts = field(init=False)

    def __post_init__(self) -> None:
        rows = ApprovalRows(self.database)
        self.gate = Gate(rows, self.settings, clock=self.clock)
        contexts = Contexts(self.settings, self.database, self.http)
        catalogue = Catalogue(counting.registry())
        self.broker = Broker(catalogue, Journal(self.database), contexts, BrokerSettings(settle_s=5), gate=self.gate)
        self.desk = Desk(
            rows, self.settings.approvals, decided=lambda id: self.gate.waiting.wake([id]), clock=self.clock
        )
        self.reverts = Reverts(self.database, catalogue.tool, self.broker.by_person)

    def another(self) -> People:
        """Another gateway on the same database."""
        return People(self.database, self.folder, self.http, self.clock, self.settings)

    async def session(self, cell: str = "c1", *, tenant: str = "shop", role: Any = "operator") -> Cell:
        """A session whose cell is running, as its kernel sees the broker."""
        grant = Grant(tenant=tenant, principal="operator", session=f"s{secrets.token_hex(4)}", role=role)
        await self.database.execute(
            "INSERT INTO session (id, tenant, principal, role, state) VALUES (%s, %s, 'operator', %s, 'live')",
            (grant.session, tenant, role),
        )
        return await self.arm(grant, cell)

    async def arm(self, grant: Grant, cell: str = "c1", **options: Any) -> Cell:
        (self.folder / grant.session).mkdir(exist_ok=True)
        path = self.folder / grant.session / "broker.sock"
        await self.broker.arm(path, grant)
        await self.broker.begin_cell(grant.session, cell, **options)
        return Cell(self, grant, cell, BrokerClient(str(path)))

    async def asked(self, session: str, calls: int = 1) -> Approval:
        """The request that waits, as soon as it does."""
        async with asyncio.timeout(30):
            while True:
                found = await self.desk.find(ANNA, session=session, state="pending")
                if found and len(found[0].calls) == calls:
                    return found[0]
                await asyncio.sleep(0.01)

    async def total(self, name: str) -> int:
        row = await self.database.fetch_one(
            "SELECT coalesce(sum(amount), 0)::int AS n FROM effect WHERE name = %s", (name,)
        )
        return row["n"] or 0 if row else 0


@dataclass
class Cell:
    """A cell under way."""

    people: People
    grant: Grant
    id: str
    client: BrokerClient

    @property
    def session(self) -> str:
        return self.grant.session

    def call(self, tool: str, **args: object) -> Awaitable[Any]:
        return asyncio.ensure_future(asyncio.to_thread(self.client.call, f"counting.{tool}", args))

    def batch(self, title: str, *calls: tuple[str, dict[str, object]]) -> Awaitable[Any]:
        listed = [{"tool": f"counting.{tool}", "args": args} for tool, args in calls]
        return asyncio.ensure_future(
            asyncio.to_thread(self.client.call, "approvals.batch", {"title": title, "calls": listed})
        )

    async def again(self, id: str = "", **options: Any) -> tuple[CallRecord, ...]:
        """End the cell and begin it, or another one."""
        records = await self.people.broker.end_cell(self.session)
        self.id = id or self.id
        await self.people.broker.begin_cell(self.session, self.id, **options)
        return records

    async def rows(self) -> list[tuple[str, str]]:
        found = await self.people.database.fetch(
            "SELECT tool, state FROM call WHERE session = %s ORDER BY id", (self.session,)
        )
        return [(row["tool"].removeprefix("counting."), row["state"]) for row in found]


async def failure(call: Awaitable[Any]) -> Any:
    """The error of a call that must fail."""
    try:
        value = await call
    except CallFailed as failed:
        return failed.error
    raise AssertionError(f"no error, but {value!r}")


def settings(folder: Path, **approvals: Any) -> Settings:
    values = {"hold_s": 60, "hold_chat_s": 60, "look_s": 0.02, **approvals}
    return load_settings(data_dir=folder, approvals=values, tenants={"shop": {}, "other": {}})


Make = Callable[..., People]
