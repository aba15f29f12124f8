"""A crawl: from the frontier to stored pages, in batches that are each whole in the database or not there at all.

While a batch is embedded and stored, the next pages are fetched. A batch's transaction holds its pages, their chunks
and the frontier's changes, so that after a kill the next crawl goes on with what had not been stored.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from ..context import TenantDatabase
from ..errors import ToolDenied, ToolError, ToolInputError, UpstreamError
from . import store
from .addresses import Refused
from .chunks import Chunk
from .embedding import PageEmbedder
from .fetch import Fetcher, NotFetched
from .reader import Reader
from .robots import read_robots, read_sitemaps
from .rules import Rules
from .store import Crawl, Known, Overtaken, Visit
from .urls import normal, origin
from .visit import Elsewhere, Result, Visitor, recipe_of

#: Batches that are embedded and stored at once; while more wait, nothing is fetched.
_BATCHES = 3
#: Visits without a page to store that are entered together.
_VISITS = 200
_PROBLEMS = 20
_PROBLEM_CHARS = 300


@dataclass(frozen=True)
class Way:
    """What a crawl has at hand."""

    tenant: str
    database: TenantDatabase
    fetcher: Fetcher
    reader: Reader
    embedder: PageEmbedder
    rules: Rules


@dataclass
class Counts:
    """How far a crawl is. `outcomes`: of URLs, by what came of them, also in the crawl that it goes on with."""

    outcomes: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    embedded: int = 0
    removed: int = 0
    queued: int = 0
    #: Pages whose text was longer than is kept.
    truncated: int = 0
    #: Links for which there was no room.
    dropped: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    resumed: bool = False
    #: What stopped it before its end: "pages" or "time".
    stopped: str = ""
    complete: bool = False
    note: str = ""

    @property
    def pages(self) -> int:
        return sum(self.outcomes.values())


@dataclass
class _Batch:
    results: list[Result] = field(default_factory=list)
    chunks: int = 0


async def crawl(way: Way, start: str, *, max_pages: int, max_depth: int, sitemap: bool) -> AsyncGenerator[Counts, None]:
    """Bring the stored pages of the site that begins at `start` up to date; how far it is, after every step.

    Raises:
        ToolError: the site or the embedding model cannot be used at all. What was stored stays.
    """
    try:
        start = normal(start)
        robots = await read_robots(way.fetcher, origin(start), way.rules.user_agent)
    except Refused as error:
        raise ToolDenied(f"{start[:200]} may not be fetched: {error}.") from None
    except NotFetched as error:
        raise UpstreamError(f"{start[:200]} cannot be fetched: {error}") from None
    way.fetcher.slow_down(robots.delay_s)
    options = {"max_depth": max_depth, "sitemap": sitemap, "recipe": recipe_of(way.embedder, way.rules)}
    async with way.database.transaction() as rows:
        entered = await store.begin(rows, way.tenant, start, secrets.token_hex(8), options)
        queue, seen = await store.frontier(rows, start)
        contents = await store.contents(rows, start)
    if not seen:
        found = await read_sitemaps(way.fetcher, origin(start), robots, way.rules.sitemap_urls) if sitemap else []
        queue = [(start, 0), *((url, 1) for url in found if url != start)]
        seen = {url for url, _ in queue}
        async with way.database.transaction() as rows:
            await store.keep(rows, way.tenant, entered)
            await store.add_to_frontier(rows, way.tenant, start, queue)

    async def known(url: str) -> Known | None:
        async with way.database.transaction() as rows:
            return (await store.known(rows, [url])).get(url)

    visitor = Visitor(start, way.rules, way.fetcher, way.reader, robots, way.embedder, known, seen, contents)
    work = _Work(way, entered, visitor, deque(queue), max_pages, max_depth)
    try:
        async for counts in work.steps():
            yield counts
    except Overtaken as error:
        raise UpstreamError(str(error)) from None
    finally:
        await work.stop()


class _Work:
    """The pages under way, and the batches behind them."""

    def __init__(
        self,
        way: Way,
        entered: Crawl,
        visitor: Visitor,
        queue: deque[tuple[str, int]],
        max_pages: int,
        max_depth: int,
    ) -> None:
        self._way = way
        self._crawl = entered
        self._visitor = visitor
        self._queue = queue
        self._max_pages, self._max_depth = max_pages, max_depth
        kept = dict(entered.counts)
        chunks, embedded, truncated = (kept.pop(name, 0) for name in ("_chunks", "_embedded", "_truncated"))
        dropped = kept.pop("_dropped", 0)
        self._counts = Counts(
            Counter(kept), chunks, embedded, truncated=truncated, dropped=dropped, resumed=entered.resumed
        )
        self._fetching: set[asyncio.Task[Result]] = set()
        self._storing: set[asyncio.Task[None]] = set()
        self._batch = _Batch()
        self._one_at_a_time = asyncio.Lock()
        self._ends = time.monotonic() + way.rules.crawl_s

    async def steps(self) -> AsyncIterator[Counts]:
        while True:
            self._fetch_more()
            if not self._fetching and self._batch.results:
                self._flush()
            under_way: set[asyncio.Task[Result] | asyncio.Task[None]] = {*self._fetching, *self._storing}
            if not under_way:
                break
            done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for fetched in [task for task in self._fetching if task in done]:
                self._fetching.discard(fetched)
                self._take(fetched.result())
            for stored in [task for task in self._storing if task in done]:
                self._storing.discard(stored)
                stored.result()
            self._counts.queued = len(self._queue)
            yield self._counts
        await self._finish()
        yield self._counts

    async def stop(self) -> None:
        """Nothing of it goes on; what no transaction has committed is not there."""
        tasks = [*self._fetching, *self._storing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fetch_more(self) -> None:
        rules = self._way.rules
        while self._queue and len(self._fetching) < rules.in_flight and len(self._storing) < _BATCHES:
            if self._counts.pages + len(self._fetching) >= self._max_pages:
                self._counts.stopped = "pages"
                return
            if time.monotonic() > self._ends:
                self._counts.stopped = "time"
                return
            url, depth = self._queue.popleft()
            self._fetching.add(asyncio.create_task(self._visitor.visit(url, depth)))

    def _take(self, result: Result) -> None:
        visit = result.visits[-1]
        if visit.depth == 0 and visit.outcome in ("refused", "forbidden", "failed", "unknown", "gone"):
            self._no_start(visit, result)
        if result.problem and len(self._counts.problems) < _PROBLEMS:
            self._counts.problems.append((visit.url, result.problem[:_PROBLEM_CHARS]))
        self._batch.results.append(replace(result, visits=tuple(self._entered(each) for each in result.visits)))
        if result.page is not None:
            self._batch.chunks += len(result.page.chunks)
        if self._batch.chunks >= self._way.rules.batch_chunks or len(self._batch.results) >= _VISITS:
            self._flush()

    def _entered(self, visit: Visit) -> Visit:
        """The visit with the links that are new by it, which wait now; most of a page's are on others too."""
        self._counts.outcomes[visit.outcome] += 1
        seen = self._visitor.seen
        found = dict.fromkeys(visit.found) if visit.depth < self._max_depth else ()
        fresh = [url for url in found if url not in seen]
        room = max(self._way.rules.frontier_urls - len(seen), 0)
        self._counts.dropped += len(fresh[room:])
        seen.update(fresh[:room])
        self._queue.extend((url, visit.depth + 1) for url in fresh[:room])
        return replace(visit, found=tuple(fresh[:room]))

    def _no_start(self, visit: Visit, result: Result) -> NoReturn:
        problem = f"{visit.url} {result.problem}"
        if isinstance(result.refusal, Elsewhere):
            raise ToolInputError(f"{problem}.", hint=f"Begin at {result.refusal.url}.")
        error: type[ToolError] = ToolDenied if visit.outcome in ("refused", "forbidden") else UpstreamError
        raise error(f"{problem}.", hint="Its stored pages stay as they are.")

    def _flush(self) -> None:
        batch, self._batch = self._batch, _Batch()
        self._storing.add(asyncio.create_task(self._store(batch.results)))

    async def _store(self, results: Sequence[Result]) -> None:
        way, pages = self._way, [result.page for result in results if result.page is not None]
        async with way.database.transaction() as rows:
            vectors = await store.vectors_of(rows, way.embedder.name, [page.url for page in pages])
        fresh: dict[bytes, Chunk] = {}
        for page in pages:
            fresh |= {chunk.digest: chunk for chunk in page.chunks if chunk.digest not in vectors}
        made = await way.embedder.embed([chunk.embedded for chunk in fresh.values()]) if fresh else []
        vectors |= zip(fresh, made, strict=True)
        visits = [visit for result in results for visit in result.visits]
        async with self._one_at_a_time, way.database.transaction() as rows:
            # what was seen is counted when it is stored, so that a crawl that goes on counts nothing twice
            counts = Counter(self._crawl.counts) + Counter(v.outcome for v in visits)
            counts["_chunks"] += sum(len(page.chunks) for page in pages)
            counts["_embedded"] += len(fresh)
            counts["_dropped"] = self._counts.dropped
            counts["_truncated"] += sum(page.truncated for page in pages)
            crawl = Crawl(self._crawl.site, self._crawl.run, self._crawl.resumed, dict(counts))
            await store.keep(rows, way.tenant, crawl)
            if pages:
                await store.put_pages(rows, way.tenant, crawl.site, way.embedder.name, pages, vectors)
            await store.refresh(rows, [r.refreshed for r in results if r.refreshed is not None])
            self._counts.removed += await store.forget(rows, [v.url for v in visits if v.outcome == "gone"])
            await store.enter(rows, way.tenant, crawl.site, visits)
        self._crawl = crawl
        self._counts.chunks, self._counts.embedded = counts["_chunks"], counts["_embedded"]
        self._counts.truncated = counts["_truncated"]

    async def _finish(self) -> None:
        counts = self._counts
        if self._queue and counts.stopped == "time":
            return  # not over: the next call goes on
        # a page that failed and that nothing is known of may have been the way to others
        counts.complete = not self._queue and not counts.outcomes["unknown"] and not counts.dropped
        async with self._way.database.transaction() as rows:
            await store.keep(rows, self._way.tenant, self._crawl)
            if counts.complete:
                counts.removed += await store.forget_unseen(rows, self._crawl.site)
            await store.finish(rows, self._way.tenant, self._crawl)
        if not self._queue:
            counts.stopped = ""
