"""Fetch one page, through the guard and within limits: of size, also after unpacking, of time and of redirects."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import httpcore
from aiolimiter import AsyncLimiter

from ..retry_after import retry_after
from .addresses import GuardedBackend, Refused, Resolve, resolve
from .rules import Rules
from .urls import host_and_port, normal
from .waiting import wait_for

#: What is read; anything else is left before its body.
PAGES = ("text/html", "application/xhtml+xml", "text/plain", "text/markdown")
SITEMAPS = ("application/xml", "text/xml", "application/gzip", "application/x-gzip", *PAGES)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class NotFetched(Exception):
    """The page could not be had: the server or the way to it failed, also in later attempts."""


class TooLarge(Refused):
    """More than a page may have."""


@dataclass(frozen=True)
class Answer:
    #: Where it came from, after redirects.
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass
class Traffic:
    """What a fetcher has moved so far."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    #: Of bodies, unpacked.
    unpacked: int = 0


class Fetcher:
    """One crawl's way out: no cookies, no proxy, no credentials. Close it."""

    def __init__(self, rules: Rules, *, resolver: Resolve = resolve, tls: ssl.SSLContext | None = None) -> None:
        self.traffic = Traffic()
        self._rules = rules
        self._guard = GuardedBackend(rules.allowed_hosts, resolver)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls, max_connections=rules.in_flight, keepalive_expiry=15, network_backend=self._guard
        )
        self._limiter = _limiter(rules.requests_per_s)
        self._slots = asyncio.Semaphore(rules.in_flight)

    def slow_down(self, seconds: float) -> None:
        """One request at a time from now on, and so long between them, where that is slower than the own rate."""
        if seconds > 1 / self._rules.requests_per_s:
            self._limiter = _limiter(1 / seconds)
            self._slots = asyncio.Semaphore(1)

    async def close(self) -> None:
        await self._pool.aclose()

    async def get(
        self,
        url: str,
        *,
        kinds: tuple[str, ...] = PAGES,
        headers: Mapping[str, str] | None = None,
        may: Callable[[str], None] = lambda url: None,
        most: int | None = None,
    ) -> Answer:
        """The page behind a normal URL. `may` raises where a redirect's target is not wanted; `most`: bytes.

        Raises:
            Refused: by the guard, by a limit, or for its kind.
            NotFetched
        """
        for _ in range(self._rules.redirects + 1):
            answer = await self._with_retries(url, kinds, headers or {}, most or self._rules.page_bytes)
            target = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not target:
                return answer
            url = normal(target, base=url)
            may(url)
        raise Refused(f"more than {self._rules.redirects} redirects, the last to {url}")

    async def _with_retries(self, url: str, kinds: tuple[str, ...], headers: Mapping[str, str], most: int) -> Answer:
        host, port = host_and_port(url)
        if port not in self._rules.ports and not self._guard.allows(host, port):
            raise Refused(f"port {port} is not one of {', '.join(map(str, self._rules.ports))}")
        for attempt in range(1, self._rules.attempts + 1):
            last = attempt == self._rules.attempts
            asked: float | None = None
            try:
                async with self._slots:
                    async with self._limiter:
                        self.traffic.requests += 1
                    async with asyncio.timeout(self._rules.page_s):
                        answer = await self._once(url, kinds, headers, most)
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, TimeoutError) as error:
                if last:
                    raise NotFetched(_failure(error)) from None
            except (httpcore.UnsupportedProtocol, ssl.SSLError, ValueError) as error:
                raise NotFetched(_failure(error)) from None
            else:
                if answer.status not in _TRY_AGAIN:
                    return answer
                asked = retry_after(answer.headers)
                if last or (asked is not None and asked > self._rules.longest_wait_s):
                    return answer
            self.traffic.retries += 1
            await asyncio.sleep(wait_for(attempt, asked))
        raise AssertionError("every attempt returns or raises")

    async def _once(self, url: str, kinds: tuple[str, ...], headers: Mapping[str, str], most: int) -> Answer:
        sent = [
            ("user-agent", self._rules.user_agent),
            ("accept", ", ".join(kinds)),
            ("accept-encoding", "gzip"),
            *headers.items(),
        ]
        times = {"connect": self._rules.read_s, "read": self._rules.read_s, "write": self._rules.read_s, "pool": None}
        async with self._pool.stream("GET", url, headers=sent, extensions={"timeout": times}) as response:
            got = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
            answer = Answer(url, response.status, got, b"")
            if response.status != 200:
                return answer
            if answer.content_type and answer.content_type not in kinds:
                raise Refused(f"{answer.content_type} is no page")
            if int(got.get("content-length", "0") or 0) > most:
                raise TooLarge(f"{got['content-length']} bytes, over the limit of {most}")
            body = await self._read(response, got.get("content-encoding", ""), most)
            return Answer(url, response.status, got, body)

    async def _read(self, response: httpcore.Response, encoding: str, most: int) -> bytes:
        unpack = unpacker(encoding, most)
        body = bytearray()
        async with aclosing(_parts(response)) as parts:
            async for part in parts:
                self.traffic.bytes += len(part)
                body += unpack(part, most - len(body))
        self.traffic.unpacked += len(body)
        return bytes(body)


def unpacker(encoding: str, most: int) -> Callable[[bytes, int], bytes]:
    """A function of the next bytes and how many may come out of them.

    Raises:
        Refused: an encoding that was not asked for. The function: TooLarge, or Refused where it cannot be unpacked.
    """
    kind = encoding.strip().lower()
    if kind in ("", "identity"):

        def plain(part: bytes, room: int) -> bytes:
            if len(part) > room:
                raise TooLarge(f"over {most} bytes")
            return part

        return plain
    if kind not in ("gzip", "x-gzip", "deflate"):
        raise Refused(f"packed as {kind[:40]!r}, which was not asked for")
    inflate = zlib.decompressobj(47)  # gzip or zlib, as the header says

    def packed(part: bytes, room: int) -> bytes:
        try:
            out = inflate.decompress(part, room + 1)
        except zlib.error as error:
            raise Refused(f"cannot be unpacked: {error}") from None
        if len(out) > room:
            raise TooLarge(f"over {most} bytes once unpacked")
        return out

    return packed


async def _parts(response: httpcore.Response) -> AsyncGenerator[bytes, None]:
    async for part in response.aiter_stream():
        yield part


def _limiter(per_second: float) -> AsyncLimiter:
    return AsyncLimiter(1, 1 / per_second)


def _failure(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300] if str(error) else type(error).__name__
