"""Search by likeness, with pgvector. Exact: of the rows that fit, the nearest are found, whatever indexes there are."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolDenied, ToolInputError
from ...tool import EVERYBODY, tool
from ..access import project_of
from ..backend import tables_of
from ..shapes import Called, Columns, Filters, Match, Name, Table, Value

Query = Annotated[str, Meta(description="what is looked for, in words; embedded by the gateway", max_length=1000)]
Embedding = Annotated[list[float], Meta(description="in place of `query`: the vector itself", max_length=4096)]

Metadata = Annotated[dict[str, Value], Meta(description="what the documents' metadata must hold", max_length=20)]


@tool(effect="read", roles=EVERYBODY)
async def search_vectors(
    ctx: ToolContext,
    *,
    table: Table,
    column: Annotated[Name, Meta(description="of type vector")] = "embedding",
    query: Query = "",
    embedding: Embedding = [],  # noqa: B006 - never changed
    columns: Columns = [],  # noqa: B006
    filters: Filters = [],  # noqa: B006
    limit: Annotated[int, Meta(ge=1, le=1000)] = 10,
) -> list[Match]:
    """The rows whose vectors are nearest to a text or a vector, by cosine, nearest first."""
    vector = await _vector(ctx, query, embedding)
    return await tables_of(ctx).nearest(table, column, vector, columns, filters, limit)


@tool(effect="read", roles=EVERYBODY)
async def match_documents(
    ctx: ToolContext,
    *,
    query: Query = "",
    embedding: Embedding = [],  # noqa: B006 - never changed
    limit: Annotated[int, Meta(ge=1, le=1000)] = 10,
    metadata: Metadata = {},  # noqa: B006
) -> Called:
    """Documents nearest to a text or a vector, by the project's own function, as in Supabase's guides.

    It is called with `query_embedding`, `match_count` and `filter`, in a transaction that cannot change anything.
    """
    arguments = {"query_embedding": await _vector(ctx, query, embedding), "match_count": limit, "filter": metadata}
    function = project_of(ctx).match_function
    return {"result": await tables_of(ctx).call("match_documents", function, arguments, read_only=True)}


async def _vector(ctx: ToolContext, query: str, embedding: list[float]) -> list[float]:
    if bool(query) == bool(embedding):
        raise ToolInputError("Give either `query` or `embedding`.")
    if embedding:
        return embedding
    if ctx.embedder is None:
        raise ToolDenied("No embedding model is configured for this call.", hint="Give an `embedding`.")
    return (await ctx.embedder.embed([query]))[0]
