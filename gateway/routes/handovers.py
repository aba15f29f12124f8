"""Conversations that the agent handed over: for the people who take them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from gateway import handovers
from gateway.acts import act
from gateway.routes.access import Caller, GatewayOf, reach
from gateway.routes.problems import ProblemError, described

router = APIRouter(prefix="/v1/handovers", tags=["chat"])


class HandOverView(BaseModel):
    id: int
    tenant: str
    session: str = Field(description="Its transcript has the conversation.")
    customer: int | None = Field(description="The store's id of the verified customer.")
    summary: str = Field(description="The agent's words: what the customer wants and what was done.")
    created: datetime
    taken: datetime | None
    taken_by: str


class HandOversView(BaseModel):
    handovers: list[HandOverView]


class Taken(BaseModel):
    id: int
    taken_by: str


@router.get("", responses=described(403))
@act("transcripts.read")
async def list_handovers(
    running: GatewayOf,
    caller: Caller,
    tenant: Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")] = None,
    all: Annotated[bool, Query(description="Also those that somebody has taken.")] = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> HandOversView:
    """Conversations that wait for a person, the newest first."""
    found = await handovers.waiting(running.database, reach(running, caller, tenant), everything=all, limit=limit)
    return HandOversView(handovers=[HandOverView.model_validate(each, from_attributes=True) for each in found])


@router.post("/{handover}/take", responses=described(403, 404))
@act("transcripts.read")
async def take_handover(running: GatewayOf, caller: Caller, handover: Annotated[int, Path(ge=1, lt=2**63)]) -> Taken:
    """Say that you see to it."""
    if not await handovers.take(running.database, handover, caller.tenant, caller.name):
        raise ProblemError(404, "not_found", f"No hand-over {handover} waits.", "GET /v1/handovers?all=true shows all.")
    return Taken(id=handover, taken_by=caller.name)
