"""Transcripts in the database: found by tenant, time, tool, error and cost; their ends known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from gateway_world import settings_for

from gateway.app import create_app
from gateway.db import Database
from gateway.runtime import open_gateway
from gateway.transcripts.index import Index, Query
from gateway.transcripts.notebook import DirectStep, Header, Said
from gateway.transcripts.store import TranscriptStore
from gateway.transcripts.upkeep import Upkeep
from gateway.transcripts.verify import verify
from gateway.types import CallRecord, CellRun
from kernel_pool.types import CellResult

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)


def step(number: int, tool: str, error: str = "") -> DirectStep:
    failed = {"type": error, "message": "no"} if error else None
    state = "failed" if error else "applied"
    call = CallRecord("s", f"d{number}", tool, {}, 0, "read", state, False, error=failed)  # type: ignore[arg-type]
    return DirectStep(f"d{number}", (call,), START, START)


def failing(cell: str, status: str = "error", name: str = "KeyError") -> CellRun:
    output = {"output_type": "error", "ename": name, "evalue": "x", "traceback": []}
    result = CellResult(status, 1, (output,), None, START, START)  # type: ignore[arg-type]
    return CellRun("s", cell, 1, "x", result, (), "", 0)


def answer(number: int, dollars: float) -> Said:
    return Said(f"a{number}", "agent", "done", START, {"usage": {"dollars": dollars}})


@pytest.fixture
async def index(tmp_path: Path, database: Database) -> Index:
    """Four transcripts of two tenants."""
    store, index = TranscriptStore(tmp_path), Index(database)
    upkeep = Upkeep(store, index, notebook_after_s=60)
    for number, (session, tenant, entries) in enumerate(
        (
            ("s1", "shop", [step(1, "woocommerce.lookup_order"), answer(1, 0.5), answer(2, 0.25)]),
            ("s2", "shop", [step(1, "woocommerce.cancel_order", "ToolDenied"), failing("c1")]),
            ("s3", "other", [step(1, "catalog.search_products"), failing("c1", "dead", "MemoryError")]),
            ("s4", "other", [step(1, "woocommercial.x")]),
        )
    ):
        created = START + timedelta(days=number)
        await store.open(Header(session, tenant, "agent", created)).add(*entries)
    await upkeep.flush()
    return index


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), ["s4", "s3", "s2", "s1"]),
        (Query(tenant="shop"), ["s2", "s1"]),
        (Query(tenant="nobody"), []),
        (Query(tool="woocommerce.lookup_order"), ["s1"]),
        (Query(tool="woocommerce"), ["s2", "s1"]),
        (Query(tool="%"), []),
        (Query(error="any"), ["s3", "s2"]),
        (Query(error="ToolDenied"), ["s2"]),
        (Query(error="KeyError"), ["s2"]),
        (Query(error="dead"), ["s3"]),
        (Query(error="KeyError", tenant="other"), []),
        (Query(cost_min=0.7), ["s1"]),
        (Query(cost_max=0.7), ["s4", "s3", "s2"]),
        (Query(until=START + timedelta(days=1)), ["s2", "s1"]),
        (Query(since=START), ["s4", "s3", "s2", "s1"]),
        (Query(since=datetime.now(UTC) + timedelta(days=1)), []),
        (Query(limit=1, offset=1), ["s3"]),
    ],
)
async def test_a_search_finds_what_fits_and_nothing_else(index: Index, query: Query, found: list[str]) -> None:
    assert [each.session for each in await index.search(query)] == found


async def test_the_database_never_knows_less_than_before(tmp_path: Path, database: Database) -> None:
    store, index = TranscriptStore(tmp_path), Index(database)
    transcript = store.open(Header("s1", "shop", "agent", START))
    await transcript.add(answer(1, 0))
    before = transcript.facts
    await transcript.add(answer(2, 0))
    await index.put(transcript.facts)
    await index.put(before)
    assert await index.head("s1") == transcript.record.head
    assert verify(transcript.path, await index.head("s1")).ok


async def test_a_large_notebook_is_written_when_it_is_quiet(tmp_path: Path, database: Database) -> None:
    store = TranscriptStore(tmp_path, at_once_kb=1)
    upkeep = Upkeep(store, Index(database), notebook_after_s=60)
    transcript = store.open(Header("s1", "shop", "agent", START))
    for number in range(3):
        await transcript.add(Said(f"m{number}", "customer", "x" * 2000, START))
    assert transcript.stale
    assert b"m2" not in (transcript.path.read_bytes() if transcript.path.exists() else b"")
    assert b'"m2"' in store.notebook(transcript.path)  # whoever asks gets all of it
    await upkeep.close()
    assert not transcript.stale
    assert transcript.path.read_bytes() == store.notebook(transcript.path)


async def test_a_running_gateway_finds_and_verifies(tmp_path: Path, database_url: str) -> None:
    tenants = {"shop": {"token": "the-shops-own-token"}, "other": {"token": "the-others-own-token"}}
    async with open_gateway(settings_for(tmp_path / "data", database_url, tenants=tenants)) as gateway:
        session = (await gateway.sessions.create("shop", "test", "agent", "Mine")).id
        await gateway.sessions.run_cell(session, "1/0")
        transport = httpx.ASGITransport(create_app(gateway))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            own, other = ({"authorization": f"Bearer {tenants[name]['token']}"} for name in ("shop", "other"))
            found = await http.get("/v1/transcripts", params={"error": "ZeroDivisionError"}, headers=own)
            assert [(each["session"], each["title"]) for each in found.json()] == [(session, "Mine")]
            assert (await http.get("/v1/transcripts", params={"error": "KeyError"}, headers=own)).json() == []
            assert (await http.get("/v1/transcripts", headers=other)).json() == []
            assert (await http.get("/v1/transcripts", params={"tenant": "shop"}, headers=other)).status_code == 403
            for wrong in ({"since": "x"}, {"cost_min": "-1"}, {"limit": "0"}, {"tool": "a\0"}, {"offset": "-1"}):
                assert (await http.get("/v1/transcripts", params=wrong, headers=own)).status_code == 422
            address = f"/v1/transcripts/{session}/verification"
            assert (await http.get(address, headers=own)).json()["problems"] == []
            assert (await http.get(address, headers=other)).status_code == 404
            record = gateway.transcripts.path("shop", session).with_suffix(".jsonl")
            lines = record.read_bytes().splitlines(keepends=True)
            record.write_bytes(b"".join(lines[:-1]))
            answer = (await http.get(address, headers=own)).json()
            assert not answer["ok"]
            assert "gone from its end" in answer["problems"][0]
