"""How conversations go: what is asked, how it ends, and where people leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, TypedDict, cast

from msgspec import Meta

from ...context import ToolContext
from ...table import Table
from ...tool import STAFF, tool
from ...work import Progress, Report, work
from ..conversations import CONVERSATIONS, batches, one, words
from ..span import Dirt, Share, Since, Top, Until, dirt, rate, span_of
from ..words import GOALS, Patterns

Goals = Annotated[Patterns, Meta(description="requests that are business; []: orders, bookings, new contracts")]


class Spread(TypedDict):
    mean: float
    median: float
    p90: float
    most: float


class Request(TypedDict):
    intent: str
    conversations: int
    resolved: int
    rate: float


class Path(TypedDict):
    path: Annotated[str, Meta(description="the requests in their order, and the end")]
    conversations: int
    share: float


class Journey(Report):
    since: str
    until: str
    conversations: int
    messages: int
    messages_per_conversation: Spread
    with_request: int
    resolved: int
    resolution_rate: Annotated[float, Meta(description="of those with a request")]
    handed_over: int
    converted: Annotated[int, Meta(description="resolved, with a request that is a goal")]
    conversion_rate: Annotated[float, Meta(description="of all conversations")]
    turns_to_resolution: Annotated[Spread | None, Meta(description="messages of the customer")]
    minutes_to_resolution: Annotated[Spread | None, Meta(description="null where the source had no times")]
    requests: list[Request]
    paths: list[Path]
    left_after: Annotated[list[Share], Meta(description="last word of conversations that were not resolved")]
    goals: list[str]
    dirt: list[Dirt]
    notes: list[str]


_SPREAD = """(SELECT CASE WHEN count(*) > 0 THEN jsonb_build_object(
    'mean', round(avg({x})::numeric, 2), 'median', percentile_cont(.5) WITHIN GROUP (ORDER BY {x}),
    'p90', percentile_cont(.9) WITHIN GROUP (ORDER BY {x}), 'most', max({x})) END FROM {source})"""

_RESOLVED = "conv JOIN shape USING (said) WHERE resolved"

_TOTALS = f"""(SELECT jsonb_build_object(
    'conversations', coalesce(sum(conversations), 0),
    'with_request', coalesce(sum(conversations) FILTER (WHERE request), 0),
    'resolved', coalesce(sum(conversations) FILTER (WHERE resolved), 0),
    'handed_over', coalesce(sum(conversations) FILTER (WHERE handed), 0),
    'converted', coalesce(sum(conversations) FILTER (WHERE resolved AND goal), 0)) FROM shape) AS totals,
  (SELECT jsonb_build_object(
    'messages', coalesce(sum(messages), 0), 'several', coalesce(sum(several), 0), 'empty', coalesce(sum(empty), 0),
    'unlabelled', coalesce(sum(unlabelled), 0), 'undated', count(*) FILTER (WHERE NOT dated)) FROM conv) AS input,
  {_SPREAD.format(x="messages", source="conv")} AS spread,
  {_SPREAD.format(x="asked", source=_RESOLVED)} AS turns,
  {_SPREAD.format(x="extract(epoch FROM took)::float8 / 60", source=_RESOLVED + " AND dated")} AS minutes"""  # noqa: S608 - put together from constants

_JOURNEY = f"""
WITH {CONVERSATIONS} SELECT (SELECT weight FROM weight), {_TOTALS},
  (SELECT coalesce(jsonb_agg(r), '[]') FROM (
     SELECT intent, sum(conversations) AS conversations,
            coalesce(sum(conversations) FILTER (WHERE resolved), 0) AS resolved
     FROM (SELECT DISTINCT said, conversations, resolved, unnest(path) AS intent FROM shape) each
     GROUP BY intent ORDER BY 2 DESC, intent LIMIT %(top)s) r) AS requests,
  (SELECT coalesce(jsonb_agg(p), '[]') FROM (
     SELECT array_to_string(path, ' > ') || ' > '
            || CASE WHEN handed THEN 'handed over' WHEN resolved THEN 'resolved' ELSE 'left' END AS path,
            sum(conversations) AS conversations
     FROM shape WHERE request GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %(top)s) p) AS paths,
  (SELECT coalesce(jsonb_agg(d), '[]') FROM (
     SELECT last AS name, sum(conversations) AS count
     FROM shape WHERE request AND NOT resolved AND NOT handed GROUP BY last
     ORDER BY 2 DESC, 1 LIMIT %(top)s) d) AS left_after
"""  # noqa: S608 - put together from constants


@work(workload="report", effect="read", roles=STAFF)
async def customer_journey(
    ctx: ToolContext,
    *,
    since: Since = "",
    until: Until = "",
    goals: Goals = [],  # noqa: B006 - never changed
    top: Top = 10,
) -> AsyncIterator[Progress | Journey]:
    """How conversations went: how many, how long, resolved, converted, common paths, where people left.

    Conversations are counted that began in the span, whole. Resolved: it had a request (an intent that is no greeting,
    answer or thanks; of our own chats, a tool that the agent used), no person had to take over, and its last word was
    a confirmation, thanks, good-bye, "nothing else", or the agent's answer.
    """
    span = span_of(since, until)
    found = await one(ctx, _JOURNEY, {**span.parameters, **words(goals or list(GOALS)), "top": top})
    totals, given = found["totals"], found["input"]
    left = totals["with_request"] - totals["resolved"] - totals["handed_over"]
    yield Journey(
        since=span.told[0],
        until=span.told[1],
        messages=given["messages"],
        messages_per_conversation=found["spread"] or Spread(mean=0, median=0, p90=0, most=0),
        conversations=totals["conversations"],
        with_request=totals["with_request"],
        resolved=totals["resolved"],
        handed_over=totals["handed_over"],
        converted=totals["converted"],
        resolution_rate=rate(totals["resolved"], totals["with_request"]),
        conversion_rate=rate(totals["converted"], totals["conversations"]),
        turns_to_resolution=found["turns"],
        minutes_to_resolution=found["minutes"],
        requests=[cast(Request, r | {"rate": rate(r["resolved"], r["conversations"])}) for r in found["requests"]],
        paths=[cast(Path, p | {"share": rate(p["conversations"], totals["with_request"])}) for p in found["paths"]],
        left_after=[Share(name=d["name"], count=d["count"], share=rate(d["count"], left)) for d in found["left_after"]],
        goals=goals or list(GOALS),
        dirt=_dirt(given),
        notes=_notes(given, totals),
    )


def _dirt(given: dict[str, Any]) -> list[Dirt]:
    return dirt(
        ("messages with several intents", given["several"], "each counts, in the order in which they are named"),
        ("messages without text", given["empty"], "counted as messages; their intents count"),
        ("customers' messages without an intent", given["unlabelled"], "counted as messages, in no path"),
        ("conversations without times", given["undated"], "ordered by their turns; left out of the minutes"),
    )


def _notes(given: dict[str, Any], totals: dict[str, Any]) -> list[str]:
    if not totals["conversations"]:
        return ["There are no conversations in this span."]
    notes = []
    if given["undated"]:
        notes.append("The source had no times: days and spans of these conversations were made when they were loaded.")
    return notes


class ConversationRow(TypedDict):
    conversation: str
    began: datetime
    minutes: float | None
    messages: int
    customer_messages: int
    path: str
    outcome: str


_TABLE = f"""
WITH {CONVERSATIONS}
SELECT conversation, began, CASE WHEN dated THEN extract(epoch FROM took)::float8 / 60 END AS minutes, messages,
       asked AS customer_messages, array_to_string(path, ' > ') AS path,
       CASE WHEN handed THEN 'handed over' WHEN NOT request THEN 'no request' WHEN resolved THEN 'resolved'
            ELSE 'left' END AS outcome
FROM conv JOIN shape USING (said) ORDER BY began, conversation
"""  # noqa: S608 - put together from constants


@tool(effect="read", roles=STAFF)
async def stream_conversations(
    ctx: ToolContext, *, since: Since = "", until: Until = ""
) -> AsyncIterator[Table[ConversationRow]]:
    """A row for each conversation, in tables: `pandas.concat(stream_conversations(since=...))`."""
    async for batch in batches(ctx, _TABLE, {**span_of(since, until).parameters, **words(list(GOALS))}):
        yield Table(batch)
