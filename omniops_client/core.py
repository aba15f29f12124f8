"""What both clients do alike: read answers and events, tell errors apart, decide about another attempt."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import msgspec
from httpx_sse import ServerSentEvent, SSEError
from tenacity import RetryCallState

from omniops_client.errors import (
    ApiError,
    BadAnswer,
    ConnectionFailed,
    NotFound,
    OmniopsError,
    RateLimited,
    TimedOut,
    Unauthorized,
    error_of,
)
from omniops_client.requests import Request
from omniops_client.types import CellEvent, CellResult, Finished, Output

T = TypeVar("T")

#: The longest pause that a gateway may ask for before an attempt is made by itself, seconds.
_LONGEST_PAUSE_S = 60.0
_FIRST_PAUSE_S = 0.25
_MOST_PAUSE_S = 8.0

#: Bytes of a file that are read at once.
PIECE = 256 * 1024

EVENT_STREAM = "text/event-stream"


class NotSent(ConnectionFailed):
    """There was no connection: the request has not been sent."""


class StreamBroken(ConnectionFailed):
    """A stream ended before its last event."""


@dataclass(frozen=True)
class Options:
    """How a client talks to its gateway."""

    url: str
    token: str
    #: Seconds to connect, and longest silence of the gateway while it answers; None waits for ever.
    connect_s: float
    silence_s: float | None
    #: Attempts after the first.
    retries: int

    @classmethod
    def of(cls, url: str | None, token: str | None, connect_s: float, silence_s: float | None, retries: int) -> Options:
        """Raises Unauthorized: there is no token."""
        url = url or os.environ.get("OMNIOPS_CLIENT__URL") or "http://127.0.0.1:8765"
        token = token or os.environ.get("OMNIOPS_CLIENT__TOKEN") or ""
        if not token:
            hint = "Give one as `token`, or set OMNIOPS_CLIENT__TOKEN; `omniops serve` prints it at start."
            raise Unauthorized(401, "unauthorized", "There is no access token.", hint)
        return cls(url.rstrip("/"), token, connect_s, silence_s, retries)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def timeout(self, silence_s: float | None = None) -> httpx.Timeout:
        """`silence_s`: None for the usual one, 0 for none."""
        longest = self.silence_s if silence_s is None else silence_s or None
        return httpx.Timeout(longest, connect=self.connect_s)


@contextmanager
def problems(url: str) -> Iterator[None]:
    """What the HTTP library raises, in our words. Raises ConnectionFailed, BadAnswer."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise NotSent(f"No gateway answers at {url}. Start one: omniops serve") from error
    except httpx.TimeoutException as error:
        raise TimedOut(f"The gateway at {url} was silent for too long.") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeEncodeError):
        raise BadAnswer(f"{url!r} with this token cannot be asked. Wanted: http://HOST:PORT") from None
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise ConnectionFailed(f"The connection to {url} failed: {error}") from error
    except SSEError as error:
        raise BadAnswer(f"{url} does not answer as an omniops gateway: {error}") from error


def content_of(request: Request[Any]) -> dict[str, Any]:
    """The body, and what else httpx has to be told about the request."""
    told: dict[str, Any] = {"params": dict(request.params), "headers": dict(request.headers)}
    if request.body is not None:
        told["content"] = msgspec.json.encode(request.body)
        told["headers"]["Content-Type"] = "application/json"
    return told


def read(request: Request[T], status: int, headers: Mapping[str, str], body: bytes, url: str) -> T:
    """The answer. Raises ApiError, BadAnswer."""
    if status >= 300:
        raise error_of(status, body, url=url, retry_after=headers.get("retry-after", ""))
    if request.answer is bytes:
        return body  # type: ignore[return-value]
    try:
        return msgspec.json.decode(body or b"null", type=request.answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadAnswer(f"What {url} answered to {request.method} {request.path} cannot be read: {error}") from error


def event_of(event: ServerSentEvent, kind: type[T], url: str) -> T:
    """An event's data. Raises ApiError for an `error` event that ends the stream, BadAnswer."""
    if event.event == "error" and '"status"' in event.data:
        raise error_of(0, event.data.encode(), url=url)
    try:
        return msgspec.json.decode(event.data, type=kind)
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"An event of {url} cannot be read: {error}") from error


def cell_event(event: ServerSentEvent, url: str) -> CellEvent | None:
    """One event of a cell; None for a kind that this client does not know. Raises ApiError, BadAnswer."""
    match event.event:
        case "output":
            return event_of(event, Output, url)
        case "cell":
            return Finished(event_of(event, CellResult, url))
        case "error":
            event_of(event, dict[str, Any], url)
    return None


def begun_nowhere(error: OmniopsError) -> bool:
    """The cell that was to be followed is not known: what asked for it never arrived."""
    return isinstance(error, NotFound) and error.code == "cell_not_found"


def may_repeat(error: BaseException, repeatable: bool) -> bool:
    """Whether another attempt makes sense, and does no harm."""
    if isinstance(error, NotSent):
        return True
    if isinstance(error, ConnectionFailed):
        return repeatable
    if isinstance(error, ApiError) and (error.retry_after_s or 0) <= _LONGEST_PAUSE_S:
        return isinstance(error, RateLimited) or (repeatable and error.status in (502, 503, 504))
    return False


def pause_s(attempt: int, error: BaseException | None) -> float:
    """Seconds until the attempt after number `attempt`: what the gateway asks for, else ever longer."""
    if isinstance(error, ApiError) and error.retry_after_s is not None:
        return error.retry_after_s
    most = min(_MOST_PAUSE_S, _FIRST_PAUSE_S * 2.0**attempt)
    return random.uniform(most / 2, most)  # noqa: S311 - it spreads attempts, and guards nothing


def wait(state: RetryCallState) -> float:
    """`pause_s`, as tenacity asks for it."""
    return pause_s(state.attempt_number, state.outcome.exception() if state.outcome else None)
