"""What the traditional way would have cost: for those who run the gateway, and tenants of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from gateway.acts import act
from gateway.routes.access import Caller, GatewayOf, reach
from gateway.routes.problems import described

router = APIRouter(prefix="/v1/savings", tags=["operations"])

_DAYS = 30


class SavingView(BaseModel):
    """One workload of one tenant."""

    tenant: str
    workload: str = Field(description="chat, sync, ingest, report, gdpr, ...")
    runs: int = Field(description="Turns of chats, runs of long work.")
    tokens: int = Field(description="Of the model, as the ledger counts them.")
    direct_tokens: int = Field(description="Had the same tools been called one by one.")
    cost: float = Field(description="With prompt caching, in `currency`.")
    direct_cost: float
    saved: float = Field(description="Negative where the traditional way would have cost less.")
    cost_uncached: float
    direct_cost_uncached: float


class SavingsView(BaseModel):
    currency: str
    since: datetime
    savings: list[SavingView]


@router.get("", responses=described(403))
@act("work.look")
async def list_savings(
    running: GatewayOf,
    caller: Caller,
    tenant: Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Left out: 30 days ago.")] = None,
) -> SavingsView:
    """What workloads cost the model, and what they would have cost the traditional way, up to this moment."""
    start = since or datetime.now(UTC) - timedelta(days=_DAYS)
    found = await running.savings.list(reach(running, caller, tenant), start)
    views = [SavingView.model_validate(each, from_attributes=True) for each in found]
    return SavingsView(currency=running.savings.currency, since=start, savings=views)
