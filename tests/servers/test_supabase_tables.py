"""A tenant's tables on Postgres itself: types, pages, writes that happen once, and who sees what."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import httpx
import psycopg
import pytest
from supabase_world import ANN, BOB, World, as_tenant, for_customer, keyed, project
from tool_bench import Bench, Pins

from servers.context import ToolContext
from servers.errors import BudgetExceeded, ToolDenied, ToolError, ToolInputError, ToolNotFound, UpstreamError
from servers.registry import Registry
from servers.supabase.connections import Connections


def sql(world: World, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """As the owner, whom no policy binds."""
    with psycopg.connect(world.owner, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def world(supabase_world: World) -> World:
    sql(
        supabase_world,
        "DELETE FROM orders; DELETE FROM note; DELETE FROM doc; DELETE FROM omniops_tools.applied;"
        "ALTER SEQUENCE orders_id_seq RESTART; INSERT INTO orders (tenant, customer, code, total, tags, details) VALUES"
        " ('acme', 7, 'A-1', 12.50, '{new,red}', '{\"gift\": true}'), ('acme', 8, 'A-2', 99.90, '{}', '{}'),"
        " ('rival', 7, 'R-1', 1000000, '{}', '{}')",
    )
    return supabase_world


@pytest.fixture
async def acme(world: World, registry: Registry, http: httpx.AsyncClient, connections: Connections) -> Bench:
    """An operator's tools of tenant acme."""
    return Bench(
        registry,
        ToolContext(
            tenant="acme",
            session="s1",
            pins=Pins(),
            idempotency_key="key-1",
            resuming=False,
            http=http,
            supabase=project(world.login, connections),
        ),
    )


async def codes(bench: Bench, **args: Any) -> list[str]:
    rows = await bench.call("supabase.select_rows", table="orders", columns=["code"], **args)
    return [row["code"] for row in rows]


# -- reading


async def test_tables_are_listed_that_row_level_security_guards(acme: Bench) -> None:
    listed = {t["table"]: t for t in await acme.call("supabase.list_tables")}
    assert set(listed) == {"orders", "note", "doc", "rate", "tight", 'odd "name%s; --'}
    assert listed["orders"] == {
        "table": "orders",
        "kind": "table",
        "description": "What was bought.",
        "may": ["select", "insert", "update", "delete"],
    }
    assert listed["tight"]["kind"] == "view"


async def test_a_table_is_described(acme: Bench) -> None:
    page = await acme.call("supabase.describe_table", table="orders")
    columns = {c["name"]: c for c in page["columns"]}
    assert page["primary_key"] == ["id"]
    assert columns["total"]["type"] == "numeric(20,2)"
    assert columns["total"]["description"] == "With tax."
    assert columns["tags"]["type"] == "text[]"
    doc = await acme.call("supabase.describe_table", table="doc")
    assert [c["name"] for c in doc["columns"] if c["required"]] == ["id", "tenant", "content"]
    assert next(c["type"] for c in doc["columns"] if c["name"] == "embedding").endswith("vector(384)")


async def test_rows_come_as_json_has_them(acme: Bench, world: World) -> None:
    sql(world, "UPDATE orders SET total = 123456789012345678.91 WHERE code = 'A-2'")
    first, second = await acme.call("supabase.select_rows", table="orders")
    assert first == {
        "id": 1,
        "tenant": "acme",
        "customer": 7,
        "code": "A-1",
        "total": 12.5,
        "status": "open",
        "placed": "2026-01-02T03:04:05+00:00",
        "tags": ["new", "red"],
        "details": {"gift": True},
        "twice": 25.0,
    }
    assert second["total"] == "123456789012345678.91"  # no float has these digits


@pytest.mark.parametrize(
    ("op", "column", "value", "wanted"),
    [
        ("eq", "total", 12.5, ["A-1"]),
        ("eq", "status", "open", ["A-1", "A-2"]),
        ("neq", "code", "A-1", ["A-2"]),
        ("gt", "total", "12.50", ["A-2"]),
        ("gte", "placed", "2026-01-02", ["A-1", "A-2"]),
        ("lt", "total", 13, ["A-1"]),
        ("lte", "id", 1, ["A-1"]),
        ("like", "code", "A%", ["A-1", "A-2"]),
        ("ilike", "code", "a-_", ["A-1", "A-2"]),
        ("in", "id", [1, 3], ["A-1"]),
        ("in", "code", [], []),
        ("in", "status", ["paid", "open"], ["A-1", "A-2"]),
        ("is_null", "customer", False, ["A-1", "A-2"]),
        ("is_null", "customer", True, []),
        ("contains", "tags", ["red"], ["A-1"]),
        ("contains", "details", {"gift": True}, ["A-1"]),
        ("eq", "code", "'; DROP TABLE orders; --", []),
        ("eq", "code", "A-1' OR '1'='1", []),
        ("in", "code", ["A-1') OR true --", '",\\'], []),
        ("contains", "tags", ["\"}'; --", "\\"], []),
    ],
)
async def test_filters(op: str, column: str, value: Any, wanted: list[str], acme: Bench) -> None:
    assert await codes(acme, filters=[{"column": column, "op": op, "value": value}]) == wanted
    counted = await acme.call(
        "supabase.count_rows", table="orders", filters=[{"column": column, "op": op, "value": value}]
    )
    assert counted == {"rows": len(wanted)}


async def test_pages_neither_overlap_nor_leave_out(acme: Bench, world: World) -> None:
    sql(world, "INSERT INTO orders (tenant, code, total) SELECT 'acme', 'P-' || n, 5 FROM generate_series(1, 250) n")
    seen: list[str] = []
    while page := await codes(acme, order=[{"column": "total", "descending": True}], limit=100, offset=len(seen)):
        seen += page
    assert len(seen) == len(set(seen)) == 252
    assert seen[0] == "A-2"


async def test_a_large_table_streams_in_batches_of_one_moment(acme: Bench, world: World) -> None:
    sql(world, "INSERT INTO orders (tenant, code) SELECT 'acme', 'S-' || n FROM generate_series(1, 1200) n")
    tool = acme.registry.get("supabase.stream_rows")
    parts: list[list[dict[str, Any]]] = []
    args = {"table": "orders", "columns": ["code"], "filters": [{"column": "code", "op": "like", "value": "S-%"}]}
    async for part in tool.stream(acme.context, args):
        if not parts:
            sql(world, "DELETE FROM orders WHERE code = 'S-1200'")
        parts.append(part)
    assert [len(part) for part in parts] == [500, 500, 200]
    assert len({row["code"] for part in parts for row in part}) == 1200
    async with contextlib.aclosing(tool.stream(acme.context, args)) as abandoned:
        await anext(abandoned)
    assert await acme.call("supabase.count_rows", table="orders", filters=args["filters"]) == {"rows": 1199}


@pytest.mark.parametrize(
    ("args", "error", "match"),
    [
        ({"table": "order"}, ToolNotFound, "no table 'order'"),
        ({"table": "orders", "columns": ["totl"]}, ToolInputError, "Did you mean total"),
        ({"table": "orders", "filters": [{"column": "total", "op": "eq", "value": "much"}]}, ToolInputError, "numeric"),
        ({"table": "orders", "filters": [{"column": "total", "op": "eq", "value": None}]}, ToolInputError, "is_null"),
        ({"table": "orders", "filters": [{"column": "code", "op": "eq", "value": "a\0"}]}, ToolInputError, "NUL"),
        ({"table": "orders", "filters": [{"column": "total", "op": "contains", "value": 1}]}, ToolInputError, "json"),
        ({"table": "secret"}, ToolNotFound, "no table 'secret'"),
        ({"table": "leaky"}, ToolDenied, "security_invoker"),
        ({"table": "copied"}, ToolDenied, "materialized"),
        ({"table": "hidden.salary"}, ToolDenied, "not open"),
        ({"table": "pg_catalog.pg_authid"}, ToolDenied, "not open"),
        ({"table": "omniops_tools.applied"}, ToolDenied, "not open"),
        ({"table": 'public"; DROP TABLE orders; --'}, ToolNotFound, "no table"),
        ({"table": "orders", "order": [{"column": "total; DROP TABLE orders"}]}, ToolInputError, "no column"),
        ({"table": "."}, ToolInputError, "can be no table"),
    ],
)
async def test_what_cannot_be_asked(args: dict[str, Any], error: type[ToolError], match: str, acme: Bench) -> None:
    with pytest.raises(error, match=match):
        await acme.call("supabase.select_rows", **args)


async def test_names_that_look_like_sql_are_only_names(acme: Bench) -> None:
    table, rows = 'odd "name%s; --', [{"a %s b": 1, "DROP TABLE orders": "x"}, {"a %s b": 2, "DROP TABLE orders": "y"}]
    await acme.call("supabase.insert_rows", table=table, rows=rows)
    found = await acme.call(
        "supabase.select_rows", table=table, filters=[{"column": "a %s b", "op": "in", "value": [2]}]
    )
    assert found == rows[1:]
    upserted = await keyed(acme, "k2").call("supabase.upsert_rows", table=table, rows=[rows[0]])
    assert upserted == {"rows": 1, "inserted": 0}
    some = [{"column": "DROP TABLE orders", "op": "like", "value": "%"}]
    updated = await keyed(acme, "k3").call(
        "supabase.update_rows", table=table, values={"DROP TABLE orders": "%s"}, filters=some
    )
    assert updated["updated"] == 2
    gone = await keyed(acme, "k4").call("supabase.delete_rows", table=table, filters=some)
    assert {"a %s b": 1, "DROP TABLE orders": "%s"} in gone["before"]


async def test_what_is_too_large_ends_before_it_is_held(acme: Bench, world: World) -> None:
    sql(
        world,
        "INSERT INTO orders (tenant, details) SELECT 'acme', to_jsonb(repeat('x', 50000)) FROM generate_series(1, 100)",
    )
    small = as_tenant(acme, "acme", result_mb=1)
    with pytest.raises(BudgetExceeded, match="1 MiB") as error:
        await small.call("supabase.select_rows", table="orders")
    assert error.value.data["rows"] < 30
    assert await small.call("supabase.count_rows", table="orders") == {"rows": 102}


# -- who sees what


async def test_two_tenants_on_one_database_never_mix(acme: Bench, world: World) -> None:
    rival = as_tenant(acme, "rival", claims={"sub": BOB})
    assert await codes(rival) == ["R-1"]
    assert await codes(acme) == ["A-1", "A-2"]
    for bench, other in ((rival, "acme"), (acme, "rival")):
        everything = [{"column": "id", "op": "gt", "value": 0}]
        with pytest.raises(ToolDenied, match="row-level security"):
            await bench.call("supabase.insert_rows", table="orders", rows=[{"tenant": other, "total": 1}])
        with pytest.raises(ToolDenied, match="row-level security"):
            await bench.call("supabase.update_rows", table="orders", values={"tenant": other}, filters=everything)
        theirs = [{"column": "tenant", "op": "eq", "value": other}]
        gone = await keyed(bench, f"d-{other}").call("supabase.delete_rows", table="orders", filters=theirs)
        assert gone == {"deleted": 0, "before": []}
    with pytest.raises(ToolDenied, match="row-level security"):  # a row of the rival's that it cannot see
        await keyed(acme, "u").call("supabase.upsert_rows", table="orders", rows=[{"id": 3, "total": 0}])
    assert sql(world, "SELECT tenant, code, total::text FROM orders ORDER BY id") == [
        ("acme", "A-1", "12.50"), ("acme", "A-2", "99.90"), ("rival", "R-1", "1000000.00")
    ]  # fmt: skip


async def test_many_calls_of_two_tenants_at_once_never_mix(acme: Bench) -> None:
    benches = [acme, as_tenant(acme, "rival")] * 10
    found = await asyncio.gather(*(codes(bench) for bench in benches))
    assert [set(each) for each in found] == [{"A-1", "A-2"}, {"R-1"}] * 10


async def test_auth_uid_is_the_subject_of_the_settings(acme: Bench, world: World) -> None:
    sql(world, "INSERT INTO note VALUES (1, %s, 'of ann'), (2, %s, 'of bob')", ANN, BOB)
    found = await acme.call("supabase.select_rows", table="note")
    assert [row["body"] for row in found] == ["of ann"]
    bobs = as_tenant(acme, "acme", claims={"sub": BOB})
    assert [row["body"] for row in await bobs.call("supabase.select_rows", table="note")] == ["of bob"]


async def test_settings_cannot_claim_another_tenant(acme: Bench) -> None:
    sly = as_tenant(acme, "acme", claims={"tenant": "rival", "role": "service_role", "sub": ANN})
    assert await codes(sly) == ["A-1", "A-2"]
    claims = (await sly.call("supabase.read_function", function="claims"))["result"]
    assert claims == {"role": "authenticated", "tenant": "acme", "sub": ANN}


async def test_a_conversation_sees_its_customer_and_what_is_open_to_it(acme: Bench, world: World) -> None:
    sql(world, "INSERT INTO note VALUES (1, %s, 'of ann')", ANN)
    with pytest.raises(ToolDenied, match="verified"):
        await codes(for_customer(acme, None))
    customer = for_customer(acme, 7)
    assert await codes(customer) == ["A-1"]
    assert [t["table"] for t in await customer.call("supabase.list_tables")] == ["orders"]
    for table in ("note", "tight", "rate", "nowhere"):
        with pytest.raises(ToolDenied, match="not open"):
            await customer.call("supabase.select_rows", table=table)
    with pytest.raises(ToolDenied, match="not open"):
        await customer.call("supabase.match_documents", embedding=[0.1] * 384)
    opened = for_customer(as_tenant(acme, "acme", customer_may=("note",)), 7)
    assert await opened.call("supabase.select_rows", table="note") == []  # the staff's `sub` is not theirs


@pytest.mark.parametrize(
    "forged",
    [
        {"function": "pg_catalog.set_config", "arguments": {}},
        {"function": "set_config", "arguments": {"setting_name": "request.jwt.claims", "new_value": "{}"}},
        {"function": "pg_sleep", "arguments": {}},
        {"function": "pg_read_file", "arguments": {"filename": "/etc/passwd"}},
        {"function": "hidden.peek", "arguments": {}},
        {"function": "dblink", "arguments": {}},
        {"function": "add_up(1); DROP TABLE orders; --", "arguments": {}},
        {"function": 'public"."add_up', "arguments": {}},
        {"function": "add_up", "arguments": {"a := 1, b": 2}},
        {"function": "add_up", "arguments": {"a": "1); DROP TABLE orders; --"}},
    ],
)
async def test_no_function_outside_of_the_tenants_own_can_be_called(forged: dict[str, Any], acme: Bench) -> None:
    for tool in ("read_function", "call_function"):
        with pytest.raises((ToolDenied, ToolNotFound, ToolInputError)):
            await acme.call(f"supabase.{tool}", **forged)
    assert await codes(acme) == ["A-1", "A-2"]


@pytest.mark.parametrize("changes", [{"tenant": "rival"}, {"claims": {}}, {"role": "service_role"}])
async def test_no_argument_changes_who_asks(changes: dict[str, Any], acme: Bench) -> None:
    with pytest.raises(ToolInputError, match="unknown argument"):
        await acme.call("supabase.select_rows", table="orders", **changes)


async def test_what_a_call_set_ends_with_it(acme: Bench) -> None:
    """One connection for both tenants' calls would be the worst place to leave a role or claims behind."""
    one = as_tenant(acme, "acme", in_flight=1)
    await codes(one)
    supabase = one.context.supabase
    assert supabase is not None
    pool = await supabase.connections.pool(supabase)
    async with pool.connection() as connection:
        row = await (
            await connection.execute(
                "SELECT current_user::text AS me, coalesce(current_setting('request.jwt.claims', true), '') AS claims,"
                " current_setting('transaction_read_only') AS read_only, current_setting('statement_timeout') AS limit_"
            )
        ).fetchone()
    assert row == {"me": "omniops_login", "claims": "", "read_only": "off", "limit_": "0"}


# -- logins that are too strong


@pytest.mark.parametrize(
    ("setup", "match"),
    [
        ("ALTER ROLE strong SUPERUSER", "goes around"),
        ("ALTER ROLE strong BYPASSRLS", "goes around"),
        ("GRANT service_role TO strong", "may become service_role"),
        ("", "may not become"),
    ],
)
async def test_a_login_that_could_do_more_is_refused(setup: str, match: str, acme: Bench, world: World) -> None:
    sql(world, "CREATE ROLE strong LOGIN")
    try:
        if setup:
            sql(world, "GRANT authenticated TO strong")
            sql(world, setup)
        url = world.login.replace("omniops_login", "strong")
        with pytest.raises(ToolDenied, match=match):
            await codes(as_tenant(acme, "acme", database_url=url))
    finally:
        sql(world, "DROP ROLE strong")


async def test_the_service_role_is_refused(acme: Bench) -> None:
    with pytest.raises(ToolDenied, match="does not bind the role 'service_role'"):
        await codes(as_tenant(acme, "acme", role="service_role"))
    with pytest.raises(ToolDenied, match="no role 'nobody'"):
        await codes(as_tenant(acme, "acme", role="nobody"))


async def test_a_database_that_is_away_is_said_without_the_password(acme: Bench) -> None:
    url = "postgresql://omniops_login:hunter22222@127.0.0.1:1/postgres"
    with pytest.raises(UpstreamError, match="cannot be reached") as error:
        await codes(as_tenant(acme, "acme", database_url=url))
    assert "hunter22222" not in f"{error.value} {error.value.hint} {error.value.data}"
    assert error.value.retryable


# -- writing


async def test_a_write_is_applied_once_whatever_comes_back(acme: Bench, world: World) -> None:
    """The same call again: before an answer, after it, and twice at once."""
    rows = [{"code": f"N-{n}", "total": n} for n in range(3)]
    done = await acme.call("supabase.insert_rows", table="orders", rows=rows)
    assert done["inserted"] == 3
    assert [set(key) for key in done["keys"]] == [{"id"}] * 3
    again = keyed(acme, "key-1", resuming=True)
    assert await again.call("supabase.insert_rows", table="orders", rows=rows) == done
    twins = await asyncio.gather(
        *(keyed(acme, "twin").call("supabase.insert_rows", table="orders", rows=[{"total": 1}]) for _ in range(2))
    )
    assert twins[0] == twins[1]
    assert sql(world, "SELECT count(*) FROM orders WHERE tenant = 'acme'") == [(6,)]


async def test_a_write_that_was_cut_off_is_made_when_it_comes_again(acme: Bench, world: World) -> None:
    """Killed in the middle of a bulk upsert: nothing of it stays, and the next attempt does all of it."""
    rows = [{"code": f"B-{n}", "total": n} for n in range(2000)]
    slow = as_tenant(acme, "acme", batch_rows=10)
    task = asyncio.create_task(slow.call("supabase.upsert_rows", table="orders", rows=rows, on_conflict=["code"]))
    begun = (
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'omniops_login' AND query LIKE 'INSERT INTO %orders%'"
    )
    while not task.done() and sql(world, begun) == [(0,)]:
        await asyncio.sleep(0)
    killed = not task.done()
    sql(world, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'omniops_login'")
    with pytest.raises(ToolError):
        await task
    assert killed
    assert sql(world, "SELECT count(*) FROM orders WHERE code LIKE 'B-%'") == [(0,)]
    again = keyed(slow, "key-1", resuming=True)
    done = await again.call("supabase.upsert_rows", table="orders", rows=rows, on_conflict=["code"])
    assert done == {"rows": 2000, "inserted": 2000}
    assert sql(world, "SELECT count(*), sum(total)::int FROM orders WHERE code LIKE 'B-%'") == [(2000, 1999000)]


async def test_without_a_ledger_an_open_write_stays_open(acme: Bench, world: World) -> None:
    sql(world, "ALTER TABLE omniops_tools.applied RENAME TO away")
    try:
        await acme.call("supabase.insert_rows", table="orders", rows=[{"total": 1}])
        with pytest.raises(UpstreamError, match="not known") as error:
            await keyed(acme, "key-1", resuming=True).call("supabase.insert_rows", table="orders", rows=[{"total": 1}])
        assert error.value.data == {"outcome": "unknown"}
    finally:
        sql(world, "ALTER TABLE omniops_tools.away RENAME TO applied")
    assert sql(world, "SELECT count(*) FROM orders WHERE total = 1") == [(1,)]


async def test_an_upsert_adds_changes_or_keeps(acme: Bench, world: World) -> None:
    rows = [{"code": "A-1", "total": 1}, {"code": "A-9", "total": 9}]
    done = await acme.call("supabase.upsert_rows", table="orders", rows=rows, on_conflict=["code"])
    assert done == {"rows": 2, "inserted": 1}
    kept = await keyed(acme, "k2").call(
        "supabase.upsert_rows",
        table="orders",
        rows=[{"code": "A-1", "total": 5}],
        on_conflict=["code"],
        keep_existing=True,
    )
    assert kept == {"rows": 0, "inserted": 0}
    assert sql(world, "SELECT total::int FROM orders WHERE code = 'A-1'") == [(1,)]


async def test_an_update_tells_what_was_before_and_can_be_undone(acme: Bench, world: World) -> None:
    some = [{"column": "code", "op": "like", "value": "A-%"}]
    before = sql(world, "SELECT * FROM orders ORDER BY id")
    done = await acme.call("supabase.update_rows", table="orders", values={"total": 5, "status": "gone"}, filters=some)
    assert done == {
        "updated": 2,
        "before": [{"id": 1, "total": 12.5, "status": "open"}, {"id": 2, "total": 99.9, "status": "open"}],
    }
    for number, row in enumerate(done["before"]):
        own = [{"column": "id", "op": "eq", "value": row.pop("id")}]
        await keyed(acme, f"undo-{number}").call("supabase.update_rows", table="orders", values=row, filters=own)
    assert sql(world, "SELECT * FROM orders ORDER BY id") == before


async def test_a_delete_tells_what_was_and_more_than_expected_is_left_alone(acme: Bench, world: World) -> None:
    some = [{"column": "code", "op": "like", "value": "A-%"}]
    for tool, more in (("delete_rows", {}), ("update_rows", {"values": {"total": 0}})):
        with pytest.raises(ToolInputError, match="More than 1 rows fit, so nothing was changed"):
            await acme.call(f"supabase.{tool}", table="orders", filters=some, at_most=1, **more)
        with pytest.raises(ToolInputError):
            await acme.call(f"supabase.{tool}", table="orders", filters=[], **more)
    assert sql(world, "SELECT count(*), sum(total) > 100 FROM orders WHERE tenant = 'acme'") == [(2, True)]
    gone = await acme.call("supabase.delete_rows", table="orders", filters=some)
    assert [row["code"] for row in gone["before"]] == ["A-1", "A-2"]


@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        ([{"total": -1}], ToolInputError, "check constraint"),
        ([{"code": "A-1"}], ToolInputError, "duplicate key"),
        ([{"code": "R-1"}], ToolInputError, "duplicate key"),
        ([{"total": 1}, {"code": "x"}], ToolInputError, r"rows\[1\] has other columns"),
        ([{"twice": 4}], ToolInputError, "generated"),
        ([{"placed": "yesterday-ish"}], ToolInputError, "timestamp"),
        ([{"details": {"n": "\0"}}], ToolInputError, "Unicode"),
        ([{"nope": 1}], ToolInputError, "no column"),
        ([{}], ToolInputError, "no columns"),
    ],
)
async def test_rows_that_cannot_be_are_refused_whole(
    rows: list[dict[str, Any]], error: type[ToolError], match: str, acme: Bench, world: World
) -> None:
    with pytest.raises(error, match=match) as raised:
        await acme.call("supabase.insert_rows", table="orders", rows=rows)
    assert "1000000" not in f"{raised.value} {raised.value.data}"
    assert sql(world, "SELECT count(*) FROM orders") == [(3,)]
    assert sql(world, "SELECT count(*) FROM omniops_tools.applied") == [(0,)]


# -- functions


async def test_functions_are_called_by_name(acme: Bench, world: World) -> None:
    async def read(function: str, **arguments: Any) -> Any:
        return (await acme.call("supabase.read_function", function=function, arguments=arguments))["result"]

    assert await read("add_up", a=1, b=41) == 42
    assert await read("add_up", a=1) == 2
    assert await read("sums") == [12.5, 99.9]
    with pytest.raises(ToolInputError, match="does not take c"):
        await read("add_up", c=1)
    with pytest.raises(ToolDenied, match="may not change"):
        await read("pay", order_id=1)
    for _ in range(2):  # the second is answered from the first
        paid = await acme.call("supabase.run_function", function="pay", arguments={"order_id": 1})
        assert paid == {"result": 13.5}
    with pytest.raises(ToolDenied, match="not declared"):
        await acme.call("supabase.run_function", function="slow")


async def test_a_statement_has_its_time(acme: Bench) -> None:
    quick = as_tenant(acme, "acme", statement_timeout_s=0.05)
    with pytest.raises(UpstreamError, match="took too long") as error:
        await quick.call("supabase.read_function", function="slow")
    assert error.value.retryable


async def test_without_a_project_it_is_said_how_to_connect_one(acme: Bench) -> None:
    with pytest.raises(ToolDenied, match="no tables of its own"):
        await acme.with_(supabase=None).call("supabase.list_tables")


def test_a_project_shows_no_secret(connections: Connections) -> None:
    made = replace(project("postgresql://u:hunter22222@h/d", connections), key="the-key-1", jwt_secret="the-secret-1")
    for secret in ("hunter22222", "the-key-1", "the-secret-1"):
        assert secret not in repr(made)
