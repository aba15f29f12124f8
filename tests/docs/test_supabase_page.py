"""The pages on credentials and on Supabase say what the code does."""

from __future__ import annotations

import re
import secrets
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.settings import SupabaseSettings, TenantSettings
from servers.lint import problems
from servers.reference import table
from servers.registry import load_registry
from servers.supabase.login import check_login
from servers.tool import Tool

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "supabase.md").read_text()
CREDENTIALS = (DOCS / "credentials.md").read_text()

#: What Supabase has that the page's SQL builds on.
SUPABASE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticated') THEN CREATE ROLE authenticated; END IF;
    DROP ROLE IF EXISTS omniops_login;
END $$;
CREATE SCHEMA auth;
CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS
    $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb $$;
GRANT USAGE ON SCHEMA auth TO authenticated;
"""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)


@pytest.fixture
def project(postgres: str) -> Iterator[str]:
    """URL of an empty project, as its owner."""
    name = f"page_{secrets.token_hex(4)}"
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}".encode())
        url = postgres.replace("///postgres?", f"///{name}?")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SUPABASE.encode())
            yield url
            connection.execute(b"DROP OWNED BY omniops_login; DROP ROLE omniops_login")
        server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_the_table_is_the_registrys() -> None:
    assert PAGE.endswith("\n\n" + table(load_registry(), "supabase")), "run python -m servers.reference supabase"


def test_the_tools_are_well_made() -> None:
    assert [problem for tool in load_registry().of_server("supabase") for problem in problems(tool)] == []


def test_the_settings_are_understood_and_those_not_needed_are_the_defaults() -> None:
    direct, api = (tomllib.loads(each)["tenants"]["acme"]["supabase"] for each in blocks(PAGE, "toml"))
    found, bare = SupabaseSettings(**direct), SupabaseSettings(database_url=direct["database_url"])
    for name in ("schemas", "statement_timeout_s", "in_flight", "result_mb", "batch_rows"):
        assert getattr(found, name) == getattr(bare, name)
    assert SupabaseSettings(**api).jwt_secret is not None
    [shop] = blocks(CREDENTIALS, "toml")
    assert TenantSettings(**tomllib.loads(shop)["tenants"]["acme"]).shop is not None


async def test_the_sql_makes_a_login_that_is_taken_and_policies_that_keep_apart(project: str) -> None:
    rows = "INSERT INTO parcel (tenant, customer, state) VALUES ('acme', 7, 'a'), ('acme', 8, 'b'), ('rival', 7, 'c')"
    with psycopg.connect(project, autocommit=True) as owner:
        for statements in (*blocks(PAGE, "sql"), rows):
            owner.execute(statements.encode())
    # the owner is a superuser here, and may speak for the login
    async with await psycopg.AsyncConnection.connect(
        project, autocommit=True, row_factory=psycopg.rows.dict_row
    ) as connection:
        await connection.execute(b"SET SESSION AUTHORIZATION omniops_login")
        assert (await check_login(connection, "authenticated"))["login"] == "omniops_login"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(b"SELECT * FROM parcel")
        for claims, wanted in (
            ('{"tenant": "acme"}', [1, 2]),
            ('{"tenant": "acme", "customer": "8"}', [2]),
            ("{}", []),
        ):
            async with connection.transaction():
                await connection.execute(
                    "SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true)",
                    (claims,),
                )
                found = await (await connection.execute(b"SELECT id FROM parcel ORDER BY id")).fetchall()
            assert [row["id"] for row in found] == wanted


def test_the_login_is_the_one_that_the_tools_are_tried_with() -> None:
    world = (DOCS.parent / "tests" / "servers" / "supabase_world.py").read_text()
    assert blocks(PAGE, "sql")[0] in world


def test_the_example_of_a_tool_is_one() -> None:
    space: dict[str, Any] = {"__name__": "servers.weather.tools"}
    [example] = blocks(CREDENTIALS, "python")
    exec(compile(example.replace("from __future__", "#"), "docs/credentials.md", "exec"), space)
    made = space["weather_quota"]
    assert isinstance(made, Tool)
    assert (made.qualified_name, made.credentials) == ("weather.weather_quota", ("weather_key",))
