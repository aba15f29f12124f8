"""The data that crosses the gateway's inner seams: broker, sessions, agent, transcripts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Literal

import msgspec

from gateway.checking.types import Check
from kernel_pool.types import CellResult
from servers.tool import Role as Role
from servers.tool import Tool

#: decided -> executing -> applied | failed | unknown; executing at once where nobody is asked. Where a person is asked:
#: pending -> decided | denied. What was applied may be taken back: reverted.
CallState = Literal["decided", "executing", "applied", "failed", "unknown", "pending", "denied", "reverted"]


class Grant(msgspec.Struct, frozen=True):
    """What one session may do. Bound on the host to the session's broker socket; no token for a cell to steal."""

    tenant: str
    principal: str
    session: str
    role: Role


class CallRecord(msgspec.Struct, frozen=True):
    """One tool call, as the journal has it."""

    session: str
    cell: str
    tool: str  # "woocommerce.cancel_order"
    args: dict[str, Any]
    occurrence: int
    effect: Literal["read", "write", "critical"]
    state: CallState
    replayed: bool  # answered from the journal, nothing happened anew
    result: Any = None
    error: dict[str, Any] | None = None  # as kernel_pool.sandbox.wire.Error, less id
    result_bytes: int = 0
    started: datetime | None = None
    ended: datetime | None = None


#: Seen by the observers of the broker around each call. "before": journaled, not yet sent upstream;
#: "sent": upstream has answered, not yet journaled; "after": journaled, not yet answered to the kernel.
Boundary = Literal["before", "sent", "after"]
BoundaryObserver = Callable[[Boundary, CallRecord], Awaitable[None]]


#: Told each result that a tool gave, after its call is over. Returns at once.
Learner = Callable[[Grant, Tool, object], None]


class Spooled(msgspec.Struct, frozen=True):
    """All outputs of a cell that said more than its line of the record is to hold: a file beside the record."""

    #: Its name in the session's folder of outputs.
    file: str
    bytes: int
    sha256: str
    #: Lines, an output each.
    outputs: int
    #: How many outputs of the cell come before the notice of the file; all of them are in the file, too.
    head: int
    #: Bytes of output that could not be written there; and why.
    lost: int = 0
    why: str = ""


class CellRun(msgspec.Struct, frozen=True):
    """One cell of a session, run: the unit of transcripts and of the agent's steps."""

    session: str
    cell: str  # id, stable over re-runs; nbformat cell id
    index: int  # from 1
    code: str
    result: CellResult
    calls: tuple[CallRecord, ...]
    envelope: str  # what goes back to the model
    envelope_tokens: int
    #: This run of the cell, apart from its others.
    run: str = ""
    #: Where its outputs are, if they are too many.
    spool: Spooled | None = None
    #: What was known of it before it ran; None where it was not looked at.
    check: Check | None = None


class Event(msgspec.Struct, frozen=True):
    """What a caller of a turn or a cell hears as it happens; one server-sent event each.

    kinds: "session" {session} (first in a conversation), "step" {step, code}, "output" {text},
    "cell" {step, envelope, status, ms, calls: [...]}, "call" {step, tool, args, state, ms, text},
    "text" {step, attempt, text} (the model's words as they come; a new attempt starts them over),
    "fallback" {step, mode, reason}, "answer" {text}, "end" {reason, message, usage, direct_usage, ...},
    "error" {message}, "approval" (a request that waits for a person, or was decided).
    """

    kind: Literal["session", "step", "output", "cell", "call", "text", "fallback", "answer", "end", "error", "approval"]
    data: dict[str, Any]
    #: After which a client that lost its stream may go on; "" where it cannot.
    id: str = ""


EventSink = Callable[[Event], Awaitable[None]]
