"""Crawls of sites on loopback into a real Postgres: what is stored, skipped, gone on with and removed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scraping_world import World, world
from site_double import Embeddings, Site, documents, help_centre, links, made, shell
from starlette.responses import Response

from gateway.db import Database
from servers.errors import RateLimited, ToolDenied, ToolError, ToolInputError, UpstreamError
from servers.registry import Registry
from servers.scraping.embedding import batched
from servers.scraping.rules import Endpoint

DOCUMENTS = [made(n) for n in range(20)]
#: With its two topics, the index, and without the page to sign in, which its robots.txt forbids.
PAGES = 23


@pytest.fixture
async def centre(database: Database, registry: Registry) -> AsyncIterator[World]:
    """A small help centre."""
    async with world(database, registry, help_centre(DOCUMENTS, 15)) as it:
        yield it


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def test_a_whole_help_centre_is_stored_by_a_few_calls(database: Database, registry: Registry) -> None:
    found = documents()
    async with world(database, registry, help_centre(found)) as it:
        report = await it.ingest()
        stored = await it.stored()
        assert set(stored) == set(it.site.pages), report
        assert (report["stored"], report["complete"], report["stopped"]) == (len(stored), True, "")
        assert report["chunks"] == sum(len(chunks) for _, chunks in stored.values()) >= len(found)
        assert it.embeddings.calls == report["embedding_calls"] <= report["chunks"] / 100
        assert max(it.embeddings.texts.values()) == 1  # nothing is embedded twice
        for each in found:
            title, chunks = stored[each.path]
            assert title == " ".join(each.title.split())
            assert all(heading.startswith(title[:200]) for heading, _ in chunks)
            assert not any("Imprint of the help centre" in text for _, text in chunks)
        [most] = await database.fetch("SELECT max(tokens) AS n FROM page_chunk")
        assert most["n"] <= it.rules.chunk_tokens
        assert it.site.agents == {"OmniOpsBot/1.0"}


async def test_what_robots_txt_forbids_is_not_asked_for(centre: World) -> None:
    centre.site.robots = "User-agent: *\nDisallow: /login\nDisallow: /topics/1\n"
    report = await centre.ingest()
    assert centre.site.asked["/login"] == centre.site.asked["/topics/1"] == 0
    assert report["skipped"] == {"forbidden": 2}
    assert len(await centre.stored()) == 17


async def test_a_crawl_delay_makes_it_one_request_at_a_time(centre: World) -> None:
    topics = ("/topics/0", "/topics/1")
    centre.site.held = {path: asyncio.Event() for path in topics}
    first = asyncio.create_task(centre.ingest(args={"max_depth": 1}))
    await until(lambda: all(centre.site.asked[path] for path in topics))  # two at a time, without it
    for event in centre.site.held.values():
        event.set()
    await first
    centre.site.most_under_way = 0
    centre.site.robots += "Crawl-delay: 0.001\n"
    await centre.ingest()
    assert centre.site.most_under_way == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_site_that_cannot_say_what_it_allows_is_left_alone(centre: World, status: int) -> None:
    centre.site.special["/robots.txt"] = Response("busy", status)
    with pytest.raises(UpstreamError, match="nothing may be fetched"):
        await centre.ingest(attempts=1)
    assert set(centre.site.asked) == {"/robots.txt"}


async def test_pages_that_only_a_sitemap_names_are_found(centre: World) -> None:
    centre.site.pages["/hidden"] = shell("Hidden", "<p>Only the sitemap knows this page of the help centre.</p>")
    centre.site.sitemap = f"<urlset><url><loc> {centre.url}/hidden </loc></url><url><loc>http://10.0.0.1/x</loc></url>"
    await centre.ingest(args={"sitemap": False})
    assert "/hidden" not in await centre.stored()
    await centre.ingest()
    assert "/hidden" in await centre.stored()


async def test_an_unchanged_site_costs_no_page_and_no_vector(centre: World) -> None:
    await centre.ingest()
    calls, rows = centre.embeddings.calls, await centre.database.fetch("SELECT xmin::text FROM page_chunk")
    centre.site.statuses.clear()
    report = await centre.ingest()
    assert (report["unchanged"], report["stored"], report["embedded"], report["removed"]) == (PAGES, 0, 0, 0)
    assert centre.site.statuses[304] == PAGES
    assert centre.site.statuses[200] == 1  # robots.txt
    assert centre.embeddings.calls == calls
    assert await centre.database.fetch("SELECT xmin::text FROM page_chunk") == rows


async def test_without_etags_the_content_itself_is_compared(centre: World) -> None:
    centre.site.etags = False
    await centre.ingest()
    calls = centre.embeddings.calls
    report = await centre.ingest()
    assert (report["unchanged"], report["stored"], centre.embeddings.calls) == (PAGES, 0, calls)


async def test_only_what_changed_is_embedded_anew_and_what_is_gone_is_removed(centre: World) -> None:
    await centre.ingest()
    changed, gone = DOCUMENTS[3].path, DOCUMENTS[4].path
    centre.site.pages[changed] = centre.site.pages[changed].replace("We answer", "We always answer")
    del centre.site.pages[gone]
    centre.site.pages["/topics/1"] = centre.site.pages["/topics/1"].replace("</main>", links(["/new"]) + "</main>")
    centre.site.pages["/new"] = shell("New", "<p>A new page of the help centre, with a text of its own.</p>")
    report = await centre.ingest()
    assert report["removed"] == 1
    assert report["stored"] == 3
    assert report["embedded"] < report["chunks"]
    stored = await centre.stored()
    assert "/new" in stored
    assert gone not in stored
    assert any("always answer" in text for _, text in stored[changed][1])


async def test_a_page_that_nothing_leads_to_any_more_is_removed_after_a_whole_crawl_alone(centre: World) -> None:
    await centre.ingest()
    centre.site.pages["/topics/0"] = shell("Topic 0", "<p>This topic is empty now, its pages went elsewhere.</p>")
    assert (await centre.ingest(args={"max_pages": 5}))["removed"] == 0
    report = await centre.ingest()
    assert (report["removed"], report["complete"]) == (15, True)


async def test_a_hub_that_fails_takes_no_page_with_it(centre: World) -> None:
    await centre.ingest()
    centre.site.special["/topics/0"] = Response("down", 500)
    report = await centre.ingest(attempts=1)
    assert (report["removed"], report["skipped"]["failed"]) == (0, 1)
    assert len(await centre.stored()) == PAGES
    assert report["problems"][0]["reason"] == "its robots.txt forbids it"
    assert {"url": f"{centre.url}/topics/0", "reason": "answers 500"} in report["problems"]


async def test_limits_of_pages_and_depth_hold_and_are_said(centre: World) -> None:
    report = await centre.ingest(args={"max_pages": 7})
    assert (report["pages"], report["stopped"], report["complete"]) == (7, "pages", False)
    assert (await centre.ingest(max_pages=3, args={"max_pages": 100}))["pages"] == 3
    report = await centre.ingest(args={"max_depth": 1})
    assert (report["stored"] + report["unchanged"], report["stopped"]) == (3, "")


async def test_links_without_end_are_dropped_and_nothing_is_removed_for_it(centre: World) -> None:
    await centre.ingest()
    report = await centre.ingest(frontier_urls=10)
    assert (report["pages"], report["complete"], report["removed"]) == (10, False, 0)
    [waiting] = await centre.database.fetch("SELECT count(*) AS n FROM page_frontier")
    assert waiting["n"] == 10
    assert len(await centre.stored()) == PAGES


async def test_a_crawl_whose_time_is_over_is_gone_on_with(centre: World) -> None:
    centre.site.held[DOCUMENTS[19].path] = asyncio.Event()
    first = asyncio.create_task(centre.ingest(crawl_s=0.0))
    report = await first
    assert report["stopped"] == "time"
    centre.site.held.clear()
    report = await centre.ingest()
    assert (report["resumed"], report["complete"], report["pages"]) == (True, True, PAGES + 1)


PROGRAM = Path(__file__).with_name("doomed_crawl.py")


async def test_a_killed_crawl_goes_on_where_it_was_and_ends_as_if_nothing_had_been(
    centre: World, postgres_url: str
) -> None:
    await centre.ingest(batch_chunks=10)
    undisturbed = await centre.stored()
    await centre.database.execute("TRUNCATE page_crawl, page_frontier, page, page_chunk")
    centre.site.asked.clear()
    centre.embeddings.texts.clear()
    held = DOCUMENTS[12].path
    centre.site.held[held] = asyncio.Event()
    command = [sys.executable, str(PROGRAM), postgres_url, centre.url, centre.rules.endpoint.url]  # type: ignore[union-attr]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    half = "SELECT count(*) AS n FROM page"
    while (await centre.database.fetch(half))[0]["n"] < 8 or not centre.site.asked[held]:
        assert process.returncode is None, (await process.communicate())[1]
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    centre.site.held.pop(held).set()
    before = set(await centre.stored())
    assert 8 <= len(before) < PAGES
    again = dict(centre.site.asked)
    centre.site.asked.clear()
    report = await centre.ingest(batch_chunks=10)
    assert report["resumed"]
    assert report["complete"]
    assert await centre.stored() == undisturbed
    assert not {path for path in before if centre.site.asked[path]}  # what was stored is not asked for again
    assert report["pages"] == PAGES + 1
    assert again[held] == 1


async def test_a_crawl_that_is_stopped_between_two_steps_leaves_whole_pages(centre: World) -> None:
    task = asyncio.create_task(centre.ingest(batch_chunks=10))
    centre.site.held[DOCUMENTS[16].path] = asyncio.Event()
    await until(lambda: centre.embeddings.calls > 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    centre.site.held.clear()
    torn = "SELECT url FROM page WHERE NOT EXISTS (SELECT FROM page_chunk c WHERE c.url = page.url)"
    assert await centre.database.fetch(torn) == []
    assert (await centre.ingest())["complete"]
    assert len(await centre.stored()) == PAGES


async def test_a_crawl_that_was_overtaken_writes_nothing_more(centre: World) -> None:
    held = centre.site.held[DOCUMENTS[16].path] = asyncio.Event()
    first = asyncio.create_task(centre.ingest())
    await until(lambda: centre.site.asked[DOCUMENTS[16].path])
    await centre.database.execute("UPDATE page_crawl SET run = 'another'")
    held.set()
    with pytest.raises(UpstreamError, match="Another crawl"):
        await first
    assert await centre.stored() == {}


async def test_another_tenants_pages_are_neither_seen_nor_touched(centre: World) -> None:
    await centre.ingest()
    rival = centre.bench("rival")
    assert await rival.call("scraping.search_pages", query="fee of plan 3") == []
    with pytest.raises(ToolError, match="No page"):
        await rival.call("scraping.get_page", url=f"{centre.url}{DOCUMENTS[3].path}")
    assert await rival.call("scraping.remove_site", url=centre.url) == {"pages": 0}
    assert (await rival.call("scraping.ingest_site", url=centre.url))["stored"] == PAGES
    assert await centre.bench().call("scraping.remove_site", url=centre.url) == {"pages": PAGES}
    assert len(await rival.call("scraping.search_pages", query="fee of plan 3")) == 5


async def test_a_site_inside_is_refused_unless_the_settings_name_it(centre: World) -> None:
    with pytest.raises(ToolDenied, match=r"port \d+|public internet"):
        await centre.ingest(allowed_hosts=())
    assert centre.site.asked.total() == 0


async def test_a_start_that_is_elsewhere_is_said(centre: World) -> None:
    centre.site.special["/"] = Response("", 301, headers={"location": "https://www.example.com/"})
    with pytest.raises(ToolInputError, match="another site") as error:
        await centre.ingest()
    assert error.value.hint == "Begin at https://www.example.com/."


async def test_what_pages_ask_of_crawlers_is_done(database: Database, registry: Registry) -> None:
    text = "<p>{} is a page with a text of its own, long enough to be taken for the main part of it.</p>"
    pages = {
        "/": shell(
            "Start", links(["/noindex", "/nofollow", "/double", "/copy", "/moved", "/image.png", "/a?utm_source=x"])
        ),
        "/noindex": shell("N", '<meta name="robots" content="noindex">' + links(["/behind-noindex"])),
        "/behind-noindex": shell("B", text.format("Behind")),
        "/nofollow": shell("F", '<meta name="robots" content="nofollow">' + text.format("F") + links(["/never"])),
        "/double": shell("D", '<link rel="canonical" href="/a">' + text.format("Double")),
        "/a": shell("A", text.format("A")),
        "/copy": shell("A", text.format("A")),
    }
    site = Site(pages, special={"/moved": Response("", 302, headers={"location": "/a"})})
    async with world(database, registry, site) as it:
        report = await it.ingest()
        stored = await it.stored()
    assert set(stored) - {"/copy", "/a"} == {"/", "/behind-noindex", "/nofollow"}
    assert len(stored) == 4  # of two with the same content one
    assert (report["duplicates"], site.asked["/never"], site.asked["/image.png"]) == (2, 0, 0)
    assert report["skipped"]["noindex"] == report["skipped"]["redirect"] == 1


async def test_hostile_pages_are_told_and_harm_no_other(database: Database, registry: Registry) -> None:
    good = "<p>A good page among bad ones, with enough text to be one.</p>"
    special = {
        "/deep": Response("<div>" * 100_000, media_type="text/html"),
        "/huge": Response("x" * 3_000_000, media_type="text/html"),
        "/latin": Response("<p>Grüße aus Köln</p>".encode("latin-1"), headers={"content-type": "text/html"}),
        "/lies": Response(b"\xff\xfe\x00\xd8<p>" + b"\xff" * 50, headers={"content-type": "text/html; charset=idna"}),
        "/nul": Response(
            b"<title>a\x00b</title><p>zero \x00 bytes \xed\xa0\x80 and halves</p>", media_type="text/html"
        ),
        "/ld": Response(
            '<script type="application/ld+json">' + "[" * 100_000 + "</script>" + good, media_type="text/html"
        ),
        "/half": Response(
            '<script type="application/ld+json">{"@type": "Product", "name": "\\ud800 \\u0000", "sku": ["\\udfff"],'
            ' "offers": {"price": "1e999", "priceCurrency": {"a": 1}}}</script>' + good,
            media_type="text/html",
        ),
        "/loop": Response("", 302, headers={"location": "/loop"}),
        "/inside": Response("", 302, headers={"location": "http://169.254.169.254/latest"}),
        "/empty": Response("", media_type="text/html"),
        "/trap": Response("".join(f'<a href="/x{n}">{n}</a>' for n in range(100_000)), media_type="text/html"),
    }
    site = Site({"/": shell("Start", links([*special, "/good"])), "/good": shell("Good", good)}, special=special)
    async with world(database, registry, site) as it:
        report = await it.ingest(page_bytes=2_000_000, links_per_page=20, parse_s=1.0)
        stored = await it.stored()
        problems = {each["url"].removeprefix(it.url): each["reason"] for each in report["problems"]}
    assert {"/", "/good", "/latin", "/ld", "/half"} <= set(stored)
    assert "Grüße aus Köln" in stored["/latin"][1][0][1]
    assert stored["/nul"][0] == "a\ufffdb"
    assert problems["/deep"] == "takes over 1 s to read"
    assert "over the limit" in problems["/huge"]
    assert "redirects" in problems["/loop"]
    assert "another site" in problems["/inside"]
    assert problems["/empty"] == "has no text"
    assert sum(path.startswith("/x") for path in site.asked) <= 20
    assert report["complete"]


async def test_the_endpoints_limits_are_kept() -> None:
    texts = [str(n) for n in range(5_000)]
    sizes = [len(batch) for batch in batched(texts, [1] * 5_000, 2_048, 300_000)]
    assert sizes == [2_048, 2_048, 904]
    tokens = [200] * 5_000
    assert all(len(batch) * 200 <= 300_000 for batch in batched(texts, tokens, 2_048, 300_000))
    assert [len(batch) for batch in batched(["a", "b", "c"], [10, 500, 10], 10, 100)] == [1, 1, 1]
    assert list(batched([], [], 10, 100)) == []


async def test_an_endpoint_that_asks_to_wait_is_waited_for(centre: World) -> None:
    centre.embeddings.first = [Response("slow down", 429, headers={"retry-after": "0"})]
    report = await centre.ingest()
    assert report["complete"]
    assert report["run"]["retries"] == 1


@pytest.mark.parametrize(
    ("first", "error", "words"),
    [
        ([Response("sk-secret-of-the-tenant is wrong", 401)], UpstreamError, "answers 401"),
        ([Response("", 302, headers={"location": "http://127.0.0.1:1/"})], UpstreamError, "answers 302"),
        ([Response("busy", 429, headers={"retry-after": "0"})] * 2, RateLimited, "asks to wait"),
        ([Response("{}", 200)], UpstreamError, "not what OpenAI's API answers"),
        ([Response('{"data": []}', 200)], UpstreamError, "0 vectors for"),
    ],
)
async def test_an_endpoint_that_fails_is_told_without_its_key(
    centre: World, first: list[Response], error: type[ToolError], words: str
) -> None:
    centre.embeddings.first = first
    with pytest.raises(error, match=words) as raised:
        await centre.ingest()
    assert "secret" not in str(vars(raised.value)) + repr(centre.rules)
    assert await centre.stored() == {}
    assert (await centre.ingest())["complete"]


async def test_vectors_of_other_dimensions_are_refused(database: Database, registry: Registry) -> None:
    async with world(database, registry, help_centre(DOCUMENTS[:2]), Embeddings(dimensions=1536)) as it:
        with pytest.raises(UpstreamError, match="1536 dimensions; 384 are kept"):
            await it.ingest()


async def test_another_model_embeds_all_pages_anew(centre: World) -> None:
    await centre.ingest()
    endpoint = centre.rules.endpoint
    assert isinstance(endpoint, Endpoint)
    report = await centre.ingest(endpoint=replace(endpoint, model="another"))
    assert (report["stored"], report["unchanged"]) == (PAGES, 0)
    assert report["embedded"] == report["chunks"]
