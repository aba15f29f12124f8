"""Work that begins by itself: what is configured, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.acts import act
from gateway.routes.access import Caller, GatewayOf, reach
from gateway.routes.problems import described

router = APIRouter(prefix="/v1/schedules", tags=["work"])


class ScheduleView(BaseModel):
    tenant: str
    name: str
    cron: str
    zone: str
    what: str = Field(description="The tool, or the notebook's file name.")
    next: datetime = Field(description="When it is next due, UTC.")


class ScheduleRunView(BaseModel):
    """One time that it was due."""

    tenant: str
    name: str
    due: datetime
    state: str = Field(
        description="`running`; as its last cell ended (`ok`, `error`, `paused`, ...); `failed`: it could not begin; "
        "`missed`: no gateway was there; `skipped`: the one before still ran; `stopped`, `lost`: with its gateway."
    )
    session: str = Field(description="Its transcript has what was done.")
    started: datetime | None
    ended: datetime | None


class SchedulesView(BaseModel):
    schedules: list[ScheduleView]
    runs: list[ScheduleRunView]


@router.get("", responses=described(403))
@act("work.look")
async def list_schedules(
    running: GatewayOf,
    caller: Caller,
    tenant: Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> SchedulesView:
    """What is scheduled, when it is next due, and what was due, the latest first."""
    reached = reach(running, caller, tenant)
    return SchedulesView(
        schedules=[
            ScheduleView(
                tenant=each.tenant,
                name=each.schedule.name,
                cron=each.schedule.cron,
                zone=each.schedule.zone,
                what=each.schedule.tool or (each.schedule.notebook.name if each.schedule.notebook else ""),
                next=each.due,
            )
            for each in running.schedules.upcoming(reached)
        ],
        runs=[
            ScheduleRunView.model_validate(each, from_attributes=True)
            for each in await running.schedules.runs(reached, limit)
        ],
    )
