"""For those who run the gateway: health, status, filling a catalogue."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version

from fastapi import APIRouter, Response

from gateway.acts import act
from gateway.operations.gauges import CONTENT_TYPE, exposition
from gateway.routes.access import Caller, GatewayOf, check_tenant
from gateway.routes.models import CatalogReport, Health, Ready, Status
from gateway.routes.problems import ProblemError, described

router = APIRouter(tags=["operations"])


@router.get("/healthz")
@act("public")
async def health(running: GatewayOf) -> Health:
    """Whether the gateway answers; needs no token and tells nothing else. `degraded`: kernels do not start."""
    return Health(status="degraded" if running.pool.status().problem else "ok")


@router.get("/readyz", responses={503: {"model": Ready, "description": "Not now"}})
@act("public")
async def ready(running: GatewayOf, response: Response) -> Ready:
    """Whether work may be sent here: each condition, tried now, and what keeps it from holding. Needs no token."""
    found = await running.readiness.ask()
    if any(found.values()):
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return Ready(ready=not any(found.values()), conditions={name: why or "ok" for name, why in found.items()})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus's text format"}, **described(403)},
)
@act("metrics")
async def metrics(running: GatewayOf, caller: Caller) -> Response:
    """Figures of all tenants, for Prometheus: for the token that `metrics.token` sets, and who keeps the gateway."""
    if caller.tenant is not None:
        hint = "Ask with the server's own token, or set metrics.token."
        raise ProblemError(403, "forbidden", "This token reaches one tenant; metrics are of all.", hint)
    return Response(await exposition(running), media_type=CONTENT_TYPE)


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
