"""The tools through a project's API: the `supabase` client against PostgREST's protocol, over a real socket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from postgrest_double import Double
from shop_server import serving
from supabase_world import ANN, JWT_SECRET, World, as_tenant, for_customer, keyed
from tool_bench import Bench, Pins

from servers.context import ToolContext
from servers.errors import BudgetExceeded, ToolDenied, ToolError, ToolInputError, ToolNotFound, UpstreamError
from servers.registry import Registry
from servers.supabase.connections import Connections
from servers.supabase.project import SupabaseProject

FIRST = [{"column": "id", "op": "eq", "value": 1}]
ANON_KEY = jwt.encode({"role": "anon", "aud": "authenticated", "exp": 4_000_000_000}, JWT_SECRET, algorithm="HS256")


@pytest.fixture(scope="module")
def served(supabase_world: World) -> Iterator[tuple[Double, str]]:
    url = supabase_world.login.replace("omniops_login", "authenticator")
    double = Double(url, JWT_SECRET, ANON_KEY)
    with serving(double.app()) as address:
        yield double, address


@pytest.fixture
def double(served: tuple[Double, str], supabase_world: World) -> Double:
    """Three orders, two tenants; no faults."""
    with psycopg.connect(supabase_world.owner, autocommit=True) as connection:
        connection.execute(
            b"DELETE FROM orders; DELETE FROM note; DELETE FROM doc; ALTER SEQUENCE orders_id_seq RESTART;"
            b"INSERT INTO orders (tenant, customer, code, total, tags, details) VALUES"
            b" ('acme', 7, 'A-1', 12.50, '{new,red}', '{\"gift\": true}'), ('acme', 8, 'A-2', 99.90, '{}', '{}'),"
            b" ('rival', 7, 'R-1', 1000000, '{}', '{}')"
        )
    found = served[0]
    found.requests.clear()
    found.lose_answers = found.fail_before = 0
    found.lists_tables = True
    return found


@pytest.fixture
async def acme(
    double: Double, served: tuple[Double, str], registry: Registry, http: httpx.AsyncClient, connections: Connections
) -> Bench:
    project = SupabaseProject(
        tenant="acme",
        connections=connections,
        url=served[1],
        key=ANON_KEY,
        jwt_secret=JWT_SECRET,
        claims={"sub": ANN},
        customer_may=("orders",),
        write_functions=("pay",),
        batch_rows=50,
    )
    context = ToolContext("acme", "s1", Pins(), "key-1", False, http, supabase=project)
    return Bench(registry, context)


def sql(world: World, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(world.owner, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


async def codes(bench: Bench, **args: Any) -> list[str]:
    order = [{"column": "id"}]
    rows = await bench.call("supabase.select_rows", table="orders", columns=["code"], order=order, **args)
    return [row["code"] for row in rows]


# -- the protocol, as PostgREST's documentation and its own tests have it


async def ask(served: tuple[Double, str], method: str, path: str, **options: Any) -> httpx.Response:
    token = options.pop("token", None) or jwt.encode(
        {"role": "authenticated", "tenant": "acme", "aud": "authenticated", "exp": time.time() + 60}, JWT_SECRET
    )
    headers = {"apikey": ANON_KEY, "authorization": f"Bearer {token}", **options.pop("headers", {})}
    async with httpx.AsyncClient(base_url=f"{served[1]}/rest/v1") as client:
        return await client.request(method, path, headers=headers, **options)


@pytest.mark.parametrize(
    ("request_", "status", "answer"),
    [
        (
            ("GET", "/garlic", {}),
            404,
            {"code": "PGRST205", "details": None, "hint": None,
             "message": "Could not find the table 'public.garlic' in the schema cache"},
        ),
        (
            ("POST", "/orders?columns=helicopter", {"json": [{"code": "x"}]}),
            400,
            {"code": "PGRST204", "details": None, "hint": None,
             "message": "Could not find the 'helicopter' column of 'orders' in the schema cache"},
        ),
        (
            ("DELETE", "/orders?id=lt.15", {"headers": {"prefer": "handling=strict, max-affected=1"}}),
            400,
            {"code": "PGRST124", "details": "The query affects 2 rows", "hint": None,
             "message": "Query result exceeds max-affected preference constraint"},
        ),
        (
            ("GET", "/orders", {"token": "not.ajwt"}),
            401,
            {"code": "PGRST301", "details": None, "hint": None, "message": "Expected 3 parts in JWT; got 2"},
        ),
        (
            ("POST", "/orders", {"json": {"total": -1}}),
            400,
            {"code": "23514", "hint": None,
             "message": 'new row for relation "orders" violates check constraint "orders_total_check"'},
        ),
        (("POST", "/orders", {"json": {"code": "A-1"}}), 409, {"code": "23505"}),
        (("GET", "/secret", {}), 403, {"code": "42501", "message": "permission denied for table secret"}),
        (("GET", "/rpc/pay?order_id=1", {}), 405, {"code": "25006"}),
        (("GET", "/rpc/nothing", {}), 404, {"code": "PGRST202"}),
        (("GET", "/orders?total=nope.1", {}), 400, {"code": "PGRST100"}),
        (("GET", "/orders", {"headers": {"accept-profile": "hidden"}}), 406, {"code": "PGRST106"}),
    ],
)  # fmt: skip
async def test_the_double_answers_as_postgrest_is_documented(
    request_: tuple[str, str, dict[str, Any]],
    status: int,
    answer: dict[str, Any],
    served: tuple[Double, str],
    double: Double,
) -> None:
    method, path, options = request_
    response = await ask(served, method, path, **options)
    body = response.json()
    assert (response.status_code, {key: body[key] for key in answer}) == (status, answer)
    assert body.keys() == {"code", "details", "hint", "message"}
    assert response.headers["proxy-status"] == f"PostgREST; error={answer['code']}"


async def test_the_double_counts_pages_and_prefers_as_documented(served: tuple[Double, str], double: Double) -> None:
    counted = await ask(served, "HEAD", "/orders", headers={"prefer": "count=exact"})
    assert (counted.headers["content-range"], counted.content) == ("0-1/2", b"")
    part = await ask(served, "GET", "/orders?select=code&order=id.desc&limit=1", headers={"prefer": "count=exact"})
    assert (part.status_code, part.headers["content-range"], part.json()) == (206, "0-0/2", [{"code": "A-2"}])
    beyond = await ask(served, "GET", "/orders?offset=9", headers={"prefer": "count=exact"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "PGRST103")
    made = await ask(served, "POST", "/orders", json={"code": "N"}, headers={"prefer": "return=minimal"})
    assert (made.status_code, made.content) == (201, b"")
    changed = await ask(served, "PATCH", "/orders?code=eq.N", json={"total": 3})
    assert (changed.status_code, changed.content) == (204, b"")
    wanted = {"prefer": "resolution=merge-duplicates,return=representation"}
    merged = await ask(
        served, "POST", "/orders?on_conflict=code&select=total", json=[{"code": "N", "total": 4}], headers=wanted
    )
    assert (merged.status_code, merged.json()) == (201, [{"total": 4.0}])
    assert merged.headers["preference-applied"] == "resolution=merge-duplicates, return=representation"


# -- the tools


async def test_both_ways_describe_and_read_alike(acme: Bench, supabase_world: World, connections: Connections) -> None:
    project = acme.context.supabase
    assert project is not None
    direct = acme.with_(supabase=replace(project, tenant="acme", database_url=supabase_world.login))
    questions: list[tuple[str, dict[str, Any]]] = [
        ("describe_table", {"table": "orders"}),
        ("count_rows", {"table": "orders", "filters": [{"column": "total", "op": "gt", "value": 20}]}),
        ("select_rows", {"table": "orders", "order": [{"column": "id", "descending": True}]}),
        ("select_rows", {"table": "orders", "order": [{"column": "id"}], "limit": 1, "offset": 1}),
        ("read_function", {"function": "add_up", "arguments": {"a": 1, "b": 2}}),
        ("read_function", {"function": "sums"}),
    ]
    filters: list[tuple[str, str, Any]] = [
        ("code", "like", "A-%"), ("code", "in", ["A-1", 'odd,"(\\', ""]), ("customer", "is_null", True),
        ("customer", "is_null", False), ("tags", "contains", ["red"]), ("details", "contains", {"gift": True}),
        ("code", "eq", "A-1,id.gt.0"), ("code", "neq", "A-1"), ("code", "ilike", "a-_"), ("status", "eq", "open"),
    ]  # fmt: skip
    for column, op, value in filters:
        chosen = [{"column": column, "op": op, "value": value}]
        questions.append(("select_rows", {"table": "orders", "filters": chosen, "order": [{"column": "id"}]}))
    for tool, args in questions:
        assert await acme.call(f"supabase.{tool}", **args) == await direct.call(f"supabase.{tool}", **args), args


async def test_rows_stream_by_pages(acme: Bench, supabase_world: World) -> None:
    sql(supabase_world, "INSERT INTO orders (tenant, code) SELECT 'acme', 'S-' || n FROM generate_series(1, 70) n")
    tool = acme.registry.get("supabase.stream_rows")
    args = {"table": "orders", "columns": ["code"], "order": [{"column": "id"}]}
    assert [len(part) async for part in tool.stream(acme.context, args)] == [50, 22]
    with pytest.raises(ToolInputError, match="order"):
        await anext(tool.stream(acme.context, {"table": "orders"}))


async def test_tenants_and_customers_are_told_apart_by_signed_claims(acme: Bench) -> None:
    assert await codes(acme) == ["A-1", "A-2"]
    assert await codes(as_tenant(acme, "rival")) == ["R-1"]
    assert await codes(for_customer(acme, 8)) == ["A-2"]
    with pytest.raises(ToolDenied, match="not open"):
        await for_customer(acme, 8).call("supabase.select_rows", table="note")
    found = await asyncio.gather(*(codes(as_tenant(acme, name)) for name in ("acme", "rival") * 5))
    assert [set(each) for each in found] == [{"A-1", "A-2"}, {"R-1"}] * 5
    with pytest.raises(ToolDenied, match="row-level security"):
        await acme.call("supabase.insert_rows", table="orders", rows=[{"tenant": "rival"}])


async def test_a_key_alone_is_anon_and_no_conversation_may_use_it(acme: Bench) -> None:
    alone = as_tenant(acme, "acme", jwt_secret="")
    assert await codes(alone) == []  # anon has the right to read, and no policy lets it see a row
    with pytest.raises(ToolDenied, match="Row-level security or a missing privilege"):
        await alone.call("supabase.insert_rows", table="orders", rows=[{"total": 1}])
    with pytest.raises(ToolDenied, match="jwt_secret"):
        await codes(for_customer(alone, 7))


@pytest.mark.parametrize("key", ["sb_secret_0123456789abcdef", jwt.encode({"role": "service_role"}, JWT_SECRET)])
async def test_a_secret_key_is_refused_before_anything_is_sent(key: str, acme: Bench, double: Double) -> None:
    with pytest.raises(ToolDenied, match="secret one"):
        await codes(as_tenant(acme, "acme", key=key))
    assert double.requests == []


async def test_a_wrong_signature_is_said_so(acme: Bench) -> None:
    with pytest.raises(ToolDenied, match="jwt_secret"):
        await codes(as_tenant(acme, "acme", jwt_secret="x" * 40))


@pytest.mark.parametrize(
    "name", ["or", "select", "limit", "id,or=(id.gt.0)", "a->>b", "x.y", "total::text", "count()", ""]
)
async def test_no_name_becomes_part_of_the_query(name: str, acme: Bench, double: Double) -> None:
    for args in (
        {"filters": [{"column": name, "op": "eq", "value": 1}]},
        {"columns": [name]},
        {"order": [{"column": name}]},
        {"table": f"orders?{name}"},
        {"table": f"../auth/{name}"},
    ):
        with pytest.raises((ToolInputError, ToolDenied)):
            await acme.call("supabase.select_rows", **({"table": "orders"} | args))  # type: ignore[arg-type]
    assert double.requests == []


async def test_a_bulk_upsert_that_was_cut_off_is_repeated_without_doubles(
    acme: Bench, double: Double, supabase_world: World
) -> None:
    rows = [{"code": f"B-{n}", "total": n} for n in range(120)]
    ask_ = {"table": "orders", "rows": rows, "on_conflict": ["code"]}
    double.lose_answers = 1  # the first batch is applied, and nobody hears of it
    with pytest.raises(UpstreamError) as error:
        await acme.call("supabase.upsert_rows", **ask_)
    assert error.value.data["outcome"] == "unknown"
    again = keyed(acme, "key-1", resuming=True)
    assert await again.call("supabase.upsert_rows", **ask_) == {"rows": 120}
    assert sql(supabase_world, "SELECT count(*), sum(total)::int FROM orders WHERE code LIKE 'B-%'") == [(120, 7140)]


@pytest.mark.parametrize(
    ("tool", "args"),
    [
        ("insert_rows", {"table": "orders", "rows": [{"total": 1}]}),
        (
            "update_rows",
            {"table": "orders", "values": {"total": 1}, "filters": [{"column": "id", "op": "eq", "value": 1}]},
        ),
        ("delete_rows", {"table": "orders", "filters": [{"column": "id", "op": "eq", "value": 1}]}),
        ("call_function", {"function": "pay", "arguments": {"order_id": 1}}),
    ],
)
async def test_other_writes_whose_answer_was_lost_are_not_repeated(
    tool: str, args: dict[str, Any], acme: Bench, double: Double, supabase_world: World
) -> None:
    double.lose_answers = 1
    with pytest.raises(UpstreamError):
        await acme.call(f"supabase.{tool}", **args)
    after = sql(supabase_world, "SELECT * FROM orders ORDER BY id")
    with pytest.raises(UpstreamError, match="not known") as error:
        await keyed(acme, "key-1", resuming=True).call(f"supabase.{tool}", **args)
    assert error.value.data == {"outcome": "unknown"}
    assert sql(supabase_world, "SELECT * FROM orders ORDER BY id") == after


async def test_updates_and_deletes_tell_what_was_and_stay_in_bounds(acme: Bench, supabase_world: World) -> None:
    some = [{"column": "code", "op": "like", "value": "A-%"}]
    with pytest.raises(ToolInputError, match="More than 1 rows"):
        await acme.call("supabase.update_rows", table="orders", values={"total": 1}, filters=some, at_most=1)
    with pytest.raises(ToolInputError, match="nothing was"):
        await acme.call("supabase.delete_rows", table="orders", filters=some, at_most=1)
    assert sql(supabase_world, "SELECT count(*) FROM orders WHERE total > 1") == [(3,)]
    done = await acme.call("supabase.update_rows", table="orders", values={"total": 1}, filters=some)
    assert (done["updated"], [row["total"] for row in done["before"]]) == (2, [12.5, 99.9])
    gone = await acme.call("supabase.delete_rows", table="orders", filters=some)
    assert (gone["deleted"], [row["total"] for row in gone["before"]]) == (2, [1.0, 1.0])


@pytest.mark.parametrize(
    ("tool", "args", "error", "match"),
    [
        ("select_rows", {"table": "garlic"}, ToolNotFound, "no such table"),
        ("select_rows", {"table": "hidden.salary"}, ToolDenied, "not open"),
        ("select_rows", {"table": "orders", "columns": ["helicopter"]}, ToolInputError, "no such column"),
        ("insert_rows", {"table": "orders", "rows": [{"total": -1}]}, ToolInputError, "check constraint"),
        ("insert_rows", {"table": "orders", "rows": [{"code": "R-1"}]}, ToolInputError, "duplicate key"),
        ("insert_rows", {"table": "orders", "rows": [{"total": 1}] * 51}, ToolInputError, "50 rows at most"),
        (
            "upsert_rows",
            {"table": "orders", "rows": [{"total": 1}], "on_conflict": ["code"]},
            ToolInputError,
            "lack code",
        ),
        ("read_function", {"function": "pay", "arguments": {"order_id": 1}}, ToolDenied, "may not change"),
        ("read_function", {"function": "nothing"}, ToolNotFound, "no such function"),
        ("search_vectors", {"table": "doc", "embedding": [0.1] * 384}, ToolDenied, "function of its own"),
    ],
)
async def test_what_the_api_refuses_is_said_in_words(
    tool: str, args: dict[str, Any], error: type[ToolError], match: str, acme: Bench
) -> None:
    with pytest.raises(error, match=match) as raised:
        await acme.call(f"supabase.{tool}", **args)
    told = f"{raised.value} {raised.value.hint} {json.dumps(raised.value.data)}"
    for hidden in ("rival", "Failing row", "1000000", JWT_SECRET, ANON_KEY, "Key (code)"):
        assert hidden not in told


async def test_an_api_that_lists_nothing_still_serves_tables_by_name(acme: Bench, double: Double) -> None:
    double.lists_tables = False
    with pytest.raises(ToolDenied, match="does not list its tables"):
        await acme.call("supabase.list_tables")
    assert await codes(acme) == ["A-1", "A-2"]


async def test_an_answer_that_is_too_large_is_not_held(acme: Bench, supabase_world: World) -> None:
    sql(supabase_world, "INSERT INTO orders (tenant, details) SELECT 'acme', to_jsonb(repeat('x', 50000)) FROM"
                        " generate_series(1, 100)")  # fmt: skip
    with pytest.raises(BudgetExceeded, match="1 MiB"):
        await as_tenant(acme, "acme", result_mb=1).call("supabase.select_rows", table="orders")


async def test_a_project_that_is_away_is_said_so(acme: Bench) -> None:
    with pytest.raises(UpstreamError, match="cannot be reached") as error:
        await as_tenant(acme, "acme", url="http://127.0.0.1:1").call(
            "supabase.insert_rows", table="orders", rows=[{"total": 1}]
        )
    assert not error.value.retryable
