"""For those who run the gateway: health, status, filling a catalogue."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version

from fastapi import APIRouter

from gateway.acts import act
from gateway.routes.access import Caller, GatewayOf, check_tenant
from gateway.routes.models import CatalogReport, Health, Status
from gateway.routes.problems import described

router = APIRouter(tags=["operations"])


@router.get("/healthz")
@act("public")
async def health(running: GatewayOf) -> Health:
    """Whether the gateway answers; needs no token and tells nothing else. `degraded`: kernels do not start."""
    return Health(status="degraded" if running.pool.status().problem else "ok")


@router.get("/v1/status", responses=described())
@act("about")
async def status(running: GatewayOf, caller: Caller) -> Status:
    """How the gateway is."""
    pool = asdict(running.pool.status())
    pool["tenants"] = {name: kernels for name, kernels in pool["tenants"].items() if caller.may_reach(name)}
    tenants = [name for name in sorted(running.settings.tenants) if caller.may_reach(name)]
    return Status(
        version=version("omniops-kernels"),
        isolation=running.isolation,
        pool=pool,
        tenants=tenants,
    )


@router.post("/v1/tenants/{tenant}/catalog", responses=described(403, 404, 409, 502))
@act("catalogue.load")
async def load_catalog(running: GatewayOf, caller: Caller, tenant: str) -> CatalogReport:
    """Make the tenant's product catalogue, which searches go to, equal to its store's. Takes its time."""
    check_tenant(running, caller, tenant)
    return CatalogReport(**asdict(await running.catalog.load(tenant)))
