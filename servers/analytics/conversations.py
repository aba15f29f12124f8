"""Messages become conversations, in the database: what the reports on them have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from ..context import Rows, ToolContext
from ..database import database_of
from .words import CLOSERS, HANDED_OVER, NO_REQUEST, like

#: Memory of a sort or hash before it goes to disk.
WORK_MEM = "64MB"

#: One row per conversation, `said` being its words in their order; and one per distinct `said`, of which there are far
#: fewer: what has to look into the words looks into those.
CONVERSATIONS = """
conv AS MATERIALIZED (
    SELECT conversation, min(started) AS began, max(at) - min(started) AS took, bool_and(dated) AS dated,
           count(*) AS messages, count(*) FILTER (WHERE role = 'customer') AS asked,
           count(*) FILTER (WHERE role = 'customer' AND cardinality(intents) > 1) AS several,
           count(*) FILTER (WHERE btrim(text) = '') AS empty,
           -- as a list of messages in JSON has them
           sum(octet_length(text) + octet_length(conversation) + 120) AS bytes,
           count(*) FILTER (WHERE role = 'customer' AND cardinality(intents) = 0) AS unlabelled,
           coalesce(string_agg(nullif(array_to_string(intents, ' '), ''), ' ' ORDER BY seq), '') AS said
    FROM chat_message WHERE started >= %(since)s AND started < %(until)s GROUP BY conversation
),
weight AS (SELECT jsonb_build_object('rows', coalesce(sum(messages), 0), 'bytes', coalesce(sum(bytes), 0)) AS weight
           FROM conv),
shape AS MATERIALIZED (
    SELECT said, conversations, path, split_part(said, ' ', -1) AS last,
           path <> '{}' AS request, handed,
           path <> '{}' AND NOT handed AND split_part(said, ' ', -1) = ANY(%(closers)s) AS resolved,
           EXISTS (SELECT FROM unnest(path) w WHERE w LIKE ANY(%(goals)s)) AS goal
    FROM (SELECT said, count(*) AS conversations FROM conv GROUP BY said) s, LATERAL (
        SELECT coalesce(array_agg(w ORDER BY i) FILTER (WHERE w <> ALL(%(no_request)s) AND w IS DISTINCT FROM before),
                        '{}') AS path,
               coalesce(bool_or(w = %(handed_over)s), false) AS handed
        FROM (SELECT w, i, lag(w) OVER (PARTITION BY w <> ALL(%(no_request)s) ORDER BY i) AS before
              FROM unnest(string_to_array(said, ' ')) WITH ORDINALITY u(w, i)) u
    ) words
)"""


def words(goals: list[str]) -> dict[str, object]:
    """What CONVERSATIONS is told beside the span."""
    return {
        "closers": list(CLOSERS),
        "no_request": list(NO_REQUEST),
        "handed_over": HANDED_OVER,
        "goals": like(goals),
    }


async def one(ctx: ToolContext, sql: str, parameters: Mapping[str, object]) -> dict[str, Any]:
    """The one row of a statement that may take memory, less its column `weight`: the rows that it went through, and
    the bytes that they would have been in a model's context.
    """
    async with database_of(ctx).transaction() as rows:
        await _prepare(rows)
        found = (await rows.fetch(sql, parameters))[0]
    weight = found.pop("weight")
    ctx.meter.rows += weight["rows"]
    ctx.meter.direct_bytes += weight["bytes"]
    return found


async def batches(
    ctx: ToolContext, sql: str, parameters: Mapping[str, object], size: int = 20_000
) -> AsyncIterator[list[dict[str, Any]]]:
    """A statement's rows, as of one moment, so many at a time: no more than these are in memory."""
    async with database_of(ctx).transaction() as rows:
        await _prepare(rows)
        await rows.execute(f"DECLARE report NO SCROLL CURSOR FOR {sql}", parameters)
        while batch := await rows.fetch(f"FETCH {size} FROM report"):
            yield batch


async def _prepare(rows: Rows) -> None:
    # no loops over loops: of rows that were loaded just now the planner knows nothing, and takes them for few
    await rows.execute(
        "SELECT set_config('work_mem', %s, true), set_config('jit', 'off', true),"
        " set_config('enable_nestloop', 'off', true)",
        (WORK_MEM,),
    )
