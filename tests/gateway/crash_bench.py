"""Gateways that stop dead at any point of a call, one after the other on one journal and one shop, in this process.

A killed gateway leaves what is durable, its journal and the shop, and nothing else. So one that never goes on from a
point, and that nobody hears of again, is as good as killed there, and costs a thousandth. That real kills are no
different is seen by `test_once_processes.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import gateway_world
import httpx

from demo import tau
from demo.shop.app import create_app
from demo.shop.auth import Key
from demo.shop.seed import build
from demo.shop.store import Snapshot, Store
from gateway.broker.behind import Read, WriteBehind
from gateway.broker.calls import Calls
from gateway.broker.contexts import Contexts
from gateway.broker.journal import Journal, Row
from gateway.broker.one_call import Outcome
from gateway.db import Database
from gateway.settings import BrokerSettings, Settings, load_settings
from gateway.tool_catalogue import Catalogue
from gateway.types import Boundary, CallRecord, Grant
from servers.registry import Registry

KEY = Key(gateway_world.KEY, gateway_world.SECRET)

#: What becomes of a request that changes the shop: its answer is lost; it is lost itself; the first, and from then on
#: the shop is not to be reached.
Fault = Literal["answer lost", "request lost", "shop gone"]


class ShopHere:
    """The retail shop in this process."""

    def __init__(self) -> None:
        self.store = Store(build(tau.load_data()))
        self.app = create_app(self.store, [KEY], "controls")

    def changed(self) -> dict[str, Any]:
        """Everything that differs from its start."""
        return self.store.written()


@dataclass
class Life:
    """A gateway, from its start to its death at the point `at`, if there is one."""

    at: str = ""
    #: The points that it passed, in order.
    passed: list[str] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set where it is not the gateway that dies at the point.
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    dead: bool = False

    async def pass_by(self, point: str) -> None:
        self.passed.append(point)
        if point == self.at:
            self.reached.set()
            await self.go_on.wait()


class Reads:
    """The rows of reads, all written over one connection; of a dead gateway none."""

    def __init__(self, shared: WriteBehind, life: Life) -> None:
        self._shared, self._life = shared, life

    async def put(self, read: Read) -> None:
        if not self._life.dead:
            await self._shared.put(read)

    async def flush(self, session: str) -> None:
        await self._shared.flush(session)


class MortalJournal(Journal):
    """Nothing that a dead gateway does comes to the database."""

    def __init__(self, database: Database, life: Life, reads: WriteBehind | None = None) -> None:
        super().__init__(database)
        self._life = life
        if reads is not None:
            self.reads = Reads(reads, life)  # type: ignore[assignment]

    async def claim(self, *args: Any, **kwargs: Any) -> Row:
        await self._life.pass_by("asked")
        row = await super().claim(*args, **kwargs)
        if row.goes_out:
            await self._life.pass_by("executing")
        return row

    async def executing(self, row: Row, session: str = "", fence: int | None = None) -> None:
        await super().executing(row, session, fence)
        await self._life.pass_by("executing")

    async def finish(self, *args: Any, **kwargs: Any) -> tuple[datetime, datetime]:
        if self._life.dead:
            return datetime.now(UTC), datetime.now(UTC)
        return await super().finish(*args, **kwargs)


class WayToShop(httpx.AsyncBaseTransport):
    """Requests that change the shop are counted, and one of them may go wrong."""

    def __init__(self, shop: httpx.AsyncBaseTransport, life: Life, fault: Fault | None = None, number: int = 0) -> None:
        self._shop = shop
        self._life = life
        self._fault, self._number = fault, number
        self._gone = False
        #: Since the call began, where several are made.
        self.writes = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._gone:
            raise httpx.ConnectError("nobody there")
        if request.method == "GET":
            return await self._shop.handle_async_request(request)
        self.writes += 1
        fault = self._fault if self.writes == self._number else None
        self._gone = fault == "shop gone"
        if fault == "request lost":
            raise httpx.ReadError("lost")
        response = await self._shop.handle_async_request(request)
        await self._life.pass_by(f"request {self.writes} applied")
        if fault:
            raise httpx.ReadError("lost")
        return response


def settings_with(shop_url: str) -> Settings:
    """Of a gateway whose tenant `shop` has that shop, which is not spared."""
    keys = {"consumer_key": gateway_world.KEY, "consumer_secret": gateway_world.SECRET}
    shop = {"url": shop_url, **keys, "in_flight": 64, "requests_per_s": 1e6}
    return load_settings(tenants={"shop": {"shop": shop}})


SETTINGS = settings_with("https://shop")


class Gateway:
    """The part of one that makes calls."""

    def __init__(
        self,
        registry: Registry,
        database: Database,
        shop: ShopHere,
        reads: WriteBehind,
        *,
        die_at: str = "",
        fault: Fault | None = None,
        number: int = 0,
    ) -> None:
        self.life = Life(die_at)
        way = WayToShop(httpx.ASGITransport(shop.app), self.life, fault, number)
        http = httpx.AsyncClient(transport=way, trust_env=False)
        journal = MortalJournal(database, self.life, reads)
        contexts = Contexts(SETTINGS, database, http)
        self.calls = Calls(Catalogue(registry), journal, contexts, BrokerSettings(), [self._observe])

    async def _observe(self, boundary: Boundary, record: CallRecord) -> None:
        await self.life.pass_by(boundary)

    async def call(self, grant: Grant, tool: str, args: dict[str, Any], request: str) -> Outcome:
        return await self.calls.call(grant, tool, dict(args), request=request)

    async def die(self) -> None:
        """Nothing of it goes on, and what it held is free, as a process's locks are."""
        self.life.dead = True
        flights = [flight.task for flight in self.calls._flights.all]
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)


@dataclass(frozen=True)
class Before:
    """Journal, session and shop as a call found them."""

    shop: Snapshot
    last_call: int
    customer: int | None
