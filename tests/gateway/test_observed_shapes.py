"""Return types learned beside the calls: by tenant, by definition, by several gateways, off the call's way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.broker import Broker, Contexts, Journal
from gateway.db import Database
from gateway.observed_shapes import ObservedShapes
from gateway.settings import BrokerSettings, ObservingSettings, Settings
from gateway.tool_catalogue import Catalogue
from gateway.types import Grant
from servers.foreign.record import Definition
from servers.foreign.tool import foreign_tool
from servers.registry import Registry
from servers.tool import EVERYBODY, Tool


async def answer(ctx: object, args: dict[str, Any]) -> Any:
    return args["value"]


def tool(**more: Any) -> Tool:
    schema = {"type": "object", "properties": {"value": {}}}
    return foreign_tool(
        "things", Definition("get", "Get it.", schema, **more), call=answer, effect="read", roles=EVERYBODY
    )


def grant(tenant: str) -> Grant:
    return Grant(tenant=tenant, principal="p", session=f"s-{tenant}", role="operator")


@pytest.fixture
async def shapes(database: Database) -> AsyncIterator[ObservedShapes]:
    made = ObservedShapes(database, ObservingSettings())
    await made.open()
    yield made
    await made.close()


def returns(shapes: ObservedShapes, tenant: str, of: Tool | None = None) -> str:
    return shapes.shown(tenant, of or tool()).signature.rpartition(" -> ")[2]


async def test_each_tenant_has_its_own(shapes: ObservedShapes) -> None:
    shapes.learn(grant("one"), tool(), {"id": 1})
    shapes.learn(grant("two"), tool(), ["a"])
    await shapes.written()
    assert (returns(shapes, "one"), returns(shapes, "two"), returns(shapes, "three")) == (
        "GetResult",
        "list[str]",
        "Any",
    )


async def test_what_is_learned_outlives_the_gateway_and_is_added_to_by_others(
    database: Database, shapes: ObservedShapes
) -> None:
    other = ObservedShapes(database, ObservingSettings())
    await other.open()
    shapes.learn(grant("one"), tool(), {"id": 1})
    await shapes.written()
    other.learn(grant("one"), tool(), {"name": "Anna"})
    await other.close()
    third = ObservedShapes(database, ObservingSettings())
    await third.open()
    await third.close()
    shown = third.shown("one", tool()).foreign
    assert shown is not None
    assert shown.observed == 2
    assert [key.name for key in shown.types[0].keys] == ["id", "name"]


async def test_another_definition_is_learned_anew(shapes: ObservedShapes) -> None:
    shapes.learn(grant("one"), tool(), {"id": 1})
    changed = tool(annotations={"title": "Other"})
    assert returns(shapes, "one", changed) == "Any"
    shapes.learn(grant("one"), changed, "text")
    await shapes.written()
    assert returns(shapes, "one", changed) == "str"


async def test_no_value_is_in_the_database(database: Database, shapes: ObservedShapes) -> None:
    shapes.learn(grant("one"), tool(), {"email": "anna@example.com", "by": {"anna@example.com": "Meier"}})
    await shapes.written()
    kept = str(await database.fetch("SELECT * FROM observed_shape"))
    assert "email" in kept
    assert "anna" not in kept
    assert "Meier" not in kept


async def test_change_is_told_and_sameness_is_not(shapes: ObservedShapes) -> None:
    told: list[str] = []
    shapes.changed = told.append
    heard = []
    for result in ({"id": 1}, {"id": 2}, {"id": 3}, {"id": "x"}):
        shapes.learn(grant("one"), tool(), result)
        await shapes.written()
        heard.append(len(told))
    assert heard == [1, 2, 2, 3]  # the first, twice as many as were told, no news, another type


async def test_catalogue_shows_a_tenant_what_its_own_results_were(shapes: ObservedShapes) -> None:
    catalogue = Catalogue(Registry([], {}), shapes)
    shapes.changed = catalogue.renew
    catalogue.put("", [tool(), tool_with_result()], {"things": "Things."})
    everyone = catalogue.of_tenant("two")
    assert everyone is catalogue.of_tenant("")
    shapes.learn(grant("one"), tool(), {"id": 1})
    await shapes.written()
    assert catalogue.of_tenant("one").get("things.get").signature.endswith("-> GetResult")
    assert "class GetResult(TypedDict)" in catalogue.of_tenant("one").pyi("things")
    assert catalogue.of_tenant("two") is everyone
    assert "class" not in everyone.pyi("things")


async def test_full_queue_holds_nobody_up(database: Database) -> None:
    shapes = ObservedShapes(database, ObservingSettings(waiting=2))
    for number in range(10):
        shapes.learn(grant("one"), tool(), number)
    await shapes.open()
    await shapes.close()
    shown = shapes.shown("one", tool()).foreign
    assert shown is not None
    assert shown.observed == 2


async def test_broker_has_its_results_learned(database: Database, shapes: ObservedShapes) -> None:
    registry = Registry([tool(), tool_with_result()], {"things": ""})
    async with httpx.AsyncClient() as http:
        contexts = Contexts(Settings(), database, http)
        broker = Broker(Catalogue(registry), Journal(database), contexts, BrokerSettings(), learn=shapes.learn)
        session = grant("one")
        await database.execute(
            "INSERT INTO session (id, tenant, principal, role, state) VALUES (%s, 'one', 'p', 'operator', 'live')",
            (session.session,),
        )
        await broker.begin_cell(session.session, "c1")
        await broker.call(session, "things.get", {"value": {"id": 1}})
        await broker.call(session, "things.declared", {"value": {"id": 1}})
        await broker.close()
    await shapes.written()
    assert returns(shapes, "one") == "GetResult"
    assert [row["tool"] for row in await database.fetch("SELECT tool FROM observed_shape")] == ["things.get"]


def tool_with_result() -> Tool:
    definition = Definition("declared", "Get it.", {"type": "object", "properties": {"value": {}}}, {"type": "object"})
    return foreign_tool("things", definition, call=answer, effect="read", roles=EVERYBODY)
