"""What a tenant may use in a day: counted over all gateways, and by each cell and turn that begins here."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway_world import settings_for

from gateway.db import Database
from gateway.identity.allowance import Allowance
from gateway.session_errors import QuotaUsedUp


async def used(database: Database, tenant: str, cells: int, dollars: float, started: str = "now()") -> None:
    """As sessions leave it behind: half the money for the model, half for tools."""
    id = f"{tenant}-{started}"
    await database.execute(
        "INSERT INTO session (id, tenant, principal, role, profile, state)"
        " VALUES (%s, %s, 'test', 'agent', 'p', 'live')",
        (id, tenant),
    )
    for index in range(cells):
        await database.execute(
            f"INSERT INTO cell (session, id, index, code, status, started) VALUES (%s, %s, %s, '', 'ok', {started})",
            (id, str(index), index),
        )
    await database.execute(
        "INSERT INTO turn (session, index, mode, messages, reason, usage, started, ended)"
        f" VALUES (%s, 0, 'cells', '[]', 'answered', json_build_object('dollars', %s::float8), {started}, now())",
        (id, dollars / 2),
    )
    await database.execute(
        "INSERT INTO call (session, cell, tool, args, args_hash, occurrence, effect, idempotency_key, state, tenant,"
        " principal, cost, started)"
        f" VALUES (%s, '0', 't', '{{}}', '', 0, 'read', %s, 'applied', %s, '', %s, {started})",
        (id, id, tenant, dollars / 2),
    )


async def allowance(database: Database, url: str, folder: Path, **limits: float) -> Allowance:
    tenants = {"shop": {}, "rich": {"cells_per_day": 100, "dollars_per_day": 100}}
    found = Allowance(database, settings_for(folder, url, tenants=tenants, limits=limits))
    await found.look()
    return found


async def test_cells_of_a_day_are_counted_everywhere(database: Database, database_url: str, tmp_path: Path) -> None:
    await used(database, "shop", 2, 0)
    await used(database, "shop", 50, 0, "now() - interval '25 hours'")
    found = await allowance(database, database_url, tmp_path, cells_per_day=4)
    found.begin("shop")
    found.begin("shop")
    with pytest.raises(QuotaUsedUp, match="shop has used up the cells") as refused:
        found.begin("shop")
    assert "tenants.shop.cells_per_day" in refused.value.hint
    for _ in range(50):
        found.begin("rich")  # by its own setting
        found.begin("no tenant of the configuration")
    await found.look()
    found.begin("shop")  # those two never came into the database


async def test_money_of_a_day_is_the_models_and_the_tools(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    await used(database, "shop", 0, 1.5)
    await used(database, "rich", 0, 1.5)
    enough = await allowance(database, database_url, tmp_path, dollars_per_day=2)
    enough.check("shop")
    spent = await allowance(database, database_url, tmp_path, dollars_per_day=1.4)
    for what in (spent.check, spent.begin):
        with pytest.raises(QuotaUsedUp, match="money"):
            what("shop")
    spent.check("rich")


async def test_without_a_limit_nothing_is_looked_up(database: Database, database_url: str, tmp_path: Path) -> None:
    found = Allowance(database, settings_for(tmp_path, database_url))
    await database.close()
    await found.look()
    await found.run()
    found.begin("shop")
