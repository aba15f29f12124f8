"""Whom a Jupyter client speaks for."""

from __future__ import annotations

from typing import Annotated, TypeVar

from fastapi import Depends, Path, Request
from pydantic import BaseModel, ValidationError

from gateway.auth import Principal
from gateway.jupyter.hub import Hub
from gateway.jupyter.kernels import JupyterKernels
from gateway.routes.access import Caller as Caller
from gateway.routes.access import GatewayOf as GatewayOf
from gateway.routes.access import check_tenant
from gateway.routes.problems import ProblemError
from gateway.runtime import Gateway


async def kernels(request: Request) -> JupyterKernels:
    found: JupyterKernels = request.app.state.jupyter
    return found


Body = TypeVar("Body", bound=BaseModel)


async def read(request: Request, model: type[Body]) -> Body:
    """The request's body, whatever its content type says; none at all is an empty one. Raises ProblemError (400)."""
    body = await request.body()
    try:
        return model.model_validate_json(body if body.strip() not in (b"", b"null") else b"{}")
    except ValidationError as error:
        told = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()[:10]]
        raise ProblemError(400, "bad_request", "The request cannot be read. " + "; ".join(told)) from None


KernelsOf = Annotated[JupyterKernels, Depends(kernels)]


def tenant_of(running: Gateway, caller: Principal) -> str:
    """The tenant whose kernels the caller makes. Raises ProblemError (400, 403, 404)."""
    tenant = caller.tenant or running.settings.jupyter.tenant
    if tenant is None:
        tenants = tuple(running.settings.tenants)
        if len(tenants) != 1:
            hint = "Use a tenant's own token (tenants.NAME.token), or set jupyter.tenant."
            raise ProblemError(400, "no_tenant", "The server's own token does not say whose kernel it is.", hint)
        (tenant,) = tenants
    check_tenant(running, caller, tenant)
    return tenant


async def hub_of(found: KernelsOf, caller: Caller, kernel: Annotated[str, Path(max_length=64)]) -> Hub:
    """The kernel of the path, if the caller reaches it. Raises SessionNotFound."""
    return await found.find(kernel, caller.tenant)


HubOf = Annotated[Hub, Depends(hub_of)]
