"""What a tool may raise. The kernel gets classes of the same names, made from this module's table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ToolError(Exception):
    """A tool call failed."""

    retryable = False

    def __init__(self, message: str, *, tool: str = "", hint: str = "", data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.tool = tool
        self.hint = hint
        self.data = dict(data or {})

    @property
    def retry_after(self) -> float | None:
        """Seconds until another try may be worth it, where the upstream said so."""
        found = self.data.get("retry_after")
        return float(found) if isinstance(found, int | float) else None


class ToolInputError(ToolError):
    """The arguments do not fit the tool's parameters."""


class ToolNotFound(ToolError):
    """There is no tool of that name for this session, or the object that was asked for does not exist."""


class ToolDenied(ToolError):
    """The session may not make this call."""


class ApprovalRequired(ToolError):
    """A person has to approve this call first."""


class ApprovalDenied(ToolError):
    """A person refused this call."""


class RateLimited(ToolError):
    """The upstream asks to wait; `retry_after` says how long."""

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        tool: str = "",
        hint: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """`retry_after`: seconds."""
        known = {} if retry_after is None else {"retry_after": retry_after}
        super().__init__(message, tool=tool, hint=hint, data={**(data or {}), **known})


class UpstreamError(ToolError):
    """The shop, database or service behind the tool failed or refused."""


class NothingDone(UpstreamError):
    """The upstream could not be reached, or says itself that it did not do it: a write is settled by this.

    Cells know it as UpstreamError.
    """


class OutputSchemaError(ToolError):
    """The upstream's answer does not fit the tool's declared return type."""


class BudgetExceeded(ToolError):
    """The cell or session has used up a budget; `data` says what was spent."""


ERRORS: tuple[type[ToolError], ...] = (
    ToolError,
    ToolInputError,
    ToolNotFound,
    ToolDenied,
    ApprovalRequired,
    ApprovalDenied,
    RateLimited,
    UpstreamError,
    OutputSchemaError,
    BudgetExceeded,
)
