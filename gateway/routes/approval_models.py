"""Bodies of the requests and answers about approvals, as OpenAPI shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from gateway.approvals.reverts import WriteCall
from gateway.approvals.types import Approval as Request

State = Literal["pending", "approved", "denied", "expired", "withdrawn"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Decision(_Body):
    """An approval."""

    calls: list[int] | None = Field(
        None, min_length=1, max_length=1000, description="Positions of the calls that may go out; null: all of them."
    )
    note: str = Field("", max_length=1000, description="For the record.")


class Denial(_Body):
    note: str = Field("", max_length=1000, description="Why: it is told to whoever made the call.")


class Effect(BaseModel):
    """What a call would do. All texts are cleaned, one line each, and may be strangers' words."""

    tool: str
    effect: Literal["read", "write", "critical"]
    does: str = Field(description="What the tool does.")
    target: str = Field(description="What is changed.")
    amount: str = Field(description="Money that moves; empty for none.")
    currency: str
    before: dict[str, str] = Field(description="The fields that change, as they are.")
    after: dict[str, str] = Field(description="The same, as they will be.")
    args: dict[str, str] = Field(description="The arguments.")
    revert: str = Field(description="What takes it back; empty: nothing does.")
    note: str


class ApprovalCall(BaseModel):
    """One call of a request."""

    position: int
    call: int = Field(description="By which it can be reverted.")
    reason: str = Field(description="Why a person is asked.")
    view: Effect
    approved: bool | None = Field(description="null: not decided.")
    state: Literal["decided", "executing", "applied", "failed", "unknown", "pending", "denied", "reverted"]
    error: dict[str, Any] | None


class Approval(BaseModel):
    """A request for approval, of one call or of a batch."""

    id: str
    tenant: str
    principal: str = Field(description="Whose session asks.")
    role: Literal["agent", "analyst", "operator"]
    session: str
    cell: str
    title: str = Field(description="Of a batch, in the cell's own words.")
    batch: bool
    state: State = Field(description="`approved`: at least one of its calls.")
    summary: str
    created: datetime
    expires: datetime = Field(description="Until then it can be decided, and what was approved can go out.")
    decided: datetime | None
    decided_by: str
    note: str
    held: bool = Field(description="The call waits in a warm kernel. Else its cell runs again after the decision.")
    resumed: datetime | None = Field(description="When the cell had had its answer.")
    calls: list[ApprovalCall]

    @classmethod
    def of(cls, request: Request) -> Approval:
        return cls.model_validate(msgspec.to_builtins(request) | {"summary": request.summary})


class Write(BaseModel):
    """A write that a session has made."""

    call: int
    tenant: str
    session: str
    cell: str
    tool: str
    args: dict[str, str]
    effect: Literal["read", "write", "critical"]
    state: str
    approval: str | None
    started: datetime
    ended: datetime | None
    reverted: datetime | None
    reverted_by: str | None
    revert: str = Field(description="What takes it back; empty: nothing does.")
    can_revert: bool = Field(description="POST /v1/calls/{call}/revert takes it back.")

    @classmethod
    def of(cls, write: WriteCall) -> Write:
        return cls.model_validate(msgspec.to_builtins(write))
