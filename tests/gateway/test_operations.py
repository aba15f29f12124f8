"""What those who run a gateway see: metrics, request ids, logs; and that no secret or text of a client's gets there."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import counting
import httpx
import pytest
import pytest_asyncio
import structlog
from fastapi import FastAPI
from gateway_world import own_database, settings_for
from prometheus_client.parser import text_string_to_metric_families

from gateway import logs
from gateway.agent.types import TurnResult
from gateway.app import create_app
from gateway.operations.metrics import Few, Metrics
from gateway.operations.request_ids import request_id
from gateway.runtime import Gateway, open_gateway
from gateway.savings import Savings
from gateway.settings import MetricsSettings, ModelSettings, SavingsSettings
from gateway.tokens import RequestTokens, TurnTokens, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATOR, SHOP, OTHER, READER = (f"the-{name}-token-0123456789" for name in ("operators", "shops", "others", "readers"))
SECRETS = (OPERATOR, SHOP, OTHER, READER, "hunter2-password")


@dataclass(frozen=True)
class Served:
    gateway: Gateway
    app: FastAPI
    path: Path

    @asynccontextmanager
    async def client(self, token: str = "") -> AsyncIterator[httpx.AsyncClient]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as made:
            yield made

    async def samples(self, token: str = OPERATOR) -> dict[str, list[tuple[Mapping[str, str], float]]]:
        """What Prometheus would read, by name, through its own parser."""
        async with self.client(token) as http:
            answer = await http.get("/metrics")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(answer.text):
            assert family.documentation, family.name
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    async def value(self, name: str, **labels: str) -> float:
        found = [value for each, value in (await self.samples()).get(name, []) if labels.items() <= each.items()]
        return sum(found)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("operations")
    with own_database(postgres) as url:
        settings = settings_for(
            folder / "data",
            url,
            tenants={"shop": {"token": SHOP}, "other": {"token": OTHER}},
            server={"token": OPERATOR, "shutdown_grace_s": 2},
            metrics={"token": READER, "lag_every_s": 0.05},
            agent={"everyday_tools": ()},
        )
        async with open_gateway(settings, registry=counting.registry()) as gateway:
            await gateway.database.execute(counting.UPSTREAM)
            yield Served(gateway, create_app(gateway), folder)


class Log(io.StringIO):
    """What `omniops serve` would write."""

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def log(served: Served) -> Iterator[Log]:
    root, log = logging.getLogger(), Log()
    before, config = (root.handlers[:], root.level), structlog.get_config()
    logs.configure("info", served.gateway.scrubber, "json")
    [handler] = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(log)
    yield log
    root.handlers[:], root.level = before
    structlog.configure(**config)


# -- metrics --


async def test_what_happens_is_counted(served: Served) -> None:
    async with served.client(SHOP) as http:
        made = (await http.post("/v1/sessions", json={"tenant": "shop"})).json()["id"]
        code = "from servers.counting import add, look\nadd(name='a'); look(name='a'); look(name='a')"
        ran = await http.post(f"/v1/sessions/{made}/cells", json={"code": code})
        assert ran.json()["status"] == "ok", ran.text
        await http.post(f"/v1/sessions/{made}/cells", json={"code": "1 / 0"})
        await http.get(f"/v1/sessions/{made}")
        assert await served.value("omniops_sessions", kernel="yes") == 1
        assert await served.value("omniops_pool_kernels", state="leased") == 1
        await http.delete(f"/v1/sessions/{made}")
    assert await served.value("omniops_cells_total", tenant="shop", outcome="ok") == 1
    assert await served.value("omniops_cells_total", tenant="shop", outcome="error") == 1
    assert await served.value("omniops_cell_seconds_count") == 2
    added = {"server": "counting", "tool": "counting.add", "effect": "write", "outcome": "applied"}
    assert await served.value("omniops_tool_calls_total", **added) == 1
    assert await served.value("omniops_tool_calls_total", tool="counting.look", effect="read") == 2
    assert await served.value("omniops_tool_call_seconds_count", server="counting") == 3
    assert await served.value("omniops_pool_leases_total", profile="agent", outcome="leased") == 1
    assert await served.value("omniops_pool_lease_seconds_count", profile="agent") == 1
    assert await served.value("omniops_pool_started_total") >= 1
    assert await served.value("omniops_approvals_waiting") == 0
    assert await served.value("omniops_event_loop_lag_seconds_count") > 0
    assert await served.value("process_resident_memory_bytes") > 2**20
    route = {"method": "GET", "route": "/v1/sessions/{session}"}
    assert await served.value("omniops_http_requests_total", status="200", **route) == 1
    assert await served.value("omniops_http_request_seconds_count", **route) == 1
    assert await served.value("omniops_http_requests_total", route="/v1/sessions", method="POST", status="201") == 1


async def test_tokens_and_money_are_counted_by_tenant_and_model() -> None:
    metrics = Metrics(MetricsSettings(), ModelSettings(price_input=2, price_cached=1, price_output=10))
    told = RequestTokens(100, 0, 0, 0, 7, reported=Usage(1_000_000, 250_000, 100_000))
    ours = RequestTokens(300, 100, 100, 100, 50)
    turn = TurnResult("s", "answered", "a", "", (), (), TurnTokens((told, ours)), "cells", "", 1.0)
    metrics.turned("shop", "gpt-9", turn)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"tenant": "shop", **labels})

    assert value("omniops_turns_total", reason="answered") == 1
    of = {"model": "gpt-9"}
    assert value("omniops_model_tokens_total", kind="input", **of) == 750_000 + 400
    assert value("omniops_model_tokens_total", kind="cached", **of) == 250_000 + 100
    assert value("omniops_model_tokens_total", kind="output", **of) == 100_000 + 50
    assert value("omniops_model_dollars_total", **of) == pytest.approx(1.5 + 0.25 + 1.0 + 0.0008 + 0.0001 + 0.0005)


async def test_who_reads_metrics(served: Served) -> None:
    for token, status in ((OPERATOR, 200), (READER, 200), (SHOP, 403), ("", 401), (READER + "x", 401)):
        async with served.client(token) as http:
            assert (await http.get("/metrics")).status_code == status
    async with served.client(READER) as http:  # and nothing else
        assert (await http.get("/v1/sessions")).status_code == 403
        assert (await http.get("/v1/status")).status_code == 403


async def test_no_client_makes_series_or_puts_words_into_them(served: Served) -> None:
    async with served.client(SHOP) as http:

        async def series() -> int:
            return sum(len(each) for each in (await served.samples()).values())

        async def ask(number: int) -> None:
            await http.get(f"/v1/sessions/{number:032x}?q=hunter2-password")
            await http.get(f"/v1/nothing/{number}/hunter2-password")
            await http.request(f"BREW{number}", "/coffee", headers={"user-agent": f"hunter2-password-{number}"})
            await http.get(f"/v1/tools/hunter2-password-{number}")

        await ask(50)
        await series()
        before = await series()
        for number in range(50):
            await ask(number)
        assert await series() == before
    async with served.client(OPERATOR) as http:
        text = (await http.get("/metrics")).text
    assert not [secret for secret in SECRETS if secret in text]


async def test_only_so_many_tenants_tools_and_models_are_told_apart() -> None:
    few = Few(3)
    assert [few(name) for name in "abcdeab"] == ["a", "b", "c", "other", "other", "a", "b"]


# -- ids and logs --


async def test_each_request_has_an_id(served: Served) -> None:
    async with served.client(SHOP) as http:
        sent = await http.get("/v1/sessions", headers={"x-request-id": "mine-1"})
        assert sent.headers["x-request-id"] == "mine-1"
        for wrong in ("", "x" * 65, "a b", 'a"b', "é".encode(), SHOP):
            answer = await http.get("/v1/sessions", headers={"x-request-id": wrong})
            assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"]), wrong
        assert "x-request-id" in (await http.get("/none")).headers
    assert request_id(b"", b"") != request_id(b"", b"")


async def test_a_line_says_what_it_is_about(served: Served, log: Log) -> None:
    async with served.client(SHOP) as http:
        made = (await http.post("/v1/sessions", json={"tenant": "shop"})).json()["id"]
        path = f"/v1/sessions/{made}/cells"
        code = "from servers.counting import fail\nfail(how='bug')"
        await http.post(path, json={"code": code, "cell_id": "c1"}, headers={"x-request-id": "the-cells"})
        await http.delete(f"/v1/sessions/{made}")
    found = log.lines
    [request] = [each for each in found if each["event"] == "request" and each["request_id"] == "the-cells"]
    assert (request["method"], request["route"], request["status"]) == ("POST", "/v1/sessions/{session}/cells", 200)
    assert request["session"] == made
    [failed] = [each for each in found if each["event"] == "tool call failed unexpectedly"]
    ids = {name: failed[name] for name in ("request_id", "session", "cell", "tenant")}
    assert ids == {"request_id": "the-cells", "session": made, "cell": "c1", "tenant": "shop"}
    assert failed["call"]


async def test_no_token_gets_into_the_log(served: Served, log: Log) -> None:
    async with served.client() as http:
        for secret in SECRETS:
            await http.get(f"/v1/sessions?token={secret}")
            await http.get("/v1/sessions", headers={"authorization": f"token {secret}", "x-request-id": secret})
            await http.get(f"/token/{secret}/api/kernels/0/channels")
            await http.post(f"/v1/nothing/{secret}", content=secret)
            await http.get("/v1/status", headers={"user-agent": secret, "referer": f"http://x/?token={secret}"})
    text = log.getvalue()
    assert text.count('"event": "request"') >= 5 * len(SECRETS)
    assert not [secret for secret in SECRETS if secret in text]


# -- savings --

_USAGE = {
    "usage": {"input": 3_000_000, "cached": 1_000_000, "output": 100_000},
    "direct_usage": {"input": 10_000_000, "cached": 6_000_000, "output": 50_000},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def saved(served: Served) -> Served:
    """A turn of either tenant, an old one, and a sync of one of them."""
    database = served.gateway.database
    for tenant in ("shop", "other"):
        session = await served.gateway.sessions.create(tenant, "t", "agent", kernel=False)
        for index, days in ((1, 0), (2, 40)):
            await database.execute(
                "INSERT INTO turn (session, index, mode, messages, reason, usage, started, ended)"
                " VALUES (%s, %s, 'cells', '[]', 'answered', %s::json, now(), now() - make_interval(days => %s))",
                (session.id, index, json.dumps(_USAGE), days),
            )
    await database.execute(
        "INSERT INTO work_run (tenant, workload, tool, session, call, direct_bytes, report_bytes)"
        " VALUES ('shop', 'sync', 'x.sync', 's', 'c', 4000000, 400)"
    )
    return served


async def savings(served: Served, token: str, **asked: str) -> httpx.Response:
    async with served.client(token) as http:
        return await http.get("/v1/savings", params=asked)


async def test_the_ledger_tells_by_tenant_and_workload_in_money(saved: Served) -> None:
    found = (await savings(saved, OPERATOR)).json()
    assert found["currency"] == "USD"
    chat = {"runs": 1, "tokens": 3_100_000, "direct_tokens": 10_050_000}
    # two dollars a million of input, half a dollar of cached, eight of output
    chat |= {"cost": 4 + 0.5 + 0.8, "direct_cost": 8 + 3 + 0.4, "saved": 6.1}
    chat |= {"cost_uncached": 6.8, "direct_cost_uncached": 20.4}
    sync = {"runs": 1, "tokens": 100, "direct_tokens": 1_000_000, "cost": 0.0002, "direct_cost": 2.0, "saved": 1.9998}
    expected = [("other", "chat", chat), ("shop", "chat", chat), ("shop", "sync", sync)]
    assert [(each["tenant"], each["workload"]) for each in found["savings"]] == [each[:2] for each in expected]
    for each, (_, _, figures) in zip(found["savings"], expected, strict=True):
        assert {name: each[name] for name in figures} == pytest.approx(figures)
    older = await savings(saved, OPERATOR, tenant="other", since="2020-01-01T00:00:00Z")
    assert [each["runs"] for each in older.json()["savings"]] == [2]


async def test_a_tenant_sees_its_own_savings_alone(saved: Served) -> None:
    assert {each["tenant"] for each in (await savings(saved, OTHER)).json()["savings"]} == {"other"}
    assert (await savings(saved, OTHER, tenant="shop")).status_code == 403
    assert (await savings(saved, READER)).status_code == 403


async def test_the_last_day_is_in_the_metrics_both_ways(saved: Served) -> None:
    of = {"tenant": "shop", "workload": "sync"}
    assert await saved.value("omniops_day_tokens", way="direct", **of) == 1_000_000
    assert await saved.value("omniops_day_cost", way="cells", **of) == pytest.approx(0.0002)


async def test_prices_and_currency_are_settings(saved: Served) -> None:
    settings = SavingsSettings(currency="EUR", per_dollar=0.5, price_input=10.0)
    ledger = Savings(saved.gateway.database, settings, ModelSettings())
    [sync] = [each for each in await ledger.day() if each.workload == "sync"]
    assert sync.direct_cost == pytest.approx(5.0)
    assert ledger.currency == "EUR"


# -- hand-overs --


async def test_a_person_takes_a_conversation_of_their_own_shop_once(served: Served) -> None:
    database = served.gateway.database
    for tenant in ("shop", "other"):
        await database.execute(
            "INSERT INTO handover (tenant, session, summary, idempotency_key) VALUES (%s, 's', %s, 'k')",
            (tenant, f"of {tenant}"),
        )
    async with served.client(SHOP) as http, served.client(OTHER) as others, served.client(READER) as reader:
        [mine] = (await http.get("/v1/handovers")).json()["handovers"]
        assert (mine["summary"], mine["taken"]) == ("of shop", None)
        assert (await reader.get("/v1/handovers")).status_code == 403
        assert (await http.get("/v1/handovers", params={"tenant": "other"})).status_code == 403
        assert (await others.post(f"/v1/handovers/{mine['id']}/take")).status_code == 404
        assert (await http.post(f"/v1/handovers/{mine['id']}/take")).status_code == 200
        assert (await http.post(f"/v1/handovers/{mine['id']}/take")).status_code == 404
        assert (await http.get("/v1/handovers")).json()["handovers"] == []
        [taken] = (await http.get("/v1/handovers", params={"all": True})).json()["handovers"]
        assert taken["taken_by"]
