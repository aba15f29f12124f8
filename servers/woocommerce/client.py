"""A WooCommerce store over wc/v3: bounded and paced, errors raised, reads repeated, lists paged, writes sent once.

The `woocommerce` package is not used: it blocks the event loop, opens a connection per request, and neither pages,
repeats nor tells refusals apart. The tests hold this client against it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from ..context import Shop, ToolContext
from ..errors import ToolDenied, ToolError, UpstreamError
from .auth import auth_for
from .gate import gate_of
from .problems import TRANSIENT, OutcomeUnknown, content, problem, retry_after

#: wc/v3's largest page.
PAGE_SIZE = 100
#: Attempts at one read, and the longest wait in seconds that a store may ask for between two; beyond it the caller
#: hears RateLimited and decides.
READ_ATTEMPTS = 3
LONGEST_WAIT = 5.0

Parameters = Mapping[str, str | int]
Object = dict[str, Any]
Method = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass
class Traffic:
    """What went to and fro for the reads of one `Store`."""

    requests: int = 0
    #: Of the requests, those that repeated another.
    retries: int = 0
    bytes: int = 0


class Store:
    """One store. Connections are the given client's, which the owner closes."""

    def __init__(self, shop: Shop, http: httpx.AsyncClient) -> None:
        self.url = shop.url.rstrip("/")
        self._http = http
        self._auth = auth_for(shop)
        self._timeout = httpx.Timeout(shop.timeout_s)
        self._shop = shop
        self.traffic = Traffic()

    async def get(self, path: str, params: Parameters | None = None) -> Any:
        """The JSON at `path` (below wc/v3, such as "orders/38").

        Raises:
            ToolNotFound, ToolDenied, ToolInputError, RateLimited, UpstreamError
        """
        return content(await self._read(path, params or {}))

    async def bounded(self, path: str, params: Parameters, largest: int) -> httpx.Response:
        """The answer at `path`, where its body, decompressed, has at most `largest` bytes.

        Raises:
            UpstreamError: it has more, or the store failed; with `data["status"]` where it answered, and `data["slow"]`
                where that took too long.
            ToolNotFound, ToolDenied, ToolInputError, RateLimited
        """
        return await self._read(path, params, largest)

    async def object(self, path: str) -> Object:
        """`get` for one object."""
        found: Object = await self.get(path)
        return found

    async def count(self, path: str, params: Parameters | None = None) -> int:
        """How many objects a list has, by X-WP-Total."""
        response = await self._read(path, {**(params or {}), "per_page": 1})
        total = response.headers.get("x-wp-total", "")
        if not total.isdecimal():
            raise UpstreamError(f"The store does not say how many {path} there are (X-WP-Total is missing).")
        return int(total)

    async def first(self, path: str, params: Parameters, limit: int) -> list[Object]:
        """The first `limit` objects of a list. After the first page the others are fetched at once."""
        size = min(limit, PAGE_SIZE)
        query = {**params, "per_page": size}
        response = await self._read(path, {**query, "page": 1})
        found: list[Object] = content(response)
        total = response.headers.get("x-wp-totalpages", "")
        if not total.isdecimal():
            async for page in self.pages(path, query, start=2 if _more_after(1, response) else 0):
                found += page
                if len(found) >= limit:
                    break
            return found[:limit]
        wanted = range(2, min(int(total), -(-limit // size)) + 1)
        for page in await _together([self.get(path, {**query, "page": n}) for n in wanted]):
            found += page
        return found[:limit]

    async def each(self, path: str, params: Parameters | None = None) -> AsyncIterator[Object]:
        """Every object of a list, page after page; memory is bounded by a page."""
        async for page in self.pages(path, params):
            for found in page:
                yield found

    async def pages(
        self, path: str, params: Parameters | None = None, *, start: int = 1
    ) -> AsyncIterator[list[Object]]:
        """The pages of a list from `start` (0: none), each requested when the one before has been taken."""
        page = start
        while page:
            response = await self._read(path, {"per_page": PAGE_SIZE, **(params or {}), "page": page})
            yield content(response)
            if not _more_after(page, response):
                return
            page += 1

    async def put(self, path: str, body: Mapping[str, Any]) -> Object:
        """Change the object at `path`; its new state. Sent once: see `once.py` for what follows no answer.

        Raises:
            OutcomeUnknown: the request may have been applied.
            ToolError: as `get`.
        """
        return await self._write("PUT", path, body)

    async def post(self, path: str, body: Mapping[str, Any]) -> Object:
        """Make an object at `path`; the object. Sent once: see `create.py` for what follows no answer.

        The Location of the answer is not followed: for refunds it is a regular expression.

        Raises:
            OutcomeUnknown, ToolError: as `put`.
        """
        return await self._write("POST", path, body)

    async def delete(self, path: str, *, force: bool) -> Object:
        """Remove the object at `path`, for good with `force`, else to the trash; as it was before.

        Raises:
            OutcomeUnknown, ToolError: as `put`.
        """
        return await self._write("DELETE", path, None, {"force": "true"} if force else None)

    async def _write(
        self, method: Method, path: str, body: Mapping[str, Any] | None, params: Parameters | None = None
    ) -> Object:
        try:
            response = await self._send(method, path, json=body, params=params)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise self._unreachable(error) from None  # it never went out
        except httpx.TransportError as error:
            raise OutcomeUnknown(f"The store did not answer {method} {path}: {_kind(error)}.") from None
        if response.status_code in TRANSIENT:
            raise OutcomeUnknown(f"The store answered {method} {path} with status {response.status_code}.")
        if not response.is_success:
            raise problem(response)
        written: Object = content(response)
        return written

    async def _read(self, path: str, params: Parameters, largest: int | None = None) -> httpx.Response:
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(READ_ATTEMPTS), retry=retry_if_exception(_worth_repeating), wait=_wait, reraise=True
        ):
            with attempt:
                self.traffic.retries += attempt.retry_state.attempt_number > 1
                return await self._read_once(path, params, largest)
        raise AssertionError("unreachable: tenacity re-raises")

    async def _read_once(self, path: str, params: Parameters, largest: int | None) -> httpx.Response:
        self.traffic.requests += 1
        try:
            response = await self._send("GET", path, params=params, largest=largest)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if not response.is_success:
            raise problem(response)
        self.traffic.bytes += len(response.content)
        return response

    async def _send(
        self,
        method: Method,
        path: str,
        *,
        params: Parameters | None = None,
        json: Mapping[str, Any] | None = None,
        largest: int | None = None,
    ) -> httpx.Response:
        url = f"{self.url}/wp-json/wc/v3/{path}"
        request = self._http.build_request(method, url, params=params, json=json, timeout=self._timeout)
        gate = gate_of(self._shop)
        async with gate.request():
            response = await self._http.send(
                request, auth=self._auth, follow_redirects=False, stream=largest is not None
            )
            if largest is not None:
                response = await _read_up_to(response, largest)
        if response.status_code in (429, 503) and 0 < (delay := retry_after(response) or 0) <= LONGEST_WAIT:
            gate.close_for(delay)
        return response

    def _unreachable(self, error: httpx.TransportError) -> UpstreamError:
        # The exception's own text is left out: it may quote the signed URL.
        failed = UpstreamError(f"The store at {self.url} could not be reached: {_kind(error)}.")
        failed.retryable = True
        if isinstance(error, httpx.ReadTimeout):
            failed.data["slow"] = True  # it may have time for less
        return failed


def store_of(ctx: ToolContext) -> Store:
    """The tenant's store, to ask it. Raises as `shop_of`."""
    return Store(shop_of(ctx), ctx.http)


def shop_of(ctx: ToolContext) -> Shop:
    """Where the tenant's store is, and its keys.

    Raises:
        ToolDenied: the tenant has none.
        ToolError: it has one that cannot be used as it is set.
    """
    if "shop" in ctx.unusable:
        raise ctx.unusable["shop"]
    if ctx.shop is None:
        raise ToolDenied("No store is configured for this tenant.", hint="Set the tenant's shop url and keys.")
    return ctx.shop


async def _read_up_to(response: httpx.Response, largest: int) -> httpx.Response:
    """The whole of a response that streams.

    Raises:
        UpstreamError: its body is larger.
    """
    body = bytearray()
    try:
        async for part in response.aiter_bytes():
            body += part
            if len(body) > largest:
                raise UpstreamError(
                    f"The store's answer to GET {response.request.url.path} has more than {largest:,} bytes.",
                    data={"status": response.status_code, "larger_than": largest},
                )
    finally:
        await response.aclose()
    headers = [(k, v) for k, v in response.headers.multi_items() if k not in ("content-encoding", "content-length")]
    return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)


async def _together(reads: Sequence[Coroutine[Any, Any, list[Object]]]) -> list[list[Object]]:
    """All results in order; at the first failure the others are cancelled and it is raised as it is."""
    tasks = [asyncio.ensure_future(read) for read in reads]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _more_after(page: int, response: httpx.Response) -> bool:
    """By X-WP-TotalPages, else by a Link with rel="next" (other rels point elsewhere, also on single pages)."""
    total = response.headers.get("x-wp-totalpages", "")
    return page < int(total) if total.isdecimal() else "next" in response.links


def _worth_repeating(error: BaseException) -> bool:
    return isinstance(error, ToolError) and error.retryable and error.data.get("retry_after", 0) <= LONGEST_WAIT


_backoff = wait_random_exponential(multiplier=0.2, max=2)


def _wait(state: RetryCallState) -> float:
    """The store's own delay where it names one, else exponential with jitter."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ToolError) and "retry_after" in error.data:
        return float(error.data["retry_after"])
    return float(_backoff(state))


def _kind(error: httpx.TransportError) -> str:
    words = {
        httpx.ConnectError: "connection refused, or unknown host",
        httpx.ConnectTimeout: "time-out while connecting",
        httpx.ReadTimeout: "time-out while waiting for the answer",
        httpx.WriteTimeout: "time-out while sending",
        httpx.PoolTimeout: "no free connection in time",
    }
    return words.get(type(error), "the connection broke")
