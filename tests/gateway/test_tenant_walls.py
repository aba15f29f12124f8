"""Every route of the OpenAPI, walked with another tenant's token: nothing of a tenant's is read, changed or named.

A new route is walked as well: its parameters are what the attacked tenant has, its body is made from its schema.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import counting
import httpx
import psycopg
import pytest
import pytest_asyncio
from fastapi import FastAPI
from gateway_world import own_database, settings_for

from gateway.acts import ACTS, KEY_ROLES, CallerRole, may
from gateway.app import create_app
from gateway.identity.keys import KeyRows, NewKey
from gateway.jupyter.kernels import kernel_id
from gateway.routes.guard import check_declared, declared
from gateway.runtime import Gateway, open_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Whose things are attacked, and who comes for them.
VICTIM, RIVAL = "victim-gmbh", "rival-ltd"
OWN, THEIRS, DECIDES = "the-victims-own-token", "the-rivals-own-token", "the-rivals-approvers-token"
CREDENTIAL = "victims_parcel_key"
LABEL = "victims label"

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
    #: API keys by whose they are and their role, and the configuration's tokens beside them.
    tokens: dict[str, str]

    @asynccontextmanager
    async def client(self, token: str) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as made:
            yield made

    def handshake(self, path: str, token: str) -> dict[str, Any]:
        return {
            "type": "websocket",
            "path": path.replace("{token}", token),
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {token}".encode())] if token else [],
            "subprotocols": [],
            "client": ("192.0.2.7", 1),
            "extensions": {"websocket.http.response": {}},
        }

    async def websocket(self, path: str, token: str) -> int:
        """The status that the handshake is answered with; 101 for an open connection."""
        told: list[dict[str, Any]] = []
        asked = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}]

        async def receive() -> dict[str, Any]:
            return asked.pop(0) if asked else {"type": "websocket.disconnect", "code": 1001}

        async def send(message: Any) -> None:
            told.append(message)

        await self.app(self.handshake(path, token), receive, send)
        return 101 if told[0]["type"] == "websocket.accept" else int(told[0]["status"])

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
                url = url.replace("{path}", "kernels").replace("{key}", self.has["key"])
                answer = await http.request(method, url, params=query, **content)
                found.append((f"{method.upper()} {path}", answer, named))
        for hub in self.gateway.jupyter.all(RIVAL):  # what it may make for itself
            await self.gateway.jupyter.end(hub)
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
            folder / "data",
            url,
            tenants=tenants,
            approvals=approvals,
            agent={"everyday_tools": ()},
            identity={"wrong_per_minute": 10**6},
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
            left = await gateway.database.fetch_one(
                "INSERT INTO handover (tenant, session, summary, idempotency_key) VALUES (%s, %s, %s, 'k')"
                " RETURNING id",
                (VICTIM, has["session"], "victims title"),
            )
            assert left is not None
            has["handover"] = str(left["id"])
            has |= {"call": str(call["id"]), "name": CREDENTIAL, "module": "victims_server"}
            keys = {}
            for tenant in (VICTIM, RIVAL, None):
                for role in KEY_ROLES:
                    made = await gateway.identity.keys.create(role=role, tenant=tenant, label=LABEL, by="test")
                    keys[f"{tenant}:{role}"] = made.text
                    has["key"] = made.key.id if tenant == VICTIM else has.get("key", "")
            tokens = {"theirs": THEIRS, "decides": DECIDES, "": "", "wrong": "no-token-at-all", **keys}
            tokens["revoked"] = (await revoked(gateway.identity.keys)).text
            tokens["no secret"] = f"omk_{has['key']}_{'A' * 43}"
            yield Walls(gateway, create_app(gateway), has, tokens)


async def revoked(keys: KeyRows) -> NewKey:
    made = await keys.create(role="admin", tenant=None, label="over", by="test")
    await keys.revoke(made.key.id, tenant=None, by="test")
    return made


async def test_every_route_says_what_it_does(walls: Walls) -> None:
    routes = dict(declared(walls.app))
    assert len(routes) > 50
    assert None not in routes.values()
    assert {route for route, found in routes.items() if found == "public"} == {
        "GET /.well-known/oauth-protected-resource/mcp",
        "GET /v1/exports/{link}",
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


#: Whose token nobody has, or has no more.
NOBODY = ("", "wrong", "revoked", "no secret")


@pytest.mark.parametrize("whose", ["theirs", "decides", *(f"{RIVAL}:{role}" for role in KEY_ROLES), *NOBODY])
async def test_no_route_gives_anything_of_another_tenants(walls: Walls, whose: str) -> None:
    answers = await walls.attack(walls.tokens[whose])
    assert len(answers) > 30
    refused = {what: answer.status_code for what, answer, named in answers if named or whose in NOBODY}
    assert {what: code for what, code in refused.items() if code not in (401, 403, 404)} == {}
    told = {VICTIM, walls.has["session"], walls.has["approval"], "victims title", "victims-account", "a-value-of"}
    told |= {walls.has["key"]}
    for what, answer, named in answers:
        if not named:
            assert not [each for each in told if each in answer.text], what


#: By act, who may: said here once more, so that the table is not changed by accident.
WHO_MAY = {
    "about": "agent analyst tenant ops admin",
    "tools.look": "agent analyst tenant ops admin",
    "sessions.look": "agent analyst tenant ops admin",
    "sessions.run": "agent analyst tenant admin",
    "sessions.end": "agent analyst tenant ops admin",
    "chat": "agent analyst tenant admin",
    "kernels": "analyst tenant admin",
    "work.look": "analyst tenant ops admin",
    "transcripts.read": "analyst tenant ops admin",
    "transcripts.replay": "analyst tenant admin",
    "transcripts.record": "admin",
    "transcripts.erase": "admin",
    "approvals.look": "tenant ops admin approver",
    "approvals.decide": "tenant ops admin approver",
    "catalogue.load": "tenant ops admin",
    "operations": "ops admin",
    "metrics": "ops admin metrics",
    "tools.decide": "admin",
    "credentials": "admin",
    "keys": "admin",
    "audit": "admin",
    "gdpr": "admin",
}


async def test_each_role_may_do_what_the_table_says_and_nothing_else() -> None:
    roles: tuple[CallerRole, ...] = ("agent", "analyst", "tenant", "ops", "admin", "approver", "metrics")
    assert {act: " ".join(role for role in roles if may(role, act)) for act in ACTS if act != "public"} == WHO_MAY


@pytest.mark.parametrize("whose", NOBODY)
async def test_nothing_of_a_strangers_request_is_read(walls: Walls, whose: str) -> None:
    """401 whatever is asked, also for what there is not: no body is parsed, no path confirmed."""
    routes = [route.partition(" ") for route, act in declared(walls.app) if act != "public"]
    async with walls.client(walls.tokens[whose]) as http:
        for methods, _, path in [*routes, ("POST", " ", "/v1/nothing")]:
            if methods == "WEBSOCKET":
                assert await walls.websocket(path.replace("/token/{token}", ""), walls.tokens[whose]) == 401
                continue
            for method in methods.split("|"):
                answer = await http.request(method, path, content=b"{", headers={"content-type": "application/json"})
                assert answer.status_code == 401, path


@pytest.mark.parametrize("role", [*KEY_ROLES, "tenant", "approver"])
async def test_every_route_refuses_the_roles_that_may_not(walls: Walls, role: CallerRole) -> None:
    """All of them, those outside of the OpenAPI and websockets as well: 403 and nothing else, whatever is asked."""
    token = {"tenant": OWN, "approver": DECIDES}.get(role) or walls.tokens[f"{VICTIM}:{role}"]
    closed = [route for route, act in declared(walls.app) if act not in (None, "public") and not may(role, act)]
    assert bool(closed) is (role != "admin")
    async with walls.client(token) as http:
        for route in closed:
            methods, _, path = route.partition(" ")
            if methods == "WEBSOCKET":
                assert await walls.websocket(path, token) == 403, route
                continue
            for method in methods.split("|"):
                answer = await http.request(method, path, json={})
                assert answer.status_code == 403, route


async def test_a_role_reaches_no_session_of_a_higher_one(walls: Walls) -> None:
    """A key for conversations opens no session of the staff, nor does it run anything in one that is open."""
    made = await walls.gateway.sessions.create(VICTIM, "test", "analyst", kernel=False)
    shop = await walls.gateway.sessions.create(VICTIM, "test", "operator", kernel=False)
    found: dict[str, list[int]] = {}
    for role in KEY_ROLES:
        async with walls.client(walls.tokens[f"{VICTIM}:{role}"]) as http:
            tried = [
                await http.post("/v1/sessions", json={"tenant": VICTIM, "role": "operator", "profile": "none"}),
                *[await http.get(f"/v1/sessions/{session.id}") for session in (made, shop)],
                *[await http.get(f"/v1/sessions/{session.id}/cells") for session in (made, shop)],
                await http.get("/v1/tools", params={"role": "operator", "tenant": VICTIM}),
            ]
            listed = {each["role"] for each in (await http.get("/v1/sessions")).json()}
            found[role] = [each.status_code for each in tried]
            assert listed == {"agent": {"agent"}, "analyst": {"agent", "analyst"}}.get(
                role, {"agent", "analyst", "operator"}
            )
    assert found == {
        "agent": [403, 403, 403, 403, 403, 403],
        "analyst": [403, 200, 403, 200, 403, 403],
        "ops": [403, 200, 200, 200, 200, 200],
        "admin": [422, 200, 200, 200, 200, 200],  # there is no such profile
    }
    for session in (made, shop):
        await walls.gateway.sessions.end(session.id)


async def test_a_websocket_is_opened_by_who_may_and_reaches_it(walls: Walls) -> None:
    hub = await walls.gateway.jupyter.start(VICTIM, "test", "", walls.gateway.pool.profiles, {}, "")
    path = f"/api/kernels/{kernel_id(hub.about.session)}/channels"
    status = {name: await walls.websocket(path, token) for name, token in walls.tokens.items()}
    opened = {name for name, code in status.items() if code == 101}
    assert opened == {f"{tenant}:{role}" for tenant in (VICTIM, None) for role in ("analyst", "admin")}
    assert {status[name] for name in NOBODY} == {401}
    assert {status[f"{RIVAL}:{role}"] for role in ("analyst", "admin")} == {404}
    assert await walls.websocket(f"/token/{{token}}{path}", walls.tokens[f"{VICTIM}:analyst"]) == 101
    await walls.gateway.jupyter.end(hub)


async def test_starts_at_the_same_time_never_mix_environments(walls: Walls) -> None:
    """Each kernel has the variables of its own request: not one of another's, of its own tenant or of another."""
    seen = (
        "import json, os; print(json.dumps({n: v for n, v in os.environ.items() if n.startswith(('ONLY', 'WHOSE'))}))"
    )

    async def start(http: httpx.AsyncClient, whose: str) -> tuple[str, dict[str, str]]:
        asked = {f"ONLY_{whose}": "here", "WHOSE": whose}
        made = await http.post("/api/kernels", json={"env": asked})
        assert made.status_code == 201, made.text
        ran = await http.post(f"/v1/sessions/{uuid.UUID(made.json()['id']).hex}/cells", json={"code": seen})
        text = ran.json()["outputs"][0]["text"]
        assert json.loads(text) == asked
        return made.json()["id"], asked

    async with walls.client(OWN) as own, walls.client(THEIRS) as theirs:
        for turn in range(3):
            wanted = [(own if number % 2 else theirs, f"{turn}_{number}") for number in range(6)]
            started = await asyncio.gather(*(start(http, whose) for http, whose in wanted))
            assert len({id for id, _ in started}) == len(wanted)
            ended = [
                await http.delete(f"/api/kernels/{id}") for (http, _), (id, _) in zip(wanted, started, strict=True)
            ]
            assert {each.status_code for each in ended} == {204}


async def test_a_socket_is_closed_when_its_key_is_revoked(walls: Walls) -> None:
    made = await walls.gateway.identity.keys.create(role="analyst", tenant=VICTIM, label="short", by="test")
    hub = await walls.gateway.jupyter.start(VICTIM, "test", "", walls.gateway.pool.profiles, {}, "")
    told: asyncio.Queue[Any] = asyncio.Queue()
    asked: asyncio.Queue[Any] = asyncio.Queue()
    asked.put_nowait({"type": "websocket.connect"})
    scope = walls.handshake(f"/api/kernels/{kernel_id(hub.about.session)}/channels", made.text)
    open_one = asyncio.create_task(walls.app(scope, asked.get, told.put))
    async with asyncio.timeout(60):
        assert (await told.get())["type"] == "websocket.accept"
        async with walls.client(walls.tokens[f"{VICTIM}:admin"]) as http:
            assert (await http.delete(f"/v1/keys/{made.key.id}")).status_code == 200
        while (last := await told.get())["type"] != "websocket.close":
            continue
        await open_one
    assert (last["code"], "token" in last["reason"]) == (1008, True)
    await walls.gateway.jupyter.end(hub)


async def test_what_was_refused_and_what_was_done_is_in_the_audit(walls: Walls) -> None:
    async with walls.client(walls.tokens["None:admin"]) as http:
        made = (await http.post("/v1/keys", json={"role": "agent", "tenant": VICTIM, "label": "x"})).json()
        await http.delete(f"/v1/keys/{made['id']}", params={"by": "olaf"})
        async with walls.client(walls.tokens[f"{RIVAL}:ops"]) as rival:
            await rival.delete(f"/v1/keys/{made['id']}")
        entries = (await http.get("/v1/audit", params={"action": "key"})).json()["entries"][:3]
    assert [(each["action"], each["tenant"], each["outcome"]) for each in entries] == [
        ("keys", RIVAL, "forbidden"),
        ("key.revoked", VICTIM, "done"),
        ("key.created", VICTIM, "done"),
    ]
    assert entries[1]["principal"].endswith("(olaf)")
    assert {each["source"] for each in entries} == {"127.0.0.1"}
    assert made["key"] not in repr(entries)
    for change in (
        "UPDATE administration SET outcome = 'done'",
        "DELETE FROM administration",
        "TRUNCATE administration",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="only added to"):
            await walls.gateway.database.execute(change)


async def test_afterwards_all_is_as_it_was(walls: Walls) -> None:
    before = await walls.gateway.database.fetch("SELECT id FROM session WHERE tenant = %s", (VICTIM,))
    await walls.attack(walls.tokens[f"{RIVAL}:admin"])
    session = walls.has["session"]
    assert walls.gateway.sessions.kernel(session) is not None
    assert {key.revoked for key in await walls.gateway.identity.keys.list(VICTIM) if key.label == LABEL} == {None}
    [approval] = await walls.gateway.database.fetch("SELECT state FROM approval")
    assert approval["state"] == "pending"
    assert [row["amount"] for row in await walls.gateway.database.fetch("SELECT amount FROM effect")] == [5]
    assert [each.name for each in await walls.gateway.vault.entries(VICTIM)] == [CREDENTIAL]
    assert await walls.gateway.database.fetch("SELECT id FROM session WHERE tenant = %s", (VICTIM,)) == before


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
