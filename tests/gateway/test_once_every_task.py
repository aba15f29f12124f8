"""Every write of every task of the retail data, disturbed in every way at every point: applied once.

Undisturbed, a call passes some points: asked; before (decided, journaled); executing (journaled); each request that
has changed the shop; sent (the shop has answered); after (journaled, not answered). For every one of them the call is
made anew on journal and shop as it found them, and stopped there:

- gateway: it dies, its kernel lives and asks the next gateway under the same id;
- both: the kernel dies with it, and its cell runs again from the start;
- kernel: it dies, the gateway goes on, and the cell runs again.

And every request that changes the shop loses its answer, gets lost itself, or is the last that the shop answers before
it is gone for a while. Each time journal and whole shop must be as after the undisturbed call, and so must be what the
kernel is told; then what follows is no different either, and the next call is tried from there.

`EXACTLY_ONCE=all` (`make test-exactly-once`) does all of that for every write. Without it, the gateway dies at every
point of every write, but for "asked" and "sent", where it leaves the same as at the point before, and which take turns;
so do the others' deaths and the shop's faults, one each a write. A read, which changes
nothing, is disturbed in one way, by turns.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from crash_bench import Before, Fault, Gateway, ShopHere
from retail_tasks import script_of, tasks_with_writes

from demo import tau
from demo.model.script import Call
from gateway.broker.behind import WriteBehind
from gateway.broker.one_call import Outcome
from gateway.db import Database
from gateway.types import Grant
from servers.registry import Registry, load_registry

#: Tests of so many tasks each, to be run at once.
CHUNKS = 8
FAULTS: tuple[Fault, ...] = ("answer lost", "request lost", "shop gone")
VICTIMS = ("gateway", "both", "kernel")
ALL = os.environ.get("EXACTLY_ONCE") == "all"

#: A victim and its point, or a fault and the number of its request.
Way = tuple[str, str | int]

_SHOP: list[ShopHere] = []
_REGISTRY: list[Registry] = []


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> ShopHere:
    """One for all, for its seed takes a second to make; in a world without time, so that states can be compared."""
    for module in ("store", "routes", "staff"):
        monkeypatch.setattr(f"demo.shop.{module}.now", lambda: "2026-11-29T00:00:00")
    if not _SHOP:
        _SHOP.append(ShopHere())
        _REGISTRY.append(load_registry())
    _SHOP[0].store.reset()
    return _SHOP[0]


@dataclass
class Came:
    """What a call came to, for the kernel, in the journal and in the shop."""

    told: tuple[str | None, Any]
    journal: list[dict[str, Any]]
    customer: int | None
    shop: dict[str, Any]


@dataclass
class Turns:
    """What of all possible ways is tried next, and what was tried."""

    start: int = 0
    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    tried: list[tuple[str, *Way]] = field(default_factory=list)

    def choose(self, tool: str, effect: str, points: Sequence[str]) -> list[Way]:
        writes = sum(point.startswith("request") for point in points)
        deaths = {victim: [(victim, point) for point in points] for victim in VICTIMS}
        faults: list[Way] = [(fault, number) for fault in FAULTS for number in range(1, writes + 1)]
        every: list[Way] = [way for ways in deaths.values() for way in ways] + faults
        if effect == "read":
            ways = [self._one(tool, "read", every)]
        elif ALL:
            ways = every
        else:
            alike = [way for way in deaths["gateway"] if way[1] in ("asked", "sent")]
            others = {"both": deaths["both"], "kernel": deaths["kernel"], "fault": faults, "alike": alike}
            ways = [way for way in deaths["gateway"] if way not in alike]
            ways += [self._one(tool, kind, each) for kind, each in others.items() if each]
        self.tried += [(tool, *way) for way in ways]
        return ways

    def _one(self, tool: str, kind: str, ways: Sequence[Way]) -> Way:
        self.taken[tool, kind] += 1
        return ways[(self.start + self.taken[tool, kind]) % len(ways)]


class Trial:
    """One task's calls in one session, as one cell."""

    def __init__(self, database: Database, shop: ShopHere, reads: WriteBehind, grant: Grant, turns: Turns) -> None:
        self._database, self._shop, self._reads, self._grant, self._turns = database, shop, reads, grant, turns
        self._made: list[Call] = []
        self._ids = itertools.count(1)

    async def run(self, calls: list[Call]) -> None:
        for call in calls:
            await self._try(call)
            self._made.append(call)

    async def _try(self, call: Call) -> None:
        before = await self._before()
        quiet = self._gateway()
        expected = await self._end(await self._first(quiet, call))
        points, effect = quiet.life.passed, _REGISTRY[0].get(call.tool).effect
        assert points[0] == ("before" if effect == "read" else "asked")
        assert points[-1] == "after"
        for what, where in self._turns.choose(call.tool, effect, points):
            await self._go_back(before)
            if what in VICTIMS:
                outcome = await getattr(self, f"_{what}_dies")(call, where)
            else:
                outcome = await self._with_fault(call, what, where)
            assert await self._end(outcome) == expected, f"{call}: {what}, {where}"

    def _gateway(self, **options: Any) -> Gateway:
        return Gateway(_REGISTRY[0], self._database, self._shop, self._reads, **options)

    async def _call(self, gateway: Gateway, call: Call, request: str) -> Outcome:
        return await gateway.call(self._grant, call.tool, dict(call.arguments), request)

    async def _first(self, gateway: Gateway, call: Call) -> Outcome:
        await gateway.calls.begin(self._grant.session, "c1", resume=True)
        return await self._call(gateway, call, self._request())

    async def _stopped(self, gateway: Gateway, call: Call, request: str) -> asyncio.Task[Outcome]:
        """The call, on its way, at the point where the gateway stops."""
        await gateway.calls.begin(self._grant.session, "c1", resume=True)
        asking = asyncio.create_task(self._call(gateway, call, request))
        await asyncio.wait_for(gateway.life.reached.wait(), 60)
        return asking

    async def _gateway_dies(self, call: Call, point: str) -> Outcome:
        gateway, request = self._gateway(die_at=point), self._request()
        asking = await self._stopped(gateway, call, request)
        await gateway.die()
        await asyncio.gather(asking, return_exceptions=True)
        following = self._gateway()
        await following.calls.begin(self._grant.session, "c1", resume=True)
        return await self._call(following, call, request)

    async def _both_dies(self, call: Call, point: str) -> Outcome:
        gateway = self._gateway(die_at=point)
        asking = await self._stopped(gateway, call, self._request())
        await gateway.die()
        await asyncio.gather(asking, return_exceptions=True)
        return await self._again(self._gateway(), call)

    async def _kernel_dies(self, call: Call, point: str) -> Outcome:
        gateway = self._gateway(die_at=point)
        asking = await self._stopped(gateway, call, self._request())
        asking.cancel()
        gateway.life.go_on.set()
        await asyncio.gather(asking, return_exceptions=True)
        await gateway.calls.end(self._grant.session)
        return await self._again(gateway, call)

    async def _again(self, gateway: Gateway, call: Call) -> Outcome:
        """The cell, from its first call on."""
        await self._database.execute("DELETE FROM request")  # as its row does it
        await gateway.calls.begin(self._grant.session, "c1")
        for made in self._made:
            await self._call(gateway, made, self._request())
        return await self._call(gateway, call, self._request())

    async def _with_fault(self, call: Call, fault: Any, number: Any) -> Outcome:
        """Made once more by its cell, where it was told that nobody knows."""
        outcome = await self._first(self._gateway(fault=fault, number=number), call)
        if outcome.record.state == "unknown":
            outcome = await self._first(self._gateway(), call)
        return outcome

    def _request(self) -> str:
        return f"kernel-{next(self._ids)}"

    async def _before(self) -> Before:
        row = await self._database.fetch_one(
            "SELECT customer, (SELECT coalesce(max(id), 0) FROM call) AS last FROM session WHERE id = %s",
            (self._grant.session,),
        )
        assert row is not None
        return Before(self._shop.store.snapshot(), row["last"], row["customer"])

    async def _go_back(self, before: Before) -> None:
        self._shop.store.restore(before.shop)
        await self._database.execute(
            "WITH undone AS (DELETE FROM call WHERE id > %s) UPDATE session SET customer = %s WHERE id = %s",
            (before.last_call, before.customer, self._grant.session),
        )

    async def _end(self, outcome: Outcome) -> Came:
        await self._reads.flush(self._grant.session)
        journal = await self._database.fetch(
            "SELECT cell, tool, args, occurrence, effect, call.state, result, error, customer FROM call"
            " JOIN session ON session.id = call.session WHERE session = %s ORDER BY call.id",
            (self._grant.session,),
        )
        return Came((outcome.value.text, outcome.error), journal, journal[-1].pop("customer"), self._shop.changed())


@pytest.mark.timeout(3600 if ALL else 600)
@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_every_call_of_every_task_is_made_once(chunk: int, database: Database, shop: ShopHere) -> None:
    turns, tasks = Turns(chunk), tasks_with_writes()[chunk::CHUNKS]
    for task in tasks:
        shop.store.reset()
        await trial(database, shop, task, turns)
    covered = set(turns.tried)
    for tool in ("cancel_order", "change_order_items", "exchange_items", "return_items"):
        for victim in VICTIMS:
            for point in ("asked", "before", "executing", "request 1 applied", "sent", "after"):
                assert (f"woocommerce.{tool}", victim, point) in covered
        for fault in FAULTS:
            assert (f"woocommerce.{tool}", fault, 1) in covered
    print(f"{len(tasks)} tasks, disturbed in {len(turns.tried)} ways")


async def trial(database: Database, shop: ShopHere, task: tau.Task, turns: Turns) -> None:
    grant = Grant(tenant="shop", principal="chat", session=f"task-{task.id}", role="agent")
    await database.execute(
        "INSERT INTO session (id, tenant, principal, role, state) VALUES (%s, %s, %s, %s, 'live')",
        (grant.session, grant.tenant, grant.principal, grant.role),
    )
    reads = WriteBehind(database.dedicated)
    try:
        one = Trial(database, shop, reads, grant, turns)
        await one.run([call for call, _ in script_of(task).calls if call.tool != "support.hand_over"])
    finally:
        await reads.close(10)


async def test_a_write_that_does_not_look_for_an_earlier_attempt_is_caught(
    database: Database, shop: ShopHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servers.woocommerce.once.stamp_of", lambda raw, key: None)
    with pytest.raises(AssertionError, match="gateway, request 1 applied"):
        await trial(database, shop, tasks_with_writes()[0], Turns())
