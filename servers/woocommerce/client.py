"""A WooCommerce store over wc/v3: one request at a time, errors raised, reads repeated, lists paged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from ..context import Shop, ToolContext
from ..errors import ToolDenied, ToolError, UpstreamError
from .auth import auth_for
from .problems import TRANSIENT, OutcomeUnknown, content, problem

#: wc/v3's largest page.
PAGE_SIZE = 100
#: Attempts at one read, and the longest wait in seconds that a store may ask for between two; beyond it the caller
#: hears RateLimited and decides.
READ_ATTEMPTS = 3
LONGEST_WAIT = 5.0

Parameters = Mapping[str, str | int]
Object = dict[str, Any]


class Store:
    """One store. Connections are the given client's, which the owner closes."""

    def __init__(self, shop: Shop, http: httpx.AsyncClient) -> None:
        self.url = shop.url.rstrip("/")
        self._http = http
        self._auth = auth_for(shop)
        self._timeout = httpx.Timeout(shop.timeout_s)

    async def get(self, path: str, params: Parameters | None = None) -> Any:
        """The JSON at `path` (below wc/v3, such as "orders/38").

        Raises:
            ToolNotFound, ToolDenied, ToolInputError, RateLimited, UpstreamError
        """
        return content(await self._read(path, params or {}))

    async def object(self, path: str) -> Object:
        """`get` for one object."""
        found: Object = await self.get(path)
        return found

    async def pages(self, path: str, params: Parameters | None = None) -> AsyncIterator[list[Object]]:
        """The pages of a list, each requested when the one before has been taken."""
        page = 1
        while True:
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
        try:
            response = await self._send("PUT", path, json=body)
        except httpx.ConnectError as error:
            raise self._unreachable(error) from None
        except httpx.TransportError as error:
            raise OutcomeUnknown(f"The store did not answer PUT {path}: {_kind(error)}.") from None
        if response.status_code in TRANSIENT:
            raise OutcomeUnknown(f"The store answered PUT {path} with status {response.status_code}.")
        if not response.is_success:
            raise problem(response)
        updated: Object = content(response)
        return updated

    async def _read(self, path: str, params: Parameters) -> httpx.Response:
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(READ_ATTEMPTS), retry=retry_if_exception(_worth_repeating), wait=_wait, reraise=True
        ):
            with attempt:
                return await self._read_once(path, params)
        raise AssertionError("unreachable: tenacity re-raises")

    async def _read_once(self, path: str, params: Parameters) -> httpx.Response:
        try:
            response = await self._send("GET", path, params=params)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if not response.is_success:
            raise problem(response)
        return response

    async def _send(
        self,
        method: Literal["GET", "PUT"],
        path: str,
        *,
        params: Parameters | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        return await self._http.request(
            method,
            f"{self.url}/wp-json/wc/v3/{path}",
            params=params,
            json=json,
            auth=self._auth,
            timeout=self._timeout,
            follow_redirects=False,
        )

    def _unreachable(self, error: httpx.TransportError) -> UpstreamError:
        # The exception's own text is left out: it may quote the signed URL.
        failed = UpstreamError(f"The store at {self.url} could not be reached: {_kind(error)}.")
        failed.retryable = True
        return failed


def store_of(ctx: ToolContext) -> Store:
    """The tenant's store.

    Raises:
        ToolDenied: the tenant has none.
    """
    if ctx.shop is None:
        raise ToolDenied("No store is configured for this tenant.", hint="Set the tenant's shop url and keys.")
    return Store(ctx.shop, ctx.http)


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
