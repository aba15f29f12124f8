"""Reports on conversations, figures held against pandas': on a small file with all kinds of dirt and a real one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import analytics_check as check
import httpx
import pandas as pd
import pytest
from tool_bench import Bench, context_for

from gateway.db import Database
from servers.analytics.clusters import cluster
from servers.analytics.files import FileProblem, messages_of
from servers.analytics.load import Message, write_messages
from servers.catalog.embedding import MiniLm
from servers.errors import ToolInputError
from servers.registry import Registry

REAL = (
    Path(os.environ.get("SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "conversations"
    / "multidogo.parquet"
)
#: The real file is not in a clone: it is not ours to commit. SHARED_DATA names its folder.
SOURCES = ["small", *(["real"] if REAL.exists() else [])]
BEGINS = datetime(2026, 9, 1, tzinfo=UTC)

#: conversation, turn, text, intents as a file joins them
SMALL = [
    ("a", 0, "hi", "openinggreeting"),
    ("a", 2, "a seat by the window and my boarding pass", "getseatinfo<div>getboardingpass"),
    ("a", 4, "Smith, 4111 1111 1111 1111", "contentonly"),
    ("a", 6, "thanks", "thankyou"),
    ("b", 0, "", "openinggreeting"),
    ("b", 1, "do you sell gift cards for my aunt", "outofdomain"),
    ("b", 3, "book me a flight", "bookflight"),
    ("b", 5, "book me a flight", "bookflight"),
    ("b", 7, "to Rome", "contentonly"),
    ("c", 0, "book me a flight", "BookFlight<div> bookflight"),
    ("c", 2, "no, that is all", "rejection"),
    ("d", 0, "do you sell gift vouchers", "outofdomain"),
    ("e", 0, "my order, write to me@example.com", "checkorder"),
    ("f", 0, "no words on this one", None),
]


@pytest.fixture
async def tools(database: Database, registry: Registry, embedder: MiniLm) -> AsyncIterator[Bench]:
    await database.execute("TRUNCATE chat_message")
    async with httpx.AsyncClient() as http:
        context = context_for("http://127.0.0.1:1", http)
        yield Bench(registry, context).with_(database=database.tenant("retail"), embedder=embedder)


async def load(database: Database, path: Path, tenant: str = "retail", **options: Any) -> int:
    found = [await write_messages(database.tenant(tenant), tenant, b) for b in messages_of(path, **options)]
    return sum(each.written for each in found)


def frame_of(path: Path, **where: str) -> pd.DataFrame:
    """The file as the reports should understand it, read by pandas."""
    read = pd.read_csv(path, keep_default_na=False) if path.suffix == ".csv" else pd.read_parquet(path)
    for name, value in where.items():
        read = read[read[name] == value]
    intents = read["intent"].fillna("").str.lower().str.split("<div>")
    words = [list(dict.fromkeys(w.strip() for w in each if w.strip())) for each in intents]
    return pd.DataFrame(
        {"conversation": read["conversation_id"], "seq": read["turn"], "text": read["utterance"], "words": words}
    ).assign(role="customer")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.csv"
    pd.DataFrame(SMALL, columns=["conversation_id", "turn", "utterance", "intent"]).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("source", SOURCES)
async def test_the_figures_are_what_pandas_reckons(
    tools: Bench, database: Database, small: Path, tmp_path: Path, source: str
) -> None:
    if source == "real":
        whole = pd.read_parquet(REAL)
        part = tmp_path / "part.parquet"
        whole[whole["conversation_id"].str.startswith("0")].to_parquet(part)  # a sixteenth
        await load(database, part, where={"domain": "fastfood"}, begins=BEGINS)
        loaded = frame_of(part, domain="fastfood")
    else:
        await load(database, small)
        loaded = frame_of(small)
    await _journey(tools, loaded)
    await _funnel(tools, loaded)
    await _rows(tools, loaded)


async def _journey(tools: Bench, loaded: pd.DataFrame) -> None:
    ours, theirs = await tools.call("analytics.customer_journey", top=50), check.journey(loaded)
    for name in ("conversations", "messages", "with_request", "resolved", "handed_over", "converted"):
        assert ours[name] == theirs[name], name
    for name in ("messages_per_conversation", "turns_to_resolution"):
        assert ours[name] == pytest.approx(theirs[name]), name
    assert {r["intent"]: (r["conversations"], r["resolved"]) for r in ours["requests"]} == theirs["requests"]
    assert {s["name"]: s["count"] for s in ours["left_after"]} == theirs["left_after"]
    shown = {p["path"]: p["conversations"] for p in ours["paths"]}
    assert shown == {path: n for path, n in theirs["paths"].items() if path in shown}
    assert sorted(shown.values(), reverse=True) == sorted(theirs["paths"].values(), reverse=True)[:50]
    assert ours["minutes_to_resolution"] is None
    assert any("no times" in note for note in ours["notes"])


async def _funnel(tools: Bench, loaded: pd.DataFrame) -> None:
    ours = await tools.call("analytics.conversation_funnel")
    steps: list[set[str] | None] = [None, {"contentonly", "answered"}]
    steps += [{"confirmation", "thankyou", "rejection", "closinggreeting", "answered"}]
    steps += [{"thankyou", "rejection", "closinggreeting", "answered"}]
    reached = check.funnel(loaded, steps)
    assert [step["conversations"] for step in ours["steps"]] == reached
    assert [step["lost"] for step in ours["steps"]] == [0, *(a - b for a, b in pairwise(reached))]


async def _rows(tools: Bench, loaded: pd.DataFrame) -> None:
    questions = await table(tools, "stream_open_questions")
    assert dict(questions["why"].value_counts()) == {why: n for why, n in check.open_questions(loaded).items() if n}
    ours = (await table(tools, "stream_conversations")).set_index("conversation").sort_index()
    theirs = check.conversations(loaded).set_index("conversation").sort_index()
    assert list(ours.index) == list(theirs.index)
    assert list(ours["path"]) == [" > ".join(path) for path in theirs["path"]]
    assert list(ours["outcome"] == "resolved") == list(theirs["resolved"])
    assert list(ours["messages"]) == list(theirs["messages"])


async def table(tools: Bench, name: str) -> pd.DataFrame:
    stream = tools.registry.get(f"analytics.{name}").stream(tools.context, {})
    return pd.concat([part.to_pandas() async for part in stream])


async def test_dirt_is_counted_and_said(tools: Bench, database: Database, small: Path) -> None:
    await load(database, small)
    found = {each["what"]: each["rows"] for each in (await tools.call("analytics.customer_journey"))["dirt"]}
    assert found == {
        "messages with several intents": 1,  # of "c" both are one
        "messages without text": 1,
        "customers' messages without an intent": 1,
        "conversations without times": 6,
    }


async def test_gaps_are_grouped_by_meaning_and_masked(tools: Bench, database: Database, small: Path) -> None:
    await load(database, small)
    found = await tools.call("analytics.content_gaps")
    assert found["questions"] == 4
    assert found["gaps"][0]["asked"] == 2
    assert {found["gaps"][0]["question"], *found["gaps"][0]["others"]} == {
        "do you sell gift cards for my aunt",
        "do you sell gift vouchers",
    }
    assert "my order, write to [address]" in [gap["question"] for gap in found["gaps"]]
    assert "example.com" not in str(found)


def said(conversation: str, seq: int, role: Any, text: str, *words: str, minute: int = 0) -> Message:
    at = datetime(2026, 10, 1, 12, minute, tzinfo=UTC)
    return Message(conversation=conversation, seq=seq, at=at, role=role, text=text, intents=words)


CHATS = [
    said("s1", 1, "customer", "where is my parcel 4711"),
    said("s1", 2, "agent", "On its way.", "lookup_order", "answered", minute=3),
    said("s2", 1, "customer", "can I pay in instalments"),
    said("s2", 2, "agent", "", "search_products", "unanswered"),
    said("s3", 1, "customer", "let me speak to a person"),
    said("s3", 2, "agent", "I hand you over.", "lookup_order", "hand_over", "answered"),
]


async def test_chats_of_our_own_count_by_what_the_agent_did(tools: Bench, database: Database) -> None:
    await write_messages(database.tenant("retail"), "retail", CHATS)
    found = await tools.call("analytics.customer_journey")
    assert (found["with_request"], found["resolved"], found["handed_over"]) == (3, 1, 1)
    assert found["minutes_to_resolution"]["median"] == 3
    funnel = await tools.call("analytics.conversation_funnel")
    assert [step["conversations"] for step in funnel["steps"]] == [3, 3, 2, 2, 2]
    gaps = await tools.call("analytics.content_gaps")
    assert {gap["question"]: gap["why"][0]["name"] for gap in gaps["gaps"]} == {
        "can i pay in instalments": "unanswered",
        "let me speak to a person": "handed over",
    }


async def test_a_span_takes_conversations_whole(tools: Bench, database: Database) -> None:
    late = [said("s4", n, "customer", "hello", "bookflight", minute=50 + n) for n in range(3)]
    await write_messages(database.tenant("retail"), "retail", [*CHATS, *late])
    for since, until, conversations, messages in [
        ("2026-10-01T12:30:00", "", 1, 3),
        ("", "2026-10-01T12:51:00", 4, 9),  # begun before its end, counted to theirs
        ("2026-10-01T14:30+02:00", "2026-10-01T12:50:00Z", 0, 0),
    ]:
        found = await tools.call("analytics.customer_journey", since=since, until=until)
        assert (found["conversations"], found["messages"]) == (conversations, messages)
    assert found["notes"] == ["There are no conversations in this span."]


@pytest.mark.parametrize(
    ("since", "until"), [("yesterday", ""), ("", "2026-13-01"), ("2026-02-01", "2026-02-01"), ("1; DROP TABLE", "")]
)
async def test_what_is_no_span_is_refused(tools: Bench, since: str, until: str) -> None:
    with pytest.raises(ToolInputError, match=r"ISO 8601|not after"):
        await tools.call("analytics.customer_journey", since=since, until=until)


async def test_a_tenant_sees_its_own_conversations_alone(tools: Bench, database: Database, small: Path) -> None:
    await load(database, small, "rival")
    for name in ("customer_journey", "content_gaps", "conversation_funnel"):
        assert (await tools.call(f"analytics.{name}"))["notes"] != []
    found = await database.fetch("SELECT DISTINCT tenant FROM chat_message")
    assert [row["tenant"] for row in found] == ["rival"]


async def test_a_file_that_is_loaded_again_changes_nothing(tools: Bench, database: Database, small: Path) -> None:
    assert await load(database, small, begins=BEGINS) == len(SMALL)
    before = await tools.call("analytics.customer_journey")
    assert await load(database, small) == 0
    after = await tools.call("analytics.customer_journey")
    assert after | {"run": None} == before | {"run": None}


def test_a_file_without_the_columns_says_which(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(FileProblem, match="no column for conversation"):
        list(messages_of(path))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(FileProblem, match="cannot be read"):
        list(messages_of(tmp_path / "broken.parquet"))


def test_a_group_is_near_what_was_said_most() -> None:
    vectors = [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8]]
    assert cluster(vectors, [5, 1, 2, 3], alike=0.7) == [[3, 2, 1], [0]]  # the nearest of those that are near
    assert cluster([], []) == []
