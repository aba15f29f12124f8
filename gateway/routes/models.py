"""Bodies of requests and answers, as OpenAPI shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.session_rows import SessionInfo
from gateway.transcripts.notebook import render
from gateway.types import CellRun


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewSession(_Request):
    tenant: str = Field(description="The shop, as the configuration names it.", max_length=64)
    role: Literal["agent", "analyst"] = Field("agent", description="`agent`: must verify a customer first.")
    title: str = Field("", description="For people, in lists.", max_length=200)
    customer: int | None = Field(None, ge=1, description="The store's id of a customer who is verified already.")


class NewCell(_Request):
    code: str = Field(description="Python source.")
    cell_id: str | None = Field(
        None, max_length=64, description="A cell of before, to run it again: what it changed is not changed twice."
    )
    deadline_s: float | None = Field(None, gt=0, description="Seconds of wall time; at most `cell.deadline_s`.")


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
    role: Literal["agent", "analyst"]
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


class Cell(BaseModel):
    """A cell that was run."""

    cell: str = Field(description="Its id, with which it can be run again.")
    index: int
    status: Literal["ok", "error", "interrupted", "dead"]
    reason: str = Field(description="Why it did not end by itself.")
    state_lost: bool
    ms: float
    execution_count: int | None
    outputs: list[dict[str, Any]] = Field(description="As nbformat 4.5 has them.")
    calls: list[dict[str, Any]] = Field(description="Tool calls, without their results.")
    envelope: str = Field(description="What a model gets to see of the cell.")
    envelope_tokens: int

    @classmethod
    def of(cls, run: CellRun) -> Cell:
        node = render(run)
        record = node["metadata"]["omniops"]
        fields = {**record, **node, "cell": run.cell}
        return cls(**{name: fields[name] for name in cls.model_fields})


class Interrupted(BaseModel):
    interrupted: bool = Field(description="False where no cell ran.")


class Answer(BaseModel):
    """How a turn ended."""

    session: str
    reason: str = Field(description="`answered`, or what kept it from an answer.")
    answer: str
    message: str = Field(description="One sentence on the reason, where there is no answer.")
    mode: str
    seconds: float


class TranscriptSummary(BaseModel):
    session: str
    tenant: str
    title: str
    state: str
    created: str
    cells: int
    messages: int
    bytes: int


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
    pool: dict[str, Any] = Field(description="Kernels: ready, leased, starting, waiting, and the last problem.")
    tenants: list[str]


class Health(BaseModel):
    status: Literal["ok", "degraded"]
