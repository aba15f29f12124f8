"""A store's refusals as ToolErrors. Recorded from WooCommerce 11: wrong keys and permissions are 401, never 403; a
refund above the total is 500 with `"data": 500`; everything else carries {code, message, data: {status, params?}}."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from ..errors import RateLimited, ToolDenied, ToolError, ToolInputError, ToolNotFound, UpstreamError

#: A store's own words in a message, at most; they are somebody else's text.
MESSAGE_LENGTH = 300

#: Statuses after which the same request may succeed.
TRANSIENT = frozenset({502, 503, 504})


class OutcomeUnknown(UpstreamError):
    """A write was sent and no answer came: it may have been applied. `data["outcome"]` is "unknown"."""

    retryable = True

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="Run the same call again: it is applied once.", data={"outcome": "unknown"})


def problem(response: httpx.Response) -> ToolError:
    """The error that an unsuccessful response means. Names method and path, never the query: keys may be in it."""
    request = f"{response.request.method} {response.request.url.path}"
    code, message, details = _body(response)
    status = response.status_code
    said = f"{message} ({code})" if code else message
    data: dict[str, Any] = {"status": status, "code": code}
    if status in (401, 403):
        return ToolDenied(
            f"The store refused its API key for {request}: {said}",
            hint="Check the tenant's consumer key and secret and whether the key may read and write.",
            data=data,
        )
    if status == 404 and code != "rest_no_route":
        return ToolNotFound(f"The store has nothing at {request}: {said}", data=data)
    if status == 429:
        return RateLimited(
            f"The store asks to slow down ({request}).",
            data=data | {"retry_after": 1.0 if (delay := retry_after(response)) is None else delay},
        )
    if status in (400, 409, 410, 413):
        named = "; ".join(f"{name}: {why}" for name, why in details.items())
        return ToolInputError(f"The store refused {request}: {named or said}", data=data | {"params": details})
    if 300 <= status < 400:
        return UpstreamError(
            f"The store redirects {request} elsewhere.",
            hint="Set the tenant's shop url to its final address.",
            data=data,
        )
    error = UpstreamError(f"The store failed at {request} with status {status}: {said}", data=data)
    if status in TRANSIENT:
        error.retryable = True
        if (delay := retry_after(response)) is not None:
            error.data["retry_after"] = delay
    return error


def content(response: httpx.Response) -> Any:
    """The JSON of a successful response.

    Raises:
        UpstreamError: it is something else, such as a theme's page or PHP's warnings.
    """
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        kind = response.headers.get("content-type", "no content type").partition(";")[0]
        raise UpstreamError(
            f"The store answered {response.request.method} {response.request.url.path} with {kind} that is no JSON.",
            hint="Check the tenant's shop url, and that the store's permalinks are not set to 'plain'.",
            data={"status": response.status_code},
        ) from None


def _body(response: httpx.Response) -> tuple[str, str, dict[str, str]]:
    """Code, message and complaints by parameter of an error body, whatever shape it has."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        return "", response.reason_phrase or "no explanation", {}
    data = body.get("data")
    params = data.get("params") if isinstance(data, dict) else None
    details = {printable(k): printable(v) for k, v in params.items()} if isinstance(params, dict) else {}
    return printable(body.get("code", "")), printable(body.get("message", "")), details


def printable(text: object) -> str:
    """A store's words, capped and without control characters."""
    return "".join(c for c in str(text) if c.isprintable())[:MESSAGE_LENGTH]


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the store asks to wait, by Retry-After: a number, or a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
