"""Bodies of requests and answers, as OpenAPI shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.session_rows import CellRow, SessionInfo
from gateway.transcripts.notebook import Node, render
from gateway.types import CellRun, Role


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewSession(_Request):
    tenant: str = Field(description="The shop, as the configuration names it.", max_length=64)
    role: Role = Field(
        "agent",
        description="`agent`: must verify a customer first; `analyst`: reads; `operator`: runs the shop, for the "
        "server's own token only.",
    )
    title: str = Field("", description="For people, in lists.", max_length=200)
    customer: int | None = Field(None, ge=1, description="The store's id of a customer who is verified already.")
    profile: str | None = Field(None, max_length=64, description="The kind of kernel. None: the one for the role.")


class NewCell(_Request):
    code: str = Field(description="Python source.")
    cell_id: str | None = Field(
        None, max_length=64, description="A cell of before, to run it again: what it changed is not changed twice."
    )
    deadline_s: float | None = Field(
        None, gt=0, description="Seconds of wall time; at most `cell.deadline_s`, of staff `cell.long_deadline_s`."
    )


class NewMessage(_Request):
    tenant: str = Field(description="The shop, as the configuration names it.", max_length=64)
    message: str = Field(description="What the customer says.", min_length=1, max_length=100_000)
    session: str | None = Field(None, max_length=64, description="The conversation; none starts a new one.")
    mode: Literal["cells", "direct"] | None = Field(None, description="None: as configured (`agent.mode`).")
    customer: int | None = Field(
        None, ge=1, description="For a new conversation: the store's id of a customer who is verified already."
    )


class Session(BaseModel):
    id: str
    tenant: str
    role: Role
    profile: str = Field(description="The kind of kernel.")
    title: str
    state: Literal["live", "lost", "ended"] = Field(description="`lost`: its variables are gone until it is restored.")
    reason: str = Field(description="Why the state is lost.")
    customer: int | None = Field(description="The store's id of the customer that the session is pinned to.")
    created: datetime
    ended: datetime | None
    cells: int = Field(description="Cells that were run.")

    @classmethod
    def of(cls, info: SessionInfo) -> Session:
        return cls(**{name: getattr(info, name) for name in cls.model_fields})


class CheckFinding(BaseModel):
    """One thing about a cell that was known before it ran."""

    line: int = Field(description="Of the cell, from 1; 0 where it is not known.")
    kind: Literal["certain", "likely", "advice"] = Field(
        description="`certain`: that line cannot go well; `likely`: the type checker says so, and may be wrong; "
        "`advice`: it runs, and is seldom wise."
    )
    name: str = Field(description="The exception that Python would raise, or the advice's rule.")
    message: str
    source: str = Field("", description="The code that it is about.")


class CellCheck(BaseModel):
    """What the check before the run found."""

    stopped: bool = Field(False, description="The cell was not run, and did nothing: what is `certain` kept it.")
    findings: list[CheckFinding] = Field(default_factory=list)
    ms: float = Field(0.0, description="What the check took, part of it beside other work.")
    note: str = Field("", description="Why the cell was not checked; empty where it was.")


class CellSpool(BaseModel):
    """Where all outputs of a cell are that said too much to show."""

    file: str = Field(description="GET /v1/transcripts/{session}/outputs/{file}, an output a line.")
    bytes: int
    sha256: str
    outputs: int
    lost: int = Field(0, description="Bytes of output that could not be written there.")
    why: str = ""


class Cell(BaseModel):
    """A cell that was run, or that its check stopped."""

    cell: str = Field(description="Its id, with which it can be run again.")
    index: int
    status: Literal["ok", "error", "interrupted", "dead", "paused"] = Field(
        description="`paused`: a call of it waits for a person; it runs again by itself after the decision."
    )
    reason: str = Field(description="Why it did not end by itself.")
    state_lost: bool
    ms: float
    execution_count: int | None
    outputs: list[dict[str, Any]] = Field(description="As nbformat 4.5 has them.")
    calls: list[dict[str, Any]] = Field(description="Tool calls, without their results.")
    envelope: str = Field(description="What a model gets to see of the cell.")
    envelope_tokens: int
    check: CellCheck | None = Field(None, description="Null where the cell was not looked at before it ran.")
    dropped_bytes: int = Field(0, description="Of its outputs, kept nowhere.")
    spool: CellSpool | None = Field(None, description="Where `outputs` has the first and the last of them only.")

    @classmethod
    def of(cls, run: CellRun) -> Cell:
        return cls.noted(render(run))

    @classmethod
    def noted(cls, node: Node) -> Cell:
        """As the transcript has it."""
        fields = {**node["metadata"]["omniops"], **node, "cell": node["id"]}
        return cls(**{name: fields[name] for name in cls.model_fields if name in fields})


class CellState(BaseModel):
    """A cell that was begun."""

    cell: str
    index: int
    status: Literal["running", "ok", "error", "interrupted", "dead", "paused"]
    code: str

    @classmethod
    def of(cls, row: CellRow) -> CellState:
        return cls(cell=row.id, index=row.index, status=row.status, code=row.code)


class FoundCell(CellState):
    result: Cell | None = Field(
        description="What its last run came to; null while it runs, or where its kernel died with its gateway. To wait "
        "for one that runs, run it with its id and code: that joins it."
    )


class Cancelled(BaseModel):
    """What became of a cell that was to be given up."""

    cell: str
    was: Literal["waiting", "running", "paused", "ended"] = Field(
        description="What it did until then. `waiting`: it never ran; `ended`: it had ended by itself."
    )
    ended: bool = Field(description="It runs no more. False: it does not heed its interrupt, yet.")


class Interrupted(BaseModel):
    interrupted: bool = Field(description="False where no cell ran.")


class Answer(BaseModel):
    """How a turn ended."""

    session: str
    reason: str = Field(
        description="`answered`; `paused`: answered, and a call waits for a person; or what kept it from an answer."
    )
    answer: str
    message: str = Field(description="One sentence on the reason, where there is no answer.")
    mode: str
    seconds: float


class TranscriptSummary(BaseModel):
    session: str
    tenant: str
    role: str
    title: str
    state: str
    created: datetime
    changed: datetime
    cells: int
    messages: int
    bytes: int = Field(description="Of its record.")
    tools: list[str] = Field(description="That were called.")
    errors: list[str] = Field(description="Names of errors that came up; `interrupted` and `dead` for cells that were.")
    dollars: float = Field(description="What the model and the tools cost.")
    erased: datetime | None = Field(description="When contents of it were erased last.")


class TranscriptVerification(BaseModel):
    session: str
    tenant: str
    ok: bool = Field(description="Nothing is wrong.")
    problems: list[str] = Field(description="What is wrong.")
    lines: int = Field(description="Lines of the record that are as they were written.")
    head: str = Field(description="Hash of the last of them.")
    erased: int = Field(description="Of these, those whose contents were erased.")
    compared: bool = Field(description="Its end was compared with the database.")


class TranscriptErased(BaseModel):
    session: str
    erased: int = Field(description="Lines of its record whose contents were removed.")


class ReplayedCell(BaseModel):
    cell: str
    index: int
    same: bool = Field(description="It came to the same; false also where it could not be run.")
    what: list[str] = Field(description="What differs: code, status, outputs; or why it was not run.")
    lines: list[str] = Field(description="A unified diff of it.")
    answered: int = Field(description="Calls that the journal answered.")
    refused: int = Field(description="Calls that were refused, because it has no answer.")


class TranscriptReplay(BaseModel):
    session: str
    same: bool = Field(description="Every cell came to the same.")
    cells: list[ReplayedCell]


class CatalogReport(BaseModel):
    products: int
    variants: int
    created: int
    updated: int
    unchanged: int
    deleted: int
    seconds: float


class Status(BaseModel):
    version: str
    isolation: str = Field(description="What confines a kernel here.")
    pool: dict[str, Any] = Field(
        description="Kernels: ready, leased, starting, waiting, and the last problem; of all profiles and of each."
    )
    tenants: list[str]


class Ready(BaseModel):
    ready: bool
    conditions: dict[str, str] = Field(description="By name: `ok`, or why not.")


class Health(BaseModel):
    status: Literal["ok", "degraded"]
