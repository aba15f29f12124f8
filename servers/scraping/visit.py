"""One page of a crawl: fetched, read and cut into chunks, or the reason why not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from .addresses import Refused
from .chunks import Chunk, chunks_of
from .embedding import PageEmbedder
from .fetch import Answer, Fetcher, NotFetched
from .page import Content, Source
from .reader import Reader
from .robots import Robots
from .rules import Rules
from .store import Known, NewPage, Visit
from .urls import is_page, normal, origin

#: Changes whenever pages are read or cut otherwise than before: all are read anew then.
EDITION = 1
_GONE = frozenset({404, 410})


class Elsewhere(Refused):
    """The page is on another site."""

    def __init__(self, url: str) -> None:
        super().__init__(f"leads to {origin(url)}, which is another site")
        self.url = url


class Forbidden(Refused):
    """The site's robots.txt forbids it."""


@dataclass(frozen=True)
class Result:
    """What came of a URL; of two, where one led to the other."""

    visits: tuple[Visit, ...]
    page: NewPage | None = None
    #: url, ETag, Last-Modified and links of a page whose content is as it was.
    refreshed: tuple[str, str, str, tuple[str, ...]] | None = None
    #: Why there is no page, for people.
    problem: str = ""
    refusal: Refused | None = None


@dataclass
class Visitor:
    """What all visits of one crawl share."""

    site: str
    rules: Rules
    fetcher: Fetcher
    reader: Reader
    robots: Robots
    embedder: PageEmbedder
    known: Callable[[str], Awaitable[Known | None]]
    #: URLs that are visited or will be, and contents that were found.
    seen: set[str]
    contents: set[str] = field(default_factory=set)

    @property
    def recipe(self) -> str:
        return recipe_of(self.embedder, self.rules)

    async def visit(self, url: str, depth: int) -> Result:
        """Never raises for what a page or its server does."""
        stored: Known | None = None
        try:
            self.check(url)
            stored = await self.known(url)
            answer = await self._fetched(url, stored)
            if answer.status == 304 and stored is not None:
                return self._not_modified(url, depth, stored)
            if answer.status != 200:
                return self._failed(url, depth, stored, f"answers {answer.status}", answer.status in _GONE)
            return await self._page(url, depth, answer, stored)
        except Forbidden as error:
            return Result((Visit(url, "forbidden", depth=depth),), problem=str(error))
        except Refused as error:
            return Result((Visit(url, "refused", depth=depth),), problem=str(error), refusal=error)
        except NotFetched as error:
            return self._failed(url, depth, stored, str(error), False)

    def check(self, url: str) -> None:
        """
        Raises:
            Elsewhere, Forbidden
        """
        if origin(url) != origin(self.site):
            raise Elsewhere(url)
        if not self.robots.allows(url):
            raise Forbidden("its robots.txt forbids it")

    async def _fetched(self, url: str, stored: Known | None) -> Answer:
        headers: dict[str, str] = {}
        if stored is not None and stored.recipe == self.recipe:
            if stored.etag:
                headers["if-none-match"] = stored.etag
            if stored.last_modified:
                headers["if-modified-since"] = stored.last_modified
        return await self.fetcher.get(url, headers=headers, may=self.check)

    def _failed(self, url: str, depth: int, stored: Known | None, reason: str, gone: bool) -> Result:
        # what it led to before is still looked at: a hub that is down for a minute must not take its pages with it
        found = self._links(url, stored.links) if stored is not None and not gone else ()
        outcome = "gone" if gone else "failed" if stored is not None else "unknown"
        return Result((Visit(url, outcome, found, depth),), problem=reason)

    def _not_modified(self, url: str, depth: int, stored: Known) -> Result:
        self.contents.add(stored.content_hash)
        return Result((Visit(url, "same", self._links(url, stored.links), depth),))

    async def _page(self, asked: str, depth: int, answer: Answer, stored: Known | None) -> Result:
        url = answer.url
        before: tuple[Visit, ...] = ()
        if url != asked:
            if url in self.seen:
                return Result((Visit(asked, "redirect", depth=depth),))
            self.seen.add(url)
            before, stored = (Visit(asked, "redirect", depth=depth),), await self.known(url)
        content = await self.reader.read(
            Source(answer.body, answer.headers.get("content-type", ""), self.rules.links_per_page)
        )
        said = answer.headers.get("x-robots-tag", "").lower()
        links = () if content.nofollow or "nofollow" in said else self._links(url, content.links)
        canonical = self._canonical(url, content)
        if content.noindex or "noindex" in said:
            return Result((*before, Visit(url, "noindex", links, depth)), problem="asks not to be indexed")
        if canonical is not None:
            return Result((*before, Visit(url, "duplicate", (canonical, *links), depth)))
        chunks, whole = await asyncio.to_thread(
            chunks_of, content, self.embedder.count, self.rules.chunk_tokens, self.rules.chunks_per_page
        )
        if not chunks:
            return Result((*before, Visit(url, "empty", links, depth)), problem="has no text")
        digest = content_hash(content, chunks)
        etag, modified = answer.headers.get("etag", "")[:500], answer.headers.get("last-modified", "")[:100]
        if digest in self.contents:
            return Result((*before, Visit(url, "duplicate", links, depth)))
        self.contents.add(digest)
        if stored is not None and (stored.content_hash, stored.recipe) == (digest, self.recipe):
            return Result((*before, Visit(url, "same", links, depth)), refreshed=(url, etag, modified, links))
        page = NewPage(
            url=url,
            title=content.title[:500],
            description=content.description[:2_000],
            language=content.language,
            product=content.product,
            links=links,
            etag=etag,
            last_modified=modified,
            content_hash=digest,
            recipe=self.recipe,
            truncated=not whole,
            chunks=tuple(chunks),
        )
        return Result((*before, Visit(url, "stored", links, depth)), page=page)

    def _links(self, base: str, links: tuple[str, ...]) -> tuple[str, ...]:
        """Those to pages of this site, in one form."""
        found: dict[str, None] = {}
        for link in links:
            try:
                url = normal(link, base=base)
            except Refused:
                continue
            if origin(url) == origin(self.site) and is_page(url):
                found[url] = None
        return tuple(found)

    def _canonical(self, url: str, content: Content) -> str | None:
        """The page of this site that this one says it is a double of."""
        try:
            canonical = normal(content.canonical, base=url) if content.canonical else url
        except Refused:
            return None
        return canonical if canonical != url and origin(canonical) == origin(self.site) else None


def recipe_of(embedder: PageEmbedder, rules: Rules) -> str:
    """What, beside its content, a page's chunks and vectors are made from."""
    return f"{EDITION}/{embedder.name}/{rules.chunk_tokens}/{rules.chunks_per_page}"


def content_hash(content: Content, chunks: list[Chunk]) -> str:
    """Of all that is stored of a page, links and HTTP headers apart."""
    parts = [content.title, content.description, content.language, content.product, [c.embedded for c in chunks]]
    return blake2b(msgspec.msgpack.encode(parts), digest_size=16).hexdigest()
