"""Tenants' tables from cells: real kernels, a real broker and journal, Postgres under row-level security."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from pydantic import SecretStr
from supabase_world import BOB, World

from gateway.settings import SupabaseSettings, TenantSettings
from gateway.testing import ToolSession, tool_session
from servers.errors import ApprovalRequired, ToolDenied, ToolInputError

#: Both tenants keep their rows in the same table.
ROWS = """
DELETE FROM orders;
INSERT INTO orders (tenant, customer, code, total) VALUES
    ('trial', 7, 'T-1', 10), ('trial', 8, 'T-2', 20), ('rival', 7, 'R-1', 1000000)
"""

#: What a cell may try to read or change of its rival's, and what comes of it: no row, or the error's class.
ATTACKS = """
from servers import supabase
mine = [{"column": "code", "op": "eq", "value": "R-1"}]
theirs = [{"column": "tenant", "op": "eq", "value": "rival"}]
claims = {"setting_name": "request.jwt.claims", "new_value": '{"tenant": "rival"}', "is_local": True}
for tool, arguments in [
    ("select_rows", {"table": "orders", "filters": mine}),
    ("select_rows", {"table": "orders", "filters": theirs}),
    ("stream_rows", {"table": "orders", "filters": mine}),
    ("count_rows", {"table": "orders", "filters": theirs}),
    ("update_rows", {"table": "orders", "filters": mine, "values": {"total": "1"}}),
    ("insert_rows", {"table": "orders", "rows": [{"tenant": "rival", "code": "R-2"}]}),
    ("upsert_rows", {"table": "orders", "rows": [{"code": "R-1", "total": "1"}], "on_conflict": ["code"]}),
    ("update_rows", {"table": "orders", "filters": [{"column": "code", "op": "eq", "value": "T-2"}],
                     "values": {"tenant": "rival"}}),
    ("select_rows", {"table": "leaky"}),
    ("select_rows", {"table": "copied"}),
    ("select_rows", {"table": "omniops_tools.applied"}),
    ("read_function", {"function": "pg_catalog.set_config", "arguments": claims}),
    ("select_rows", {"table": "orders", "tenant": "rival"}),
]:
    try:
        found = getattr(supabase, tool)(**arguments)
        found = [row for part in found for row in part] if tool == "stream_rows" else found
        print(found)
    except Exception as error:
        print(type(error).__name__)
"""
SEEN = """\
[]
[]
[]
{'rows': 0}
{'updated': 0, 'before': []}
ToolDenied
ToolDenied
ToolDenied
ToolDenied
ToolDenied
ToolDenied
ToolDenied
ToolInputError
"""


@pytest.fixture(scope="module")
def world(supabase_world: World) -> World:
    with psycopg.connect(supabase_world.owner, autocommit=True) as owner:
        owner.execute(ROWS.encode())
    return supabase_world


@pytest.fixture(scope="module")
def trial(world: World) -> Iterator[ToolSession]:
    """An operator of the tenant, whose rival is on the same project."""
    own = SupabaseSettings(database_url=SecretStr("secret://project"), customer_may=("orders",))
    rival = TenantSettings(supabase=SupabaseSettings(database_url=SecretStr(world.login), subject=BOB))
    with tool_session(supabase=own, credentials={"project": world.login}, tenants={"rival": rival}) as session:
        yield session


def codes(session: ToolSession) -> list[str]:
    return [row["code"] for row in session.call("supabase.select_rows", table="orders", order=[{"column": "id"}])]


def test_each_tenant_and_customer_sees_their_own_rows(trial: ToolSession) -> None:
    assert codes(trial) == ["T-1", "T-2"]
    assert codes(trial.another(role="agent", customer=8)) == ["T-2"]
    assert codes(trial.another(tenant="rival", role="analyst")) == ["R-1"]


def test_no_cell_reaches_another_tenants_rows(trial: ToolSession, world: World) -> None:
    run = trial.cell(ATTACKS)
    assert "".join(str(each.get("text", "")) for each in run.result.outputs) == SEEN
    with psycopg.connect(world.owner) as owner:
        rows = owner.execute("SELECT code, total::int, tenant FROM orders WHERE tenant <> 'trial' OR code LIKE 'R%'")
        assert rows.fetchall() == [("R-1", 1_000_000, "rival")]


def test_a_write_from_a_cell_is_journaled_and_what_deletes_waits_for_a_person(trial: ToolSession) -> None:
    values = "{'total': '11.50'}, filters=[{'column': 'code', 'op': 'eq', 'value': 'T-1'}]"
    run = trial.cell(f"from servers.supabase import update_rows\nupdate_rows(table='orders', values={values})")
    [call] = run.calls
    assert (call.tool, call.state, call.effect) == ("supabase.update_rows", "applied", "write")
    everything = [{"column": "id", "op": "gt", "value": 0}]
    with pytest.raises(ApprovalRequired):
        trial.call("supabase.delete_rows", table="orders", filters=everything)
    with pytest.raises(ToolDenied, match="not for a session of role 'analyst'"):
        trial.another(role="analyst").call("supabase.delete_rows", table="orders", filters=everything)
    with pytest.raises(ToolInputError, match="Did you mean table"):
        trial.call("supabase.count_rows", tables="orders")
