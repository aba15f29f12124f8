"""What the gateway answers with. Fields that a newer gateway adds are ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from omniops_client.errors import CellFailed

Role = Literal["agent", "analyst", "operator"]
SessionState = Literal["live", "lost", "ended"]
CellStatus = Literal["ok", "error", "interrupted", "dead", "paused"]
ApprovalState = Literal["pending", "approved", "denied", "expired", "withdrawn"]
TranscriptForm = Literal["ipynb", "html", "jsonl"]


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A session as the gateway sees it. `lost`: its variables are gone until it is restored."""

    id: str
    tenant: str
    role: str
    profile: str
    title: str
    state: SessionState
    reason: str
    customer: int | None
    created: datetime
    ended: datetime | None
    cells: int


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing about a cell that was known before it ran."""

    line: int
    kind: Literal["certain", "likely", "advice"]
    name: str
    message: str
    source: str = ""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What the check before the run found. `stopped`: the cell was not run, and did nothing."""

    stopped: bool = False
    findings: tuple[Finding, ...] = ()
    ms: float = 0.0
    note: str = ""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call of a cell."""

    tool: str
    args: Any = None
    effect: str = ""
    state: str = ""
    replayed: bool = False
    error: Any = None
    ms: float | None = None


class CellError(msgspec.Struct, frozen=True):
    """The exception that ended a cell."""

    name: str
    value: str
    traceback: tuple[str, ...] = ()


class CellSpool(msgspec.Struct, frozen=True, kw_only=True):
    """Where all outputs of a cell are that said too much to show: `GET /v1/transcripts/ID/outputs/FILE`, one a line."""

    file: str
    bytes: int
    sha256: str
    outputs: int
    #: Bytes of output that could not be written there.
    lost: int = 0
    why: str = ""


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell came to."""

    cell: str
    index: int
    status: CellStatus
    reason: str
    state_lost: bool
    ms: float
    execution_count: int | None
    #: As nbformat 4.5 has them.
    outputs: tuple[dict[str, Any], ...]
    calls: tuple[ToolCall, ...]
    #: What a model gets to see of the cell.
    envelope: str
    envelope_tokens: int
    check: Check | None = None
    #: Of its outputs, kept nowhere.
    dropped_bytes: int = 0
    #: Where `outputs` has the first and the last of them only.
    spool: CellSpool | None = None

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def stdout(self) -> str:
        """What was printed."""
        return self._stream("stdout")

    @property
    def stderr(self) -> str:
        return self._stream("stderr")

    @property
    def value(self) -> str | None:
        """The last expression's value as text; None where there was none."""
        return next((_text(each["data"]) for each in self.outputs if each["output_type"] == "execute_result"), None)

    @property
    def displays(self) -> tuple[dict[str, Any], ...]:
        """What was shown, a plot for one: for each a mapping of MIME types to contents, values of cells among them."""
        return tuple(each["data"] for each in self.outputs if "data" in each)

    @property
    def error(self) -> CellError | None:
        """The exception that ended it."""
        found = next((each for each in self.outputs if each["output_type"] == "error"), None)
        return CellError(found["ename"], found["evalue"], tuple(found["traceback"])) if found is not None else None

    def check_ok(self) -> CellResult:
        """This result. Raises CellFailed where its status is another than `ok`."""
        if not self.ok:
            raise CellFailed(self)
        return self

    def _stream(self, name: str) -> str:
        found = (each["text"] for each in self.outputs if each["output_type"] == "stream" and each["name"] == name)
        return "".join(text if isinstance(text, str) else "".join(text) for text in found)


class CellState(msgspec.Struct, frozen=True, kw_only=True):
    """A cell that was begun."""

    cell: str
    index: int
    status: CellStatus | Literal["running"]
    code: str
    #: What its last run came to; None while it runs, and in lists.
    result: CellResult | None = None


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a cell that was given up. `was` "waiting": it never ran."""

    cell: str
    was: Literal["waiting", "running", "paused", "ended"]
    ended: bool


class Output(msgspec.Struct, frozen=True):
    """What a cell shows, as it shows it."""

    text: str


class Finished(msgspec.Struct, frozen=True):
    """A cell's end."""

    result: CellResult


CellEvent = Output | Finished


class File(msgspec.Struct, frozen=True, kw_only=True):
    """Something in a session's work folder."""

    path: str
    kind: Literal["file", "folder", "link", "other"]
    #: Bytes.
    size: int
    modified: datetime


class FilePage(msgspec.Struct, frozen=True, kw_only=True):
    files: tuple[File, ...]
    next: str | None


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What a call would do. All texts are one line each, and may be strangers' words."""

    tool: str
    effect: str
    does: str
    target: str
    amount: str
    currency: str
    before: dict[str, str]
    after: dict[str, str]
    args: dict[str, str]
    revert: str
    note: str


class ApprovalCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a request."""

    position: int
    call: int
    reason: str
    view: Effect
    approved: bool | None
    state: str
    error: dict[str, Any] | None


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A request for approval, of one call or of a batch."""

    id: str
    tenant: str
    principal: str
    role: str
    session: str
    cell: str
    title: str
    batch: bool
    state: ApprovalState
    summary: str
    created: datetime
    expires: datetime
    decided: datetime | None
    decided_by: str
    note: str
    held: bool
    resumed: datetime | None
    calls: tuple[ApprovalCall, ...]


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """A write that a session made."""

    call: int
    tenant: str
    session: str
    cell: str
    tool: str
    args: dict[str, str]
    effect: str
    state: str
    approval: str | None
    started: datetime
    ended: datetime | None
    reverted: datetime | None
    reverted_by: str | None
    revert: str
    can_revert: bool


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """A line about a session's transcript."""

    session: str
    tenant: str
    role: str
    title: str
    state: str
    created: datetime
    changed: datetime
    cells: int
    messages: int
    bytes: int
    tools: tuple[str, ...]
    errors: tuple[str, ...]
    dollars: float
    erased: datetime | None = None


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a record is, byte by byte, what was written."""

    session: str
    tenant: str
    ok: bool
    problems: tuple[str, ...]
    lines: int
    head: str
    erased: int
    compared: bool


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as lists show it."""

    name: str
    call: str
    effect: str
    roles: tuple[str, ...]
    summary: str


class ToolPage(msgspec.Struct, frozen=True, kw_only=True):
    tools: tuple[Tool, ...]
    total: int
    next: str | None


class ToolParameter(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    required: bool
    type: str
    default: Any
    description: str


class ToolRecord(Tool, frozen=True, kw_only=True):
    """All about one tool."""

    server: str
    server_description: str
    signature: str
    doc: str
    parameters: tuple[ToolParameter, ...]
    returns: str
    streams: bool
    undone_by: str
    foreign: bool
    stub: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | bool | None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How a turn of a conversation ended."""

    #: Continues the conversation.
    session: str
    #: `answered`; `paused`: answered, and a call waits for a person; or what kept it from an answer.
    reason: str
    answer: str
    message: str
    mode: str
    seconds: float


class ChatEvent(msgspec.Struct, frozen=True):
    """What the agent does, as it does it: `session`, `text`, `step`, `output`, `call`, `cell`, `answer`, `end`, ..."""

    kind: str
    data: dict[str, Any]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the gateway is."""

    version: str
    isolation: str
    pool: dict[str, Any]
    tenants: tuple[str, ...]


def _text(data: dict[str, Any]) -> str:
    text = data.get("text/plain", "")
    return text if isinstance(text, str) else "".join(text)
