"""Tools are found by what they mean: with the real model, in the background, for whom they are."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.settings import FindingSettings
from gateway.tool_catalogue import Catalogue
from gateway.tool_search import ToolSearch
from gateway.tool_vectors import ToolVectors
from servers.catalog import embedding
from servers.catalog.embedding import MiniLm
from servers.finding.meaning import DIMENSIONS, Space
from servers.registry import Registry
from servers.tool import EVERYBODY, OPERATOR, Role, Tool


class Counting(MiniLm):
    """The model, and what it read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def embed_blocking(self, texts: Sequence[str]) -> list[list[float]]:
        self.read += texts
        return super().embed_blocking(texts)


@pytest.fixture(scope="module")
def model() -> Counting:
    return Counting()


async def nothing(*_: Any, **__: Any) -> dict[str, Any]:
    return {}


def made(name: str, doc: str, roles: tuple[Role, ...] = EVERYBODY) -> Tool:
    server, _, short = name.partition(".")
    return Tool(server, short, doc, (), dict, "read", roles=roles, implementation=nothing)


CLINIC = (
    made("clinic.list_doctors", "List the doctors."),
    made("clinic.list_bills", "List the bills."),
    made("clinic.list_beds", "List the beds."),
    made("staff.doctor_notes", "Notes on a doctor.", OPERATOR),
)


@asynccontextmanager
async def search_of(model: MiniLm, file: Path, *tools: Tool, **settings: Any) -> AsyncIterator[ToolSearch]:
    catalogue = Catalogue(Registry([], {}))
    catalogue.put("a", tools or CLINIC, {})
    search = ToolSearch(catalogue, ToolVectors(model, file, FindingSettings(**settings)))
    try:
        yield search
    finally:
        await search.close()


async def found(search: ToolSearch, query: str, role: Role | None = "agent") -> list[str]:
    return [tool.qualified_name for tool in await search.find("a", role, query, 5)]


async def test_words_find_at_once_and_meaning_as_soon_as_it_is_known(model: Counting, tmp_path: Path) -> None:
    async with search_of(model, tmp_path / "vectors") as search:
        assert await found(search, "physicians") == []
        assert (await found(search, "bills"))[0] == "clinic.list_bills"
        assert await search.settled("a")
        assert (await found(search, "physicians"))[0] == "clinic.list_doctors"
        assert (await found(search, "bills"))[0] == "clinic.list_bills"


async def test_what_a_role_may_not_call_it_does_not_find_by_meaning_either(model: Counting, tmp_path: Path) -> None:
    async with search_of(model, tmp_path / "vectors") as search:
        assert await search.settled("a")
        assert "staff.doctor_notes" not in await found(search, "notes about a physician")
        assert (await found(search, "notes about a physician", "operator"))[0] == "staff.doctor_notes"


async def test_a_tool_is_read_once_for_all_gateways_to_come(model: Counting, tmp_path: Path) -> None:
    async with search_of(model, tmp_path / "vectors") as search:
        assert await search.settled("a")
    model.read.clear()
    more = made("clinic.list_wards", "List the wards.")
    async with search_of(model, tmp_path / "vectors", *CLINIC, more) as search:
        assert await search.settled("a")
        assert model.read == ["List the wards.. list wards"]
        await found(search, "physicians")
        await found(search, "physicians")
    assert model.read == ["List the wards.. list wards", "physicians"]


async def test_the_file_stays_within_its_limit(model: Counting, tmp_path: Path) -> None:
    async with search_of(model, tmp_path / "vectors", kept_vectors=2) as search:
        assert await search.settled("a")
        assert (await found(search, "physicians"))[0] == "clinic.list_doctors"
    with sqlite3.connect(tmp_path / "vectors") as kept:
        assert kept.execute("SELECT count(*) FROM vectors").fetchone() == (2,)


async def test_without_a_model_or_a_sound_file_tools_are_found_by_words(
    model: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").write_bytes(b"no database" * 1000)
    async with search_of(model, tmp_path / "broken") as search:
        assert not await search.settled("a")
        assert await found(search, "bills") == ["clinic.list_bills"]
    monkeypatch.setattr(embedding, "WEIGHTS", ("no-such-package", "none.onnx"))
    async with search_of(MiniLm(), tmp_path / "vectors") as search:
        assert not await search.settled("a")
        assert await found(search, "bills") == ["clinic.list_bills"]


async def test_of_too_many_tools_no_vectors_are_made(model: Counting, tmp_path: Path) -> None:
    async with search_of(model, tmp_path / "vectors", most_vectors=3) as search:
        assert not await search.settled("a")
        assert await found(search, "bills") == ["clinic.list_bills"]
    assert not (tmp_path / "vectors").exists()


def test_fewer_dimensions_tell_the_same_tools_apart() -> None:
    random = np.random.default_rng(4)
    spread = np.geomspace(1, 0.01, 384) * random.normal(size=(1_000, 384)) + 0.3
    vectors = (spread / np.linalg.norm(spread, axis=1, keepdims=True)).astype(np.float32)
    space, query = Space(vectors), vectors[7] + 0.1 * vectors[11]
    assert space.bytes == 1_000 * DIMENSIONS * 4
    assert int(space.alike(query).argmax()) == int((vectors @ query).argmax()) == 7
    assert np.abs(space.alike(query) - vectors @ query).max() < 0.1
