"""The door in front of all routes: what a client is answered that is not let in, and where a token may stand."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import jwt
import pytest
from fastapi import Depends, FastAPI
from fastapi.requests import HTTPConnection

from gateway.acts import act
from gateway.auth import Tokens
from gateway.db import Database
from gateway.identity.allowance import Allowance
from gateway.identity.identity import Identity
from gateway.routes.door import Door
from gateway.routes.guard import enforce
from gateway.routes.problems import install
from gateway.settings import Settings, load_settings

SECRET, ISSUER = "a-secret-of-supabase-with-32-characters-or-more", "https://project.supabase.co/auth/v1"
LIMITS: dict[str, Any] = {
    "identity": {"wrong_per_minute": 2, "cache_s": 0, "jwt": {"secret": SECRET, "issuer": ISSUER}},
    "limits": {"requests_per_minute": 60, "burst_s": 3},
}


def signed(**more: Any) -> str:
    claims = {"iss": ISSUER, "aud": "authenticated", "sub": "olaf", "exp": time.time() + 60}
    return jwt.encode(claims | {"app_metadata": {"tenant": "shop", "role": "agent"}} | more, SECRET, "HS256")


def app_for(identity: Identity) -> FastAPI:
    app = FastAPI(dependencies=[Depends(enforce)])
    app.state.gateway = SimpleNamespace(identity=identity)
    install(app)
    app.add_middleware(Door, routes=app, gateway=app.state.gateway)

    @app.get("/who")
    @app.get("/token/{token}/who")
    @act("about")
    async def who(connection: HTTPConnection) -> str:
        return f"{connection.state.principal.name} of {connection.state.principal.tenant}"

    return app


@pytest.fixture
async def identity(database: Database) -> Identity:
    settings: Settings = load_settings(**LIMITS)
    tokens = Tokens("operator-token", {"shop": "shop-token"})
    counted = Allowance(database, settings)
    return Identity(tokens, database, settings.identity, settings.limits, httpx.AsyncClient(), counted)


@pytest.fixture
async def http(identity: Identity) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app_for(identity), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as made:
        yield made


async def asked(http: httpx.AsyncClient, token: str) -> httpx.Response:
    return await http.get("/who", headers={"authorization": f"Bearer {token}"})


async def test_a_supabase_token_is_let_in_wherever_a_client_may_put_it(http: httpx.AsyncClient) -> None:
    token = signed()
    for answer in (
        await asked(http, token),
        await http.get("/who", params={"token": token}),
        await http.get(f"/token/{token}/who"),
    ):
        assert (answer.status_code, answer.json()) == (200, "user:olaf of shop")
    refused = await asked(http, signed(aud="service"))
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


async def test_too_many_requests_are_answered_with_when_to_come_again(http: httpx.AsyncClient) -> None:
    answers = [await asked(http, "shop-token") for _ in range(4)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429]
    last = answers[-1]
    assert last.headers["content-type"] == "application/problem+json"
    assert (last.json()["code"], last.headers["retry-after"]) == ("too_many_requests", "1")
    assert "limits.requests_per_minute" in last.json()["message"]
    assert (await asked(http, "operator-token")).status_code == 200


async def test_too_many_wrong_tokens_are_answered_so_too(http: httpx.AsyncClient) -> None:
    answers = [await asked(http, f"guess-{number}") for number in range(3)]
    assert [each.status_code for each in answers] == [401, 401, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 30
    assert "guess" not in answers[-1].text


async def test_while_the_database_is_away_keys_are_refused_for_now_and_others_are_not(
    http: httpx.AsyncClient, identity: Identity, database: Database
) -> None:
    key = await identity.keys.create(role="agent", tenant="shop", label="x", by="test")
    assert (await asked(http, key.text)).status_code == 200
    await database.close()
    answer = await asked(http, key.text)
    assert (answer.status_code, answer.json()["code"]) == (503, "no_database")
    assert (await asked(http, "shop-token")).status_code == 200
