"""What customers asked and got no good answer to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolDenied
from ...table import Table
from ...tool import STAFF, tool
from ...work import Progress, Report, work
from ..clusters import cluster, unlike
from ..conversations import CONVERSATIONS, batches, one, words
from ..span import Dirt, Share, Since, Top, Until, dirt, rate, span_of
from ..words import ANSWERED, GOALS, OUT_OF_DOMAIN, UNANSWERED


class Gap(TypedDict):
    question: Annotated[str, Meta(description="the one that was put most; numbers and addresses masked")]
    asked: int
    share: Annotated[float, Meta(description="of all questions without a good answer")]
    wordings: int
    others: Annotated[list[str], Meta(description="other wordings")]
    why: list[Share]


class Gaps(Report):
    since: str
    until: str
    questions: Annotated[int, Meta(description="without a good answer")]
    conversations: int
    conversations_share: Annotated[float, Meta(description="of all conversations")]
    why: list[Share]
    gaps: list[Gap]
    dirt: list[Dirt]
    notes: list[str]


#: A row per question with its reason. Why a question counts as without a good answer:
#: out of domain (so labelled); unanswered (the agent's turn ended without an answer); handed over (a person had to take
#: over); left (it is the last request of a conversation that was not resolved).
_QUESTIONS = f"""
WITH {CONVERSATIONS},
asked AS (
    SELECT conversation, seq, at, text, intents FROM chat_message
    WHERE started >= %(since)s AND started < %(until)s AND role = 'customer'
),
failed AS (
    SELECT conversation, seq, CASE WHEN %(handed_over)s = ANY(intents) THEN 'handed over' ELSE 'unanswered' END AS why
    FROM chat_message WHERE started >= %(since)s AND started < %(until)s AND role = 'agent'
      AND intents && ARRAY[%(unanswered)s, %(handed_over)s]
),
found AS (
    SELECT conversation, seq, at, text, 'out of domain' AS why FROM asked WHERE %(out_of_domain)s = ANY(intents)
    UNION ALL
    SELECT f.conversation, q.seq, q.at, q.text, f.why FROM failed f, LATERAL (
        SELECT seq, at, text FROM chat_message m WHERE m.conversation = f.conversation AND m.seq < f.seq
          AND m.tenant = %(tenant)s AND m.role = 'customer' ORDER BY seq DESC LIMIT 1) q
    UNION ALL
    (SELECT DISTINCT ON (a.conversation) a.conversation, a.seq, a.at, a.text, 'left' AS why
     FROM conv JOIN shape USING (said) JOIN asked a USING (conversation)
     WHERE shape.request AND NOT shape.resolved AND NOT shape.handed AND shape.last <> %(unanswered)s
       AND (NOT a.intents <@ %(no_request)s::text[]) AND NOT %(out_of_domain)s = ANY(a.intents)
     ORDER BY a.conversation, a.seq DESC)
),
question AS (
    SELECT conversation, seq, at, why, btrim(regexp_replace(regexp_replace(lower(text),
               '\\S+@\\S+', '[address]', 'g'), '\\d[\\d -]*', '# ', 'g')) AS question FROM found
)"""  # noqa: S608 - put together from constants

#: What is near one of these is a courtesy and no question, whatever its label says.
COURTESIES = (
    "thank you very much",
    "have a nice day",
    "take your time",
    "you too",
    "sorry",
    "that is all",
    "ok i will wait",
    "yes please",
    "good morning",
)

#: Words that a question has at least: fewer say nothing ("sorry", "ok").
_WORDS = 2

_GAPS = f"""{_QUESTIONS},
whole AS MATERIALIZED (
    SELECT *, cardinality(regexp_split_to_array(question, '\\s+')) >= {_WORDS} AS speaks FROM question
)
SELECT (SELECT weight FROM weight),
  (SELECT jsonb_build_object('questions', count(*) FILTER (WHERE speaks),
      'conversations', count(DISTINCT conversation) FILTER (WHERE speaks),
      'wordings', count(DISTINCT question) FILTER (WHERE speaks),
      'short', count(*) FILTER (WHERE NOT speaks AND question <> ''), 'empty', count(*) FILTER (WHERE question = ''),
      'of', (SELECT count(*) FROM conv)) FROM whole) AS totals,
  (SELECT coalesce(jsonb_agg(w), '[]') FROM (
     SELECT why AS name, count(*) AS count FROM whole WHERE speaks GROUP BY why ORDER BY 2 DESC, 1) w) AS why,
  (SELECT coalesce(jsonb_agg(q ORDER BY asked DESC, question), '[]') FROM (
     SELECT question, sum(n) AS asked, jsonb_object_agg(why, n) AS why
     FROM (SELECT question, why, count(*) AS n FROM whole WHERE speaks GROUP BY question, why) each
     GROUP BY question ORDER BY 2 DESC, question LIMIT %(wordings)s) q) AS questions
"""  # noqa: S608 - put together from constants


@work(workload="report", effect="read", roles=STAFF)
async def content_gaps(
    ctx: ToolContext,
    *,
    since: Since = "",
    until: Until = "",
    top: Top = 10,
    wordings: Annotated[int, Meta(description="different questions that are compared", ge=10, le=2000)] = 500,
) -> AsyncIterator[Progress | Gaps]:
    """Questions that got no good answer, those of one meaning together, the most frequent first.

    No good answer: out of the service's domain, the agent's turn ended without one, a person had to take over, or the
    customer left after it. Grouped by the local embedding model; numbers and mail addresses are masked, names are not.
    """
    span = span_of(since, until)
    found = await one(ctx, _GAPS, {**_parameters(ctx), **span.parameters, "wordings": wordings})
    totals, questions = found["totals"], found["questions"]
    clusters, courtesies = await _clusters(ctx, questions)
    left_out = totals["questions"] - sum(q["asked"] for q in questions)
    yield Gaps(
        since=span.told[0],
        until=span.told[1],
        questions=totals["questions"],
        conversations=totals["conversations"],
        conversations_share=rate(totals["conversations"], totals["of"]),
        why=_shares({w["name"]: w["count"] for w in found["why"]}, totals["questions"]),
        gaps=[_gap(each, totals["questions"]) for each in clusters[:top]],
        dirt=dirt(
            ("questions without text", totals["empty"], "left out"),
            ("questions of a single word", totals["short"], "left out: they say nothing without what went before"),
            ("courtesies (by meaning: thanks, wishes, apologies)", courtesies, "counted as questions, in no group"),
            (
                "questions in rarer wordings",
                left_out,
                f"counted, not grouped: the {wordings} most frequent of {totals['wordings']} wordings are compared",
            ),
        ),
        notes=[] if totals["questions"] else ["No question without a good answer in this span."],
    )


async def _clusters(ctx: ToolContext, questions: list[dict[str, Any]]) -> tuple[list[list[dict[str, Any]]], int]:
    """The questions in groups, and how many were courtesies."""
    if not questions:
        return [], 0
    if ctx.embedder is None:
        raise ToolDenied("No embedding model is configured for this call.")
    polite, vectors = await ctx.embedder.embed(COURTESIES), await ctx.embedder.embed([q["question"] for q in questions])
    keep = await asyncio.to_thread(unlike, vectors, polite)
    weights = [questions[i]["asked"] for i in keep]
    groups = await asyncio.to_thread(cluster, [vectors[i] for i in keep], weights)
    courtesies = sum(q["asked"] for q in questions) - sum(weights)
    return [[questions[keep[i]] for i in group] for group in groups], courtesies


def _gap(cluster: list[dict[str, Any]], whole: int) -> Gap:
    asked = sum(q["asked"] for q in cluster)
    why: dict[str, int] = {}
    for question in cluster:
        for name, n in question["why"].items():
            why[name] = why.get(name, 0) + n
    return Gap(
        question=cluster[0]["question"][:200],
        asked=asked,
        share=rate(asked, whole),
        wordings=len(cluster),
        others=[q["question"][:120] for q in cluster[1:4]],
        why=_shares(why, asked),
    )


def _shares(counts: dict[str, int], whole: int) -> list[Share]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Share(name=name, count=n, share=rate(n, whole)) for name, n in ordered]


def _parameters(ctx: ToolContext) -> dict[str, object]:
    return {
        **words(list(GOALS)),
        "tenant": ctx.tenant,
        "out_of_domain": OUT_OF_DOMAIN,
        "unanswered": UNANSWERED,
        "answered": ANSWERED,
    }


class OpenQuestion(TypedDict):
    conversation: str
    at: datetime
    why: str
    question: str


_TABLE = f"""{_QUESTIONS} SELECT conversation, at, why, question FROM question ORDER BY conversation, seq, why"""  # noqa: S608 - put together from constants


@tool(effect="read", roles=STAFF)
async def stream_open_questions(
    ctx: ToolContext, *, since: Since = "", until: Until = ""
) -> AsyncIterator[Table[OpenQuestion]]:
    """Each question that got no good answer, with why, in tables: `pandas.concat(stream_open_questions())`."""
    async for batch in batches(ctx, _TABLE, {**_parameters(ctx), **span_of(since, until).parameters}):
        yield Table(batch)
