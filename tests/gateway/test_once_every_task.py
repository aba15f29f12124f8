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

`EXACTLY_ONCE=all` (`make test-exactly-once`) does all of that for every write of every task. Without it, it is done for
every tool that writes, on the writes of a few tasks. A read, which changes nothing, is disturbed in one way, by turns.
"""

from __future__ import annotations

import asyncio
import itertools
import os
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
#: Those that the tasks change the shop with, and that stamp what they do there.
TOOLS = (
    "woocommerce.cancel_order",
    "woocommerce.change_order_address",
    "woocommerce.change_order_items",
    "woocommerce.change_order_payment",
    "woocommerce.exchange_items",
    "woocommerce.return_items",
)

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
class Ways:
    """What of all possible ways is tried, and what was."""

    #: The tool whose writes are disturbed, in all ways; None: every tool.
    tool: str | None = None
    turn: int = 0
    tried: set[tuple[str, *Way]] = field(default_factory=set)
    count: int = 0

    def choose(self, tool: str, effect: str, points: Sequence[str]) -> list[Way]:
        writes = sum(point.startswith("request") for point in points)
        every: list[Way] = [(victim, point) for victim in VICTIMS for point in points]
        every += [(fault, number) for fault in FAULTS for number in range(1, writes + 1)]
        if effect == "read":
            self.turn += 1
            every = [every[self.turn % len(every)]]
        elif self.tool not in (None, tool):
            every = []
        self.tried.update((tool, *way) for way in every)
        self.count += len(every)
        return every

    def check(self, tool: str) -> None:
        """No way was left out, of a write that the shop made."""
        for victim in VICTIMS:
            for point in ("asked", "before", "executing", "request 1 applied", "sent", "after"):
                assert (tool, victim, point) in self.tried
        for fault in FAULTS:
            assert (tool, fault, 1) in self.tried


class Trial:
    """One task's calls in one session, as one cell."""

    def __init__(self, database: Database, shop: ShopHere, reads: WriteBehind, grant: Grant, ways: Ways) -> None:
        self._database, self._shop, self._reads, self._grant, self._ways = database, shop, reads, grant, ways
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
        for what, where in self._ways.choose(call.tool, effect, points):
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


if ALL:

    @pytest.mark.timeout(3600)
    @pytest.mark.parametrize("chunk", range(CHUNKS))
    async def test_every_call_of_every_task_is_made_once(chunk: int, database: Database, shop: ShopHere) -> None:
        ways, tasks = Ways(turn=chunk), tasks_with_writes()[chunk::CHUNKS]
        for task in tasks:
            await trial(database, shop, task, ways)
        for tool in TOOLS:
            if (tool, FAULTS[0], 1) in ways.tried:  # else the shop makes none in these tasks
                ways.check(tool)
        print(f"{len(tasks)} tasks, disturbed in {ways.count} ways")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tool", TOOLS)
async def test_every_kind_of_write_is_made_once_however_it_is_disturbed(
    tool: str, database: Database, shop: ShopHere
) -> None:
    ways = Ways(tool, turn=TOOLS.index(tool))
    for task in sample(tool):
        await trial(database, shop, task, ways)
    ways.check(tool)


def sample(tool: str) -> list[tau.Task]:
    """Two short tasks with a write of the tool, and one that moves money on a gift card."""
    found = []
    for task in tasks_with_writes():
        calls = [call for call, refused in script_of(task).calls if not refused]
        mine = [call for call in calls if call.tool == tool and not _twice(call)]
        if mine:
            card = any("gift_card" in str(call.arguments.get("payment_method_id")) for call in mine)
            found.append((len(calls), task.id, card, task))
    short = sorted(found, key=lambda each: each[:2])
    chosen = [each for each in short if each[2]][:1] + [each for each in short if not each[2]][:2]
    return [task for *_, task in chosen]


def _twice(call: Call) -> bool:
    """The shop refuses what names a thing twice."""
    items = call.arguments.get("item_ids", [])
    return len(set(items)) < len(items)


async def trial(database: Database, shop: ShopHere, task: tau.Task, ways: Ways) -> None:
    grant = Grant(tenant="shop", principal="chat", session=f"task-{task.id}", role="agent")
    await database.execute(
        "INSERT INTO session (id, tenant, principal, role, state) VALUES (%s, %s, %s, %s, 'live')",
        (grant.session, grant.tenant, grant.principal, grant.role),
    )
    reads = WriteBehind(database.dedicated)
    shop.store.reset()
    try:
        one = Trial(database, shop, reads, grant, ways)
        await one.run([call for call, _ in script_of(task).calls if call.tool != "support.hand_over"])
    finally:
        await reads.close(10)


async def test_a_write_that_does_not_look_for_an_earlier_attempt_is_caught(
    database: Database, shop: ShopHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servers.woocommerce.once.stamp_of", lambda raw, key: None)
    with pytest.raises(AssertionError, match="gateway, request 1 applied"):
        await trial(database, shop, tasks_with_writes()[0], Ways())
