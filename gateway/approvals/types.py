"""The data of approvals: what is asked, what is shown, what was decided."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from gateway.types import CallRecord, CallState, Grant, Role
from servers.errors import ToolError
from servers.preview import Preview
from servers.tool import Effect, Tool

#: "approved": at least one call of the request was.
ApprovalState = Literal["pending", "approved", "denied", "expired", "withdrawn"]

#: The calls of a batch go to the broker as one call of this name.
BATCH = "approvals.batch"

#: The pseudo-cells of calls without a kernel have ids that begin so.
DIRECT = "direct-"


class View(msgspec.Struct, frozen=True):
    """What a person is shown of one call: clean, bounded text."""

    tool: str
    effect: Effect
    does: str
    target: str = ""
    amount: str = ""
    currency: str = ""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    args: dict[str, str] = {}
    #: What takes it back; "" for nothing.
    revert: str = ""
    note: str = ""


class ApprovalCall(msgspec.Struct, frozen=True):
    """One call of a request."""

    position: int
    #: By which it can be reverted.
    call: int
    reason: str
    view: View
    #: None: nobody has decided.
    approved: bool | None
    state: CallState
    error: dict[str, Any] | None = None


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A request, with all its calls."""

    id: str
    tenant: str
    principal: str
    role: Role
    session: str
    cell: str
    title: str
    batch: bool
    state: ApprovalState
    created: datetime
    expires: datetime
    decided: datetime | None
    decided_by: str
    note: str
    #: A gateway holds the calls: their cell goes on at once.
    held: bool
    resumed: datetime | None
    outcome: str
    calls: tuple[ApprovalCall, ...] = ()

    @property
    def summary(self) -> str:
        """What is asked, in a line."""
        if self.batch:
            return f"{self.title}: {len(self.calls)} calls"
        return describe(self.calls[0].view) if self.calls else ""


def describe(view: View) -> str:
    """A call in a line."""
    money = f" {view.amount} {view.currency}".rstrip() if view.amount else ""
    return f"{view.tool}{money}{f' ({view.target})' if view.target else ''}"


def describe_outcome(call: CallRecord) -> str:
    """What a call came to, in a line for the model."""
    if call.error is not None:
        came = f"{call.error.get('type')}: {call.error.get('message')}"
    else:
        came = msgspec.json.encode(call.result).decode()[:1000]
    return f"{call.tool}: {call.state}. {came}"


@dataclass(frozen=True)
class Asking:
    """A write that came to the broker and has not gone out."""

    #: The journal's row of it, and whether it was entered just now.
    call: int
    fresh: bool
    state: CallState
    grant: Grant
    cell: str
    tool: Tool
    args: dict[str, Any]
    args_hash: str
    #: The session is being restored: nobody is asked.
    replay: bool
    #: When its cell has to be over, by the event loop's clock; None: no cell waits.
    ends: float | None
    #: Looks up what it would change.
    preview: Callable[[], Awaitable[Preview | None]]


@dataclass(frozen=True)
class Refusal:
    """Why a call does not go out now, and what state it is in by that."""

    error: ToolError
    state: Literal["pending", "denied", "failed", "decided"]


@dataclass(frozen=True)
class Standing:
    """What has been said about a call so far."""

    approval: str
    state: ApprovalState
    approved: bool | None
    args_hash: str
    tenant: str
    principal: str
    session: str
    expires: datetime
    decided_by: str
    note: str
