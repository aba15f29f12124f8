"""Jupyter's REST interface: kernels and what they are made of."""

from __future__ import annotations

import importlib.resources
import re
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response

from gateway.acts import act
from gateway.jupyter.access import Caller, GatewayOf, HubOf, KernelsOf, read, tenant_of
from gateway.jupyter.hub import Hub
from gateway.jupyter.kernels import ALIASES, JupyterKernels, kernel_id
from gateway.jupyter.models import LOGOS, KernelModel, NewKernel, spec_of, specs_of, stamp
from gateway.routes.access import note_end
from gateway.routes.problems import ProblemError, described
from gateway.runtime import Gateway
from gateway.session_errors import SessionNotFound

router = APIRouter(tags=["jupyter"])

#: Jupyter Server's version whose interface this is.
_SPOKEN = "2.14.0"
_TYPES = {"png": "image/png", "svg": "image/svg+xml"}


@router.options("/api", include_in_schema=False)
@router.options("/api/{path:path}", include_in_schema=False)
@act("public")
async def options(path: str = "") -> Response:
    """Answered without a token, as Jupyter's servers do."""
    return Response(headers={"Allow": "GET, HEAD, POST, PATCH, DELETE, OPTIONS"})


@router.get("/api", responses=described())
@act("about")
async def about(caller: Caller) -> dict[str, str]:
    """Which interface this is."""
    return {"version": _SPOKEN, "omniops": version("omniops-kernels")}


@router.get("/api/status", responses=described())
@act("kernels")
async def status(running: GatewayOf, found: KernelsOf, caller: Caller) -> dict[str, Any]:
    """Jupyter's summary of a server, of the caller's kernels alone."""
    hubs = found.all(caller.tenant)
    latest = max((hub.last_activity for hub in hubs), default=running.started)
    return {
        "started": stamp(running.started),
        "last_activity": stamp(latest),
        "connections": sum(hub.connections for hub in hubs),
        "kernels": len(hubs),
    }


@router.get("/api/me", responses=described())
@act("about")
async def me(caller: Caller) -> dict[str, Any]:
    """Who the caller is."""
    name = caller.name
    identity = {"username": name, "name": name, "display_name": name, "initials": name[:1].upper()}
    return {"identity": {**identity, "avatar_url": None, "color": None}, "permissions": {}}


@router.get("/api/kernelspecs", responses=described())
@act("kernels")
async def kernelspecs(running: GatewayOf, found: KernelsOf, caller: Caller) -> dict[str, Any]:
    """The kinds of kernels: one for each profile, and `python3`."""
    return specs_of(found.specs(running.pool.profiles))


@router.get("/api/kernelspecs/{name}", responses=described(404))
@act("kernels")
async def kernelspec(running: GatewayOf, found: KernelsOf, caller: Caller, name: str) -> dict[str, Any]:
    """One of them."""
    profile = found.specs(running.pool.profiles).get(name)
    if profile is None:
        raise ProblemError(404, "unknown_kernelspec", f"There is no kernelspec {name[:64]!r}.")
    return spec_of(name, profile)


@router.get("/kernelspecs/{name}/{file}", responses=described(404))
@act("kernels")
async def resource(running: GatewayOf, found: KernelsOf, caller: Caller, name: str, file: str) -> Response:
    """A kernelspec's logo."""
    if name not in found.specs(running.pool.profiles) or file not in LOGOS:
        raise ProblemError(404, "not_found", f"Kernelspec {name[:64]!r} has no file {file[:64]!r}.")
    content = importlib.resources.files("ipykernel").joinpath("resources", file).read_bytes()
    return Response(content, media_type=_TYPES[file.rpartition(".")[2]])


@router.get("/api/kernels", responses=described())
@act("kernels")
async def list_kernels(found: KernelsOf, caller: Caller) -> list[KernelModel]:
    """The caller's kernels that Jupyter clients made, whichever gateway has them."""
    return [KernelModel.of(hub) for hub in await found.seen(caller.tenant)]


@router.post("/api/kernels", status_code=201, responses=described(400, 403, 404, 503, 507))
@act("kernels")
async def start(
    running: GatewayOf, found: KernelsOf, caller: Caller, request: Request, response: Response
) -> KernelModel:
    """Start a kernel, in a session of its own."""
    hub = await started(running, found, caller, await read(request, NewKernel))
    response.headers["Location"] = f"/api/kernels/{kernel_id(hub.about.session)}"
    return KernelModel.of(hub)


@router.get("/api/kernels/{kernel}", responses=described(404))
@act("kernels")
async def get(hub: HubOf) -> KernelModel:
    """One kernel."""
    return KernelModel.of(hub)


@router.delete("/api/kernels/{kernel}", status_code=204, responses=described(404))
@act("kernels")
async def delete(running: GatewayOf, found: KernelsOf, caller: Caller, hub: HubOf) -> None:
    """End the kernel, what runs in it, and its session. The transcript stays."""
    await ended(running, found, caller, hub)


@router.post("/api/kernels/{kernel}/interrupt", status_code=204, responses=described(404, 409, 503))
@act("kernels")
async def interrupt(hub: HubOf) -> None:
    """Interrupt what runs, as Ctrl-C would."""
    await hub.interrupt()


@router.post("/api/kernels/{kernel}/restart", responses=described(404, 409, 503))
@act("kernels")
async def restart(hub: HubOf) -> KernelModel:
    """A new kernel with nothing in it, under the same id."""
    await hub.restart()
    return KernelModel.of(hub)


async def started(running: Gateway, found: JupyterKernels, caller: Caller, wanted: NewKernel) -> Hub:
    """A new kernel for the caller. Raises ProblemError, KernelPoolError."""
    tenant = tenant_of(running, caller)
    profiles = running.pool.profiles
    name = ALIASES.get(wanted.name or "", wanted.name or "")
    if name and name not in found.specs(profiles):
        names = ", ".join(found.specs(profiles))
        raise ProblemError(400, "unknown_kernelspec", f"There is no kernelspec {name!r}.", f"There are: {names}.")
    env = {name: value for name, value in wanted.variables().items() if not _STARTUP.match(name)}
    title = wanted.path or "Jupyter"
    return await found.start(tenant, caller.name, name, profiles, env, title)


async def ended(running: Gateway, found: JupyterKernels, caller: Caller, hub: Hub) -> None:
    """End a kernel; of somebody else's, the audit has it."""
    try:
        session = await running.sessions.get(hub.about.session)
    except SessionNotFound:
        session = None
    await found.end(hub)
    if session is not None:
        await note_end(running, caller, session)


#: What clients send along of their own environment and a warm kernel cannot take: without it they would start none.
_STARTUP = re.compile(r"PYTHON|IPYTHON|LD_|MALLOC_|OMP_|OPENBLAS_|MKL_|ARROW_|JUPYTER_|PATH\Z|HOME\Z")
