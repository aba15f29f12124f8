"""Step by step losses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...errors import ToolInputError
from ...tool import STAFF
from ...work import Progress, Report, work
from ..conversations import CONVERSATIONS, one, words
from ..span import Share, Since, Top, Until, rate, span_of
from ..words import ANSWERED, GOALS, REQUEST, Patterns, like


class Step(TypedDict):
    name: Annotated[str, Meta(min_length=1, max_length=60)]
    words: Annotated[Patterns, Meta(min_length=1, description="'request' stands for any request")]


class Reached(TypedDict):
    step: str
    conversations: int
    share: Annotated[float, Meta(description="of all that began")]
    lost: Annotated[int, Meta(description="that reached the step before and not this one")]
    lost_after: Annotated[list[Share], Meta(description="their last words")]


class Funnel(Report):
    since: str
    until: str
    steps: list[Reached]
    biggest_loss: Annotated[str, Meta(description="the step before which most are lost")]
    notes: list[str]


STEPS = (
    Step(name="asked for something", words=[REQUEST]),
    Step(name="gave details", words=["contentonly", ANSWERED]),
    Step(name="confirmed", words=["confirmation", "thankyou", "rejection", "closinggreeting", ANSWERED]),
    Step(name="said good-bye", words=["thankyou", "rejection", "closinggreeting", ANSWERED]),
)

_MOST = 8


@work(workload="report", effect="read", roles=STAFF)
async def conversation_funnel(
    ctx: ToolContext,
    *,
    since: Since = "",
    until: Until = "",
    steps: Annotated[list[Step], Meta(max_length=_MOST)] = [],  # noqa: B006 - never changed
    top: Top = 3,
) -> AsyncIterator[Progress | Funnel]:
    """How many conversations get how far, step by step, and after which words those leave that do not.

    A step is reached where one of its words comes after one of the step before it. `answered`, the end of a turn of our
    own agent, reaches every step that names it from there on.
    """
    span = span_of(since, until)
    chosen = steps or list(STEPS)
    if len({step["name"] for step in chosen}) < len(chosen):
        raise ToolInputError("Two steps have one name.")
    reached = " + ".join(f"(p{n}.i IS NOT NULL)::int" for n in range(len(chosen)))
    places = ", ".join(_place(n) for n in range(len(chosen)))
    wanted: dict[str, object] = {f"step{n}": like(step["words"]) for n, step in enumerate(chosen)}
    wanted |= {f"request{n}": REQUEST in step["words"] for n, step in enumerate(chosen)}
    found = await one(
        ctx,
        f"""WITH {CONVERSATIONS},
        got AS MATERIALIZED (SELECT {reached} AS far, last, conversations FROM shape, {places}),
        lost AS (SELECT far, last AS name, sum(conversations) AS count,
                        row_number() OVER (PARTITION BY far ORDER BY sum(conversations) DESC, last) AS place
                 FROM got GROUP BY far, last)
        SELECT (SELECT weight FROM weight), (SELECT coalesce(jsonb_object_agg(far, n), '{{}}')
                FROM (SELECT far, sum(conversations) AS n FROM got GROUP BY far) f) AS far,
               (SELECT coalesce(jsonb_agg(jsonb_build_object('far', far, 'name', name, 'count', count) ORDER BY place),
                                '[]') FROM lost WHERE place <= %(top)s) AS lost""",  # noqa: S608 - put together from constants
        {**span.parameters, **words(list(GOALS)), "top": top, **wanted},
    )
    far = [found["far"].get(str(n), 0) for n in range(len(chosen) + 1)]
    whole = sum(far)
    told = [Reached(step="began", conversations=whole, share=rate(whole, whole), lost=0, lost_after=[])]
    for n, step in enumerate(chosen):
        after = [
            Share(name=w["name"] or "(nothing)", count=w["count"], share=rate(w["count"], far[n]))
            for w in found["lost"]
            if w["far"] == n
        ]
        count = sum(far[n + 1 :])
        told.append(
            Reached(step=step["name"], conversations=count, share=rate(count, whole), lost=far[n], lost_after=after)
        )
    worst = max(told[1:], key=lambda step: step["lost"])
    yield Funnel(
        since=span.told[0],
        until=span.told[1],
        steps=told,
        biggest_loss=worst["step"] if worst["lost"] else "",
        notes=[] if whole else ["There are no conversations in this span."],
    )


def _place(n: int) -> str:
    """SQL for where step `n` is reached in a conversation's words, from where the step before it was."""
    after = ""
    if n:
        after = f"AND (i > p{n - 1}.i OR i = p{n - 1}.i AND w = '{ANSWERED}')"
    return f"""LATERAL (SELECT min(i) AS i FROM unnest(string_to_array(said, ' ')) WITH ORDINALITY u(w, i)
        WHERE (w LIKE ANY(%(step{n})s) OR %(request{n})s AND w <> ALL(%(no_request)s)) {after}) p{n}"""  # noqa: S608 - put together from constants
