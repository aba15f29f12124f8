"""Tools over HTTP and in a real kernel, ten thousand of them: what tenant and role may have, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from gateway_world import own_database, settings_for

from gateway.app import create_app
from gateway.runtime import Gateway, open_gateway
from servers.foreign.record import Definition
from servers.foreign.tool import foreign_tool
from servers.tool import EVERYBODY, OPERATOR, Role, Tool

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOP, OTHER, BIG, ANNA = "the-shops-own-token", "the-others-own-token", "the-bigs-own-token", "annas-own-token"
APPS: dict[str, FastAPI] = {}
SCHEMA = {"type": "object", "properties": {"parcel": {"type": "string", "description": "Its number."}}}


async def nothing(*_: Any) -> None: ...


def tool_of(server: str, name: str, doc: str, roles: tuple[Role, ...] = EVERYBODY) -> Tool:
    definition = Definition(name, doc, SCHEMA, {"type": "object", "properties": {"state": {"type": "string"}}})
    return foreign_tool(server, definition, call=nothing, effect="write", roles=roles)


def many(count: int) -> list[Tool]:
    """Of a hundred servers."""
    made = tool_of("bulk", "x", "x")
    return [
        dataclasses.replace(made, server=f"bulk_{n % 100:02}", name=f"do_{n}", doc=f"Do thing {n}.")
        for n in range(count)
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    tenants = {"shop": {"token": SHOP}, "other": {"token": OTHER}, "big": {"token": BIG}, "third": {}}
    approvals = {"approvers": {"anna": {"token": ANNA}}}
    with own_database(postgres) as url:
        settings = settings_for(tmp_path_factory.mktemp("tools"), url, tenants=tenants, approvals=approvals)
        async with open_gateway(settings) as gateway:
            shops = [
                tool_of("parcels_of_shop", "track-parcel", "Track a parcel with the zebra courier."),
                tool_of("parcels_of_shop", "burn_parcel", "Burn a parcel of the zebra courier.", OPERATOR),
                tool_of("parcels_of_shop", "leak", f"Wants {gateway.token}\u202e and \u200bmore."),
            ]
            gateway.catalogue.put("shop", shops, {"parcels_of_shop": "A courier."})
            bigs = [*many(10_000), *shops[:2]]
            gateway.catalogue.put("big", bigs, dict.fromkeys((tool.server for tool in bigs), "Things."))
            others = [tool_of("letters_of_other", "post_letter", "Post a letter by the zebra courier.")]
            gateway.catalogue.put("other", others, {"letters_of_other": "Letters."})
            yield gateway


def app_of(gateway: Gateway) -> FastAPI:
    """Made once: its models take their time."""
    if gateway.token not in APPS:
        APPS[gateway.token] = create_app(gateway)
    return APPS[gateway.token]


@asynccontextmanager
async def client(gateway: Gateway, token: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app_of(gateway))
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as made:
        yield made


async def asked(gateway: Gateway, token: str, path: str = "", **params: Any) -> Any:
    async with client(gateway, token) as http:
        answer = await http.get(f"/v1/tools{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(gateway: Gateway, token: str, path: str = "", **params: Any) -> dict[str, Any]:
    async with client(gateway, token) as http:
        answer = await http.get(f"/v1/tools{path}", params=params)
    assert answer.is_error, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    return problem


async def everything(gateway: Gateway, token: str, limit: int = 200, **params: Any) -> list[str]:
    """Names by the pages of a list."""
    names: list[str] = []
    after, total = "", 0
    while after is not None:
        page = await asked(gateway, token, limit=limit, after=after, **params)
        names += [tool["name"] for tool in page["tools"]]
        after, total = page["next"], page["total"]
    assert len(names) == total
    return names


async def test_a_tenant_finds_its_own_among_ten_thousand(gateway: Gateway) -> None:
    found = await asked(gateway, BIG, query="where is my parcel, zebra courier", limit=3)
    assert found["tools"][0] == {
        "name": "parcels_of_shop.track_parcel",
        "call": "parcels_of_shop.track_parcel(*, parcel=...) -> TrackParcelResult",
        "effect": "write",
        "roles": ["agent", "analyst", "operator"],
        "summary": "Track a parcel with the zebra courier.",
    }
    assert found["total"] > 10_000
    assert (await asked(gateway, BIG, query="do thing 7777", limit=1))["tools"][0]["name"] == "bulk_77.do_7777"
    assert (await asked(gateway, BIG, query="zebra", server="bulk_01"))["tools"] == []
    of_one = await asked(gateway, BIG, query="thing 501", server="bulk_01", limit=1)
    assert (of_one["tools"][0]["name"], of_one["total"]) == ("bulk_01.do_501", 100)


async def test_no_tool_of_another_tenant_ever_shows(gateway: Gateway) -> None:
    assert "parcels_of_shop.track_parcel" in await everything(gateway, SHOP)
    for token in (OTHER, gateway.token):  # the server's own token names no tenant here: what every tenant has
        names = set(await everything(gateway, token))
        assert not [name for name in names if "shop." in name or "bulk" in name]
    queries = ("zebra courier", "parcels_of_shop", "track-parcel", "thing 1", "burn")
    seen = [await asked(gateway, OTHER, query=query, limit=200) for query in queries]
    assert "of_shop" not in str(seen)
    assert "bulk" not in str(seen)
    assert "letters_of_other.post_letter" in str(seen)
    for params in ({}, {"query": "zebra"}, {"server": "parcels_of_shop"}, {"role": "agent"}):
        assert (await refused(gateway, OTHER, tenant="shop", **params))["code"] == "forbidden"
    assert (await refused(gateway, OTHER, "/parcels_of_shop.track_parcel", tenant="shop"))["code"] == "forbidden"
    assert (await refused(gateway, OTHER, tenant=""))["code"] == "bad_request"


@pytest.mark.parametrize("name", ["parcels_of_shop.track_parcel", "parcels_of_shop.burn_parcel", "bulk_00.do_0"])
async def test_anothers_tool_is_answered_as_one_that_does_not_exist(gateway: Gateway, name: str) -> None:
    server, _, tool = name.partition(".")
    told = await refused(gateway, OTHER, f"/{name}")
    of_none = await refused(gateway, OTHER, f"/nowhere_at_all.{tool}")
    assert {**told, "message": told["message"].replace(server, "nowhere_at_all")} == of_none
    assert of_none["code"] == "unknown_tool"
    told = await refused(gateway, OTHER, server=server)
    of_none = await refused(gateway, OTHER, server="qqqqqqqq")
    assert {**told, "message": told["message"].replace(server, "qqqqqqqq")} == of_none


async def test_a_tenants_token_sees_what_its_sessions_may_call(gateway: Gateway) -> None:
    registry = gateway.catalogue.of_tenant("shop")
    may = {tool.qualified_name for tool in registry if set(tool.roles) & {"agent", "analyst"}}
    assert set(await everything(gateway, SHOP)) == may
    for role in ("agent", "analyst"):
        own = {tool.qualified_name for tool in registry if role in tool.roles}
        assert set(await everything(gateway, SHOP, role=role)) == own
        found = await asked(gateway, SHOP, query="refund an order", role=role, limit=200)
        assert {tool["name"] for tool in found["tools"]} <= own
    for query in ("burn a parcel", "refund an order", "delete a webhook"):
        found = await asked(gateway, SHOP, query=query, limit=200)
        assert {tool["name"] for tool in found["tools"]} <= may
    assert (await refused(gateway, SHOP, role="operator"))["code"] == "forbidden"
    hidden = await refused(gateway, SHOP, "/parcels_of_shop.burn_parcel")
    assert (hidden["code"], "burn_parcel?" in hidden["hint"]) == ("unknown_tool", False)
    whole = await asked(gateway, gateway.token, "/parcels_of_shop.burn_parcel", tenant="shop")
    assert whole["roles"] == ["operator"]
    assert "parcels_of_shop.burn_parcel" in await everything(gateway, gateway.token, tenant="shop", role="operator")


async def test_a_record_has_all_that_the_tool_has(gateway: Gateway) -> None:
    registry = gateway.catalogue.built_in
    async with client(gateway, gateway.token) as http:
        for tool in registry:
            record = (await http.get(f"/v1/tools/{tool.qualified_name}")).json()
            assert record["signature"] == tool.signature
            assert record["doc"] == tool.shown_doc
            assert record["input_schema"] == tool.input_schema
            assert record["output_schema"] == tool.output_schema
            assert record["roles"] == list(tool.roles)
            assert (record["effect"], record["undone_by"], record["foreign"]) == (tool.effect, tool.revert, False)
            assert [each["name"] for each in record["parameters"]] == [each.name for each in tool.parameters]
            assert f"def {tool.name}(" in record["stub"]
            assert record["server_description"] == registry.documents[tool.server]


async def test_what_a_foreign_server_says_is_shown_without_secrets_and_tricks(gateway: Gateway) -> None:
    record = await asked(gateway, SHOP, "/parcels_of_shop.leak")
    assert record["foreign"]
    assert record["doc"] == record["summary"] == "Wants [secret] and more."
    assert gateway.token not in str([record, await asked(gateway, SHOP, query="wants more", limit=200)])


async def test_a_list_goes_on_by_name(gateway: Gateway) -> None:
    names = await everything(gateway, SHOP, 9)
    assert names == sorted(set(names))
    assert len(names) > 27
    own = [name for name in names if name.startswith("woocommerce.")]
    assert await everything(gateway, SHOP, 4, server="woocommerce") == own


@pytest.mark.parametrize(
    ("token", "path", "params", "status", "said"),
    [
        (SHOP, "", {"limit": 0}, 422, "query.limit"),
        (SHOP, "", {"limit": 201}, 422, "query.limit"),
        (SHOP, "", {"query": "x" * 1001}, 422, "query.query"),
        (SHOP, "", {"role": "root"}, 422, "query.role"),
        (SHOP, "", {"server": "parcels_of_shp"}, 404, "Did you mean parcels_of_shop?"),
        (SHOP, "/parcels_of_shop.track_parcl", {}, 404, "Did you mean parcels_of_shop.track_parcel?"),
        (SHOP, "/classify", {}, 404, "GET /v1/tools?query=... finds tools."),
        (ANNA, "", {}, 403, "for approvals alone"),
        ("wrong", "", {}, 401, "access token is wrong"),
    ],
)
async def test_what_cannot_be_answered_says_why(
    gateway: Gateway, token: str, path: str, params: dict[str, Any], status: int, said: str
) -> None:
    problem = await refused(gateway, token, path, **params)
    assert problem["status"] == status
    assert said in problem["message"] + problem["hint"]


async def test_the_servers_token_has_to_name_a_tenant_that_there_is(gateway: Gateway) -> None:
    assert (await refused(gateway, gateway.token, tenant="nobody"))["code"] == "unknown_tenant"
    names = await everything(gateway, gateway.token, tenant="third")
    assert names == sorted(gateway.catalogue.built_in.names)


async def test_openapi_tells_of_tools_in_models(gateway: Gateway) -> None:
    async with client(gateway, SHOP) as http:
        document = (await http.get("/v1/openapi.json")).json()
    for path, model in (("/v1/tools", "Tools"), ("/v1/tools/{name}", "ToolRecord")):
        operation = document["paths"][path]["get"]
        answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert answer == {"$ref": f"#/components/schemas/{model}"}
        assert {"401", "403", "404", "422"} < set(operation["responses"])
        assert all(parameter["description"] for parameter in operation["parameters"] if parameter["name"] != "limit")


FINDS = """
import servers
servers.search("where is my parcel, zebra courier", 2)
servers.search("do thing 7777", 1)
servers.describe("parcels_of_shop.track_parcel")
"""
TAKES = """
from servers.parcels_of_shop import track_parcel
print(track_parcel.__name__, servers.parcels_of_shop.__all__)
"""
#: By name at run time, so that no check before the run says it first.
TRIES = """
import importlib
for server, tool in (("parcels_of_shop", "burn_parcel"), ("letters_of_other", "post_letter"), ("bulk_00", "do_0")):
    try:
        print(getattr(importlib.import_module(f"servers.{server}"), tool).__name__)
    except (ImportError, AttributeError) as error:
        print(error)
"""


async def test_a_cell_finds_by_tenant_and_role_among_ten_thousand(gateway: Gateway) -> None:
    printed: dict[str, list[str]] = {}
    for tenant, cells in (("big", (FINDS, TAKES, TRIES)), ("other", (FINDS, TRIES))):
        info = await gateway.sessions.create(tenant, "test", "agent")
        for cell in cells:
            run = await gateway.sessions.run_cell(info.id, cell)
            printed.setdefault(tenant, []).append("".join(str(each.get("text", "")) for each in run.result.outputs))
        await gateway.sessions.end(info.id)
    finds, takes, tries = printed["big"]
    assert finds.startswith("parcels_of_shop.track_parcel(*, parcel=...) -> TrackParcelResult  [write] Track a parcel")
    assert "\nbulk_77.do_7777(" in finds
    assert "parcel: Its number." in finds
    assert takes == "track_parcel ['track_parcel']\n"
    burn, letter, thing = tries.splitlines()
    assert "has no tool 'burn_parcel'" in burn
    assert letter.startswith("There is no servers.letters_of_other.")
    assert thing == "do_0"

    finds, tries = printed["other"]
    assert "letters_of_other.post_letter(" in finds
    assert "bulk" not in finds
    assert "There is no tool 'parcels_of_shop.track_parcel'." in finds
    burn, letter, thing = tries.splitlines()
    assert burn.startswith("There is no servers.parcels_of_shop.")
    assert letter == "post_letter"
    assert thing.startswith("There is no servers.bulk_00.")
