"""Tool errors as data: for the wire, the journal and back."""

from __future__ import annotations

from typing import Any

from servers.errors import (
    ERRORS,
    ApprovalDenied,
    ApprovalRequired,
    BudgetExceeded,
    NothingDone,
    ToolDenied,
    ToolError,
    ToolInputError,
    ToolNotFound,
)

from .scrub import Scrubber

#: After these a write has not happened. After any other error it may have (no answer, half an answer, a bug): the
#: journal calls it unknown, and the same call again looks upstream before it writes.
DEFINITE = (ToolInputError, ToolNotFound, ToolDenied, ApprovalRequired, ApprovalDenied, BudgetExceeded, NothingDone)

_BY_NAME = {cls.__name__: cls for cls in ERRORS}

ErrorBody = dict[str, Any]


def to_body(error: ToolError, tool: str, scrubber: Scrubber) -> ErrorBody:
    """As `kernel_pool.sandbox.wire.Error`, less its id; free of secrets and encodable as UTF-8."""
    return {
        "type": next(cls.__name__ for cls in type(error).__mro__ if cls in ERRORS),
        "message": _encodable(scrubber.text(error.message)),
        "tool": error.tool or tool,
        "retryable": error.retryable,
        "hint": _encodable(scrubber.text(error.hint)),
        "data": _plain(scrubber.tree(error.data)),
    }


def from_body(body: ErrorBody) -> ToolError:
    """The error that `to_body` had, as its public class."""
    cls = _BY_NAME.get(body["type"], ToolError)
    error = cls(body["message"], tool=body["tool"], hint=body["hint"], data=body["data"])
    error.retryable = body["retryable"]
    return error


def _plain(value: Any) -> Any:
    """What msgpack and JSON both have; anything else as text."""
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else str(value)
        case str():
            return _encodable(value)
        case dict():
            return {_encodable(str(key)): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return _encodable(str(value))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
