"""Every route of the OpenAPI, walked with another tenant's token: nothing of a tenant's is read, changed or named.

A new route is walked as well: its parameters are what the attacked tenant has, its body is made from its schema.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import counting
import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from gateway_world import own_database, settings_for

from gateway.app import create_app
from gateway.routes.guard import check_declared, declared
from gateway.runtime import Gateway, open_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Whose things are attacked, and who comes for them.
VICTIM, RIVAL = "victim-gmbh", "rival-ltd"
OWN, THEIRS, DECIDES = "the-victims-own-token", "the-rivals-own-token", "the-rivals-approvers-token"
CREDENTIAL = "victims_parcel_key"

#: Streams without an end, of what another route of the walk lists.
ENDLESS = {"/v1/approvals/events"}
#: What one may know without a token.
PUBLIC = {"/healthz", "/readyz"}

CELL = """
from servers.counting import add, pay
add(name="victims-account", amount=5)
pay(name="victims-account", amount=7)
"""


@dataclass(frozen=True)
class Walls:
    """A gateway, and by parameter what the victim has in it."""

    gateway: Gateway
    app: FastAPI
    has: dict[str, str]

    @asynccontextmanager
    async def client(self, token: str) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as made:
            yield made

    async def attack(self, token: str) -> list[tuple[str, httpx.Response, bool]]:
        """Every operation, its answer, and whether it named something of the victim's."""
        found = []
        async with self.client(token) as http:
            for path, method, operation in operations(self.app):
                if path in ENDLESS | PUBLIC:
                    continue
                url, query, named = path, {}, False
                for parameter in operation.get("parameters", ()):
                    name = parameter["name"]
                    if parameter["in"] == "path":
                        url = url.replace(f"{{{name}}}", self.has.get(name, self.has["session"]))
                        named = True
                    elif parameter["in"] == "query" and name in ("tenant", "session"):
                        query[name] = self.has[name]
                        named = True
                body = self.body(operation)
                named |= any(each in json.dumps(body) for each in (VICTIM, self.has["session"]))
                content = {"json": body} if body is not None else {}
                answer = await http.request(method, url, params=query, **content)
                found.append((f"{method.upper()} {path}", answer, named))
        return found

    def body(self, operation: dict[str, Any]) -> Any:
        """The least that fits, about the victim where it can be."""
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        return None if content is None else self.fill(content["schema"], "")

    def fill(self, schema: dict[str, Any], name: str) -> Any:
        if name in ("tenant", "session"):
            return self.has[name]
        if "$ref" in schema:
            return self.fill(self.app.openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]], name)
        for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            return self.fill(choice, name)
        if "enum" in schema or "const" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        if schema.get("type") == "object":
            wanted = {*schema.get("required", ()), "tenant", "session"}
            return {key: self.fill(each, key) for key, each in schema.get("properties", {}).items() if key in wanted}
        return {"string": "agent-string", "integer": 1, "number": 1, "boolean": False, "array": []}.get(schema["type"])


def operations(app: FastAPI) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in app.openapi()["paths"].items():
        # what ends a session comes last, so that all else finds it alive
        for method in sorted(methods, key=lambda each: each == "delete"):
            yield path, method, methods[method]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walls(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Walls]:
    folder = tmp_path_factory.mktemp("walls")
    servers = {"mcpServers": {"victims-server": {"command": sys.executable, "args": ["-c", ""]}}}
    (folder / "mcp.json").write_text(json.dumps(servers))
    tenants = {VICTIM: {"token": OWN, "mcp_file": folder / "mcp.json"}, RIVAL: {"token": THEIRS}}
    approvals = {"hold_s": 0, "approvers": {"bob": {"token": DECIDES, "tenants": [RIVAL]}}}
    with own_database(postgres) as url:
        settings = settings_for(
            folder / "data", url, tenants=tenants, approvals=approvals, agent={"everyday_tools": ()}
        )
        async with open_gateway(settings, registry=counting.registry()) as gateway:
            await gateway.database.execute(counting.UPSTREAM)
            await gateway.vault.put(VICTIM, CREDENTIAL, "a-value-of-the-victims", "test")
            session = (await gateway.sessions.create(VICTIM, f"tenant:{VICTIM}", "agent", "victims title")).id
            run = await gateway.sessions.run_cell(session, CELL)
            assert run.result.status == "paused", run.envelope
            [approval] = await gateway.database.fetch("SELECT id FROM approval")
            [call] = await gateway.database.fetch("SELECT id FROM call WHERE tool = 'counting.add'")
            has = {
                "tenant": VICTIM,
                "session": session,
                "kernel": session,
                "cell": run.cell,
                "approval": approval["id"],
            }
            has |= {"call": str(call["id"]), "name": CREDENTIAL, "module": "victims_server"}
            yield Walls(gateway, create_app(gateway), has)


async def test_every_route_says_what_it_does(walls: Walls) -> None:
    routes = dict(declared(walls.app))
    assert len(routes) > 50
    assert None not in routes.values()
    assert {route for route, found in routes.items() if found == "public"} == {
        "GET /.well-known/oauth-protected-resource/mcp",
        "GET /healthz",
        "GET /readyz",
        "OPTIONS /api",
        "OPTIONS /api/{path:path}",
    }


async def test_a_route_that_does_not_is_refused_to_everybody(walls: Walls) -> None:
    app = create_app(walls.gateway)

    @app.get("/v1/new")
    async def new() -> str:
        return "reached"

    app.mount("/mounted", new)
    with pytest.raises(TypeError, match=r"GET /v1/new, .*/mounted"):
        check_declared(app)
    headers = {"authorization": f"Bearer {walls.gateway.token}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        answer = await http.get("/v1/new", headers=headers)
    assert (answer.status_code, "reached" in answer.text) == (403, False)


@pytest.mark.parametrize("token", [THEIRS, DECIDES, "", "no-token-at-all"])
async def test_no_route_gives_anything_of_another_tenants(walls: Walls, token: str) -> None:
    answers = await walls.attack(token)
    assert len(answers) > 30
    refused = {what: answer.status_code for what, answer, named in answers if named or token not in (THEIRS, DECIDES)}
    assert {what: code for what, code in refused.items() if code not in (401, 403, 404)} == {}
    told = {VICTIM, walls.has["session"], walls.has["approval"], "victims title", "victims-account", "a-value-of"}
    for what, answer, named in answers:
        if not named:
            assert not [each for each in told if each in answer.text], what


async def test_afterwards_all_is_as_it_was(walls: Walls) -> None:
    await walls.attack(THEIRS)
    session = walls.has["session"]
    assert walls.gateway.sessions.kernel(session) is not None
    [approval] = await walls.gateway.database.fetch("SELECT state FROM approval")
    assert approval["state"] == "pending"
    assert [row["amount"] for row in await walls.gateway.database.fetch("SELECT amount FROM effect")] == [5]
    assert [each.name for each in await walls.gateway.vault.entries(VICTIM)] == [CREDENTIAL]
    assert await walls.gateway.database.fetch("SELECT FROM session WHERE tenant = %s", (VICTIM,)) == [{}]


async def test_the_tenants_own_token_is_let_in_by_the_same_doors(walls: Walls) -> None:
    """So the walk was refused for whose token it had, not for what it asked."""
    has, opened = walls.has, []
    async with walls.client(OWN) as http:
        for path in (
            "/v1/sessions/{session}",
            "/v1/sessions/{session}/cells",
            "/v1/sessions/{session}/cells/{cell}",
            "/v1/approvals/{approval}",
            "/v1/transcripts/{session}",
            "/v1/servers/{module}/tools",
        ):
            opened.append((await http.get(path.format(**has))).status_code)
    assert set(opened) == {200}
