"""What a site allows crawlers: `robots.txt` by RFC 9309, and its sitemaps."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from protego import Protego

from .addresses import Refused
from .fetch import SITEMAPS, Answer, Fetcher, NotFetched, unpacker
from .urls import normal, origin

#: RFC 9309 has crawlers read this much at least.
_ROBOTS_BYTES = 512 * 1024
_SITEMAP_BYTES = 16 * 1024 * 1024
_SITEMAPS = 50
_LOC = re.compile(r"<loc[^<>]{0,200}>\s*(?:<!\[CDATA\[)?\s*([^<\]]{1,2000}?)\s*(?:\]\]>)?\s*</loc", re.IGNORECASE)


class Robots:
    """One site's rules for our user agent."""

    def __init__(self, text: str, user_agent: str) -> None:
        self._rules = Protego.parse(text)
        self._agent = user_agent

    def allows(self, url: str) -> bool:
        return bool(self._rules.can_fetch(url, self._agent))

    @property
    def delay_s(self) -> float:
        """Seconds that the site wants between two requests; 0 where it says nothing."""
        delay = float(self._rules.crawl_delay(self._agent) or 0.0)
        rate = self._rules.request_rate(self._agent)
        return max(delay, rate.seconds / rate.requests if rate and rate.requests else 0.0)

    @property
    def sitemaps(self) -> list[str]:
        return list(self._rules.sitemaps)


async def read_robots(fetcher: Fetcher, site: str, user_agent: str) -> Robots:
    """Of the site (an origin). Where it has none, everything is allowed.

    Raises:
        NotFetched: the site cannot say now what it allows, so nothing is.
        Refused: by the guard.
    """
    answer = await fetcher.get(f"{site}/robots.txt", kinds=(*SITEMAPS, "text/robots"), most=_ROBOTS_BYTES)
    if answer.status == 429 or answer.status >= 500:
        raise NotFetched(f"{site}/robots.txt answers {answer.status}: until it is there, nothing may be fetched")
    text = answer.body.decode("utf-8", "replace") if answer.status == 200 else ""
    return Robots(text.replace("\x00", ""), user_agent)


async def read_sitemaps(fetcher: Fetcher, site: str, robots: Robots, most: int) -> list[str]:
    """URLs of the site that its sitemaps name, at most so many. A sitemap that cannot be read is left out."""
    waiting, seen, found = [*robots.sitemaps, f"{site}/sitemap.xml"], set[str](), dict[str, None]()
    while waiting and len(seen) < _SITEMAPS and len(found) < most:
        try:
            url = normal(waiting.pop(0), base=site)
            if url in seen or origin(url) != site or not robots.allows(url):
                continue
            seen.add(url)
            answer = await fetcher.get(url, kinds=SITEMAPS, most=_SITEMAP_BYTES)
            text = _text(answer)
        except (Refused, NotFetched):
            continue
        index = "<sitemapindex" in text[:2_000]
        for each in _locations(text):
            try:
                target = normal(each)
            except Refused:
                continue
            if origin(target) != site:
                continue
            if index:
                waiting.append(target)
            elif len(found) < most:
                found[target] = None
    return list(found)


def _text(answer: Answer) -> str:
    body = answer.body
    if answer.status == 200 and body[:2] == b"\x1f\x8b":
        body = unpacker("gzip", _SITEMAP_BYTES)(body, _SITEMAP_BYTES)
    return body.decode("utf-8", "replace") if answer.status == 200 else ""


def _locations(text: str) -> Iterator[str]:
    """By pattern and not by a parser of XML, whose entities are a danger that sitemaps have no need of."""
    for match in _LOC.finditer(text):
        yield html.unescape(match[1])
