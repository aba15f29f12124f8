"""Long work of tools: what runs, how far it is, and what it took. It is begun by a cell, and stopped with it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.acts import act
from gateway.routes.access import Caller, GatewayOf, reach
from gateway.routes.problems import described
from gateway.work.runs import RunState

router = APIRouter(prefix="/v1/work", tags=["work"])


class WorkRunView(BaseModel):
    """One run of a long work."""

    id: int
    tenant: str
    workload: str = Field(description="sync, ingest, report, gdpr, ...")
    tool: str
    session: str = Field(description="Its transcript has the cell; interrupting its cell stops the run.")
    state: RunState = Field(description="`lost`: its gateway was killed; the same call again goes on with it.")
    done: int
    total: int | None
    unit: str
    note: str
    error: str
    rows: int
    bytes: int
    calls: int = Field(description="Requests to upstreams.")
    retries: int
    peak_mb: float = Field(description="Memory of the gateway above what it had when the run began, MiB.")
    dollars: float
    direct_bytes: int = Field(description="Bytes of JSON that single calls would have put before a model.")
    report_bytes: int = Field(description="Bytes of JSON that the cell got.")
    seconds: float
    started: str
    ended: str | None


class WorkRuns(BaseModel):
    runs: list[WorkRunView]


@router.get("", responses=described(403))
@act("work.look")
async def list_work(
    running: GatewayOf,
    caller: Caller,
    tenant: Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")] = None,
    workload: Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> WorkRuns:
    """Runs of long work, the newest first."""
    found = await running.work.list(reach(running, caller, tenant), workload=workload, limit=limit)
    return WorkRuns(runs=[WorkRunView.model_validate(each, from_attributes=True) for each in found])
