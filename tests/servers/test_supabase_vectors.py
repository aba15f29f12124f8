"""Search by likeness in a tenant's own tables: exact, filtered, and within row-level security."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
from supabase_world import World, as_tenant, for_customer, project
from tool_bench import Bench, Pins

from demo.tau import load_data
from servers.catalog.embedding import MiniLm
from servers.context import ToolContext
from servers.errors import ToolDenied, ToolInputError
from servers.registry import Registry
from servers.supabase.connections import Connections
from servers.supabase.postgres import vector_text

SHADES = 40


@pytest.fixture(scope="module")
def documents(supabase_world: World, embedder: MiniLm) -> list[dict[str, Any]]:
    """The retail catalogue's products with their embeddings, and around each many like it; half are a rival's.

    The index is as coarse as they come: whoever uses it misses most.
    """
    names = sorted(product["name"] for product in load_data()["products"].values())
    exact = np.array(asyncio.run(embedder.embed(names)))
    noise = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    for name, vector in zip(names, exact, strict=True):
        for shade in range(SHADES):
            near = vector + noise.normal(0, 0.02 * (shade > 0), vector.shape)
            near /= np.linalg.norm(near)
            tenant = "acme" if shade % 2 == 0 else "rival"
            rows.append({"id": len(rows), "tenant": tenant, "content": name, "shade": shade, "vector": near.tolist()})
    with psycopg.connect(supabase_world.owner, autocommit=True) as connection:
        connection.execute(b"DELETE FROM doc; DROP INDEX IF EXISTS coarse")
        with connection.cursor().copy(b"COPY doc (id, tenant, content, metadata, embedding) FROM STDIN") as copy:
            for row in rows:
                metadata = json.dumps({"shade": row["shade"]})
                copy.write_row((row["id"], row["tenant"], row["content"], metadata, vector_text(row["vector"])))
        connection.execute(b"CREATE INDEX coarse ON doc USING hnsw (embedding extensions.vector_cosine_ops)"
                           b" WITH (m = 2, ef_construction = 4)")  # fmt: skip
        connection.execute(b"ANALYZE doc")
    return rows


@pytest.fixture
def acme(
    documents: list[dict[str, Any]],
    supabase_world: World,
    registry: Registry,
    http: httpx.AsyncClient,
    connections: Connections,
    embedder: MiniLm,
) -> Bench:
    connected = project(supabase_world.login, connections, customer_may=("match_documents",))
    context = ToolContext("acme", "s1", Pins(), "key-1", False, http, embedder=embedder, supabase=connected)
    return Bench(registry, context)


def nearest(rows: list[dict[str, Any]], vector: list[float], limit: int) -> list[int]:
    """By brute force."""
    scores = np.array([row["vector"] for row in rows]) @ np.array(vector)
    return [rows[i]["id"] for i in np.argsort(-scores, kind="stable")[:limit]]


async def test_the_nearest_are_found_whatever_indexes_there_are(
    acme: Bench, documents: list[dict[str, Any]], embedder: MiniLm
) -> None:
    texts = ["something warm to wear", "listen to music", "boil water for tea", "clean my carpet"]
    for text, vector in zip(texts, await embedder.embed(texts), strict=True):
        for tenant in ("acme", "rival"):
            own = [row for row in documents if row["tenant"] == tenant]
            found = await as_tenant(acme, tenant).call("supabase.search_vectors", table="doc", query=text, limit=50)
            assert {match["row"]["id"] for match in found} == set(nearest(own, vector, 50))
            assert {match["row"]["tenant"] for match in found} == {tenant}
            scores = [match["similarity"] for match in found]
            assert scores == sorted(scores, reverse=True)
            assert "embedding" not in found[0]["row"]


async def test_filters_go_before_the_ranking(acme: Bench, documents: list[dict[str, Any]]) -> None:
    vector = documents[0]["vector"]
    only = [{"column": "metadata", "op": "contains", "value": {"shade": 4}}]
    found = await acme.call(
        "supabase.search_vectors", table="doc", embedding=vector, filters=only, columns=["id"], limit=20
    )
    chosen = [row for row in documents if row["shade"] == 4]
    assert [match["row"]["id"] for match in found] == nearest(chosen, vector, 20)


async def test_a_text_finds_what_it_means(acme: Bench) -> None:
    found = await acme.call("supabase.search_vectors", table="doc", query="a machine to clean my carpet", limit=1)
    assert found[0]["row"]["content"] == "Vacuum Cleaner"
    assert found[0]["similarity"] > 0.4


async def test_the_projects_own_function_is_asked_as_in_supabases_guides(
    acme: Bench, documents: list[dict[str, Any]]
) -> None:
    vector = documents[2]["vector"]
    result = (await acme.call("supabase.match_documents", embedding=vector, limit=3, metadata={"shade": 2}))["result"]
    assert (result[0]["id"], result[0]["content"], round(result[0]["similarity"], 3)) == (2, documents[2]["content"], 1)
    customer = for_customer(acme, 7)
    assert len((await customer.call("supabase.match_documents", embedding=vector, limit=3))["result"]) == 3
    with pytest.raises(ToolDenied, match="not open"):
        await customer.call("supabase.search_vectors", table="doc", embedding=vector)


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ({"embedding": [0.1, 0.2]}, "384 dimensions"),
        ({"embedding": [0.1] * 384, "column": "content"}, "not a vector"),
        ({"embedding": [0.1] * 384, "query": "both"}, "either"),
        ({}, "either"),
        ({"embedding": [float("nan")] * 384}, "NaN"),
    ],
)
async def test_what_cannot_be_searched(args: dict[str, Any], match: str, acme: Bench) -> None:
    with pytest.raises(ToolInputError, match=match):
        await acme.call("supabase.search_vectors", table="doc", **args)
