"""What can go wrong, below `OmniopsError`. Messages are for people; `code` of an `ApiError` is for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from omniops_client.types import CellResult


class OmniopsError(Exception):
    """Base of all errors of this package."""


class ConnectionFailed(OmniopsError):
    """The gateway cannot be reached, or the connection broke."""


class TimedOut(ConnectionFailed):
    """The gateway was silent for too long."""


class BadAnswer(OmniopsError):
    """What answered is no omniops gateway, or one that this client does not understand."""


class ApiError(OmniopsError):
    """The gateway refused, or failed."""

    def __init__(
        self, status: int, code: str, message: str, hint: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(" ".join(part for part in (message, hint) if part))
        #: The HTTP status.
        self.status = status
        #: Which problem it is; does not change.
        self.code = code
        #: What failed, on which input.
        self.message = message
        #: What to do; "" where nothing is known.
        self.hint = hint
        #: Seconds after which it may be tried again, where the gateway said so.
        self.retry_after_s = retry_after_s


class BadRequest(ApiError):
    """The request is wrong: 400, 422."""


class Unauthorized(ApiError):
    """There is no token, or a wrong one: 401."""


class Forbidden(ApiError):
    """This token may not: 403."""


class QuotaExceeded(Forbidden):
    """The tenant has as much as it may have."""


class NotFound(ApiError):
    """There is no such thing, or not for this token: 404."""


class Conflict(ApiError):
    """It cannot be as things are: 409."""


class SessionLost(Conflict):
    """The session's kernel is gone, and its variables with it: `restore` or `restart` it."""


class SessionEnded(Conflict):
    """The session has ended."""


class CellCancelled(Conflict):
    """The cell was cancelled before it began; it did nothing."""


class TooLarge(ApiError):
    """The request, or a file, is larger than it may be: 413."""


class RateLimited(ApiError):
    """Too much at once: 429."""


class ServerError(ApiError):
    """The gateway, or what is behind it, failed: 500 and above."""


class CellFailed(OmniopsError):
    """A cell did not end well; `result` is what it came to."""

    def __init__(self, result: CellResult) -> None:
        super().__init__(result.envelope or f"Cell {result.cell} ended with status {result.status}. {result.reason}")
        self.result = result


class _Problem(msgspec.Struct):
    message: str
    code: str = ""
    hint: str = ""
    status: int = 0


_BY_CODE: dict[str, type[ApiError]] = {
    "session_lost": SessionLost,
    "session_ended": SessionEnded,
    "cell_cancelled": CellCancelled,
    "quota_exceeded": QuotaExceeded,
}
_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: BadRequest,
    429: RateLimited,
}


def error_of(status: int, body: bytes, *, url: str, retry_after: str = "") -> OmniopsError:
    """The error that an answer (`application/problem+json`), or an `error` event with `status` 0, stands for."""
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return BadAnswer(f"{url} answered {status}: is it an omniops gateway?")
    status = status or problem.status
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(status) or (ServerError if status >= 500 else ApiError)
    return kind(status, problem.code, problem.message, problem.hint, _seconds(retry_after))


def _seconds(retry_after: str) -> float | None:
    """Of a Retry-After header; None for a date, which gateways do not send, and for anything else."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        return None
