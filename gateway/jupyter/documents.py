"""What Jupyter calls sessions: documents, and the kernels that they run in."""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response

from gateway.acts import act
from gateway.jupyter.access import Caller, GatewayOf, KernelsOf, read, tenant_of
from gateway.jupyter.hub import Hub
from gateway.jupyter.kernels import Away, JupyterKernels, kernel_id
from gateway.jupyter.models import KernelChoice, SessionModel, SessionRequest
from gateway.jupyter.routes import ended, started
from gateway.jupyter.rows import NotebookRow
from gateway.routes.problems import ProblemError, described
from gateway.runtime import Gateway

router = APIRouter(prefix="/api/sessions", tags=["jupyter"])


async def row_of(found: KernelsOf, caller: Caller, session: Annotated[str, Path(max_length=64)]) -> NotebookRow:
    """The document of the path, if the caller reaches it. Raises ProblemError (404)."""
    row = await found.rows.notebook(caller.tenant, id=session)
    if row is None:
        raise ProblemError(404, "session_not_found", f"There is no session {session[:64]!r}.")
    return row


RowOf = Annotated[NotebookRow, Depends(row_of)]


@router.get("", responses=described())
@act("kernels")
async def list_sessions(found: KernelsOf, caller: Caller) -> list[SessionModel]:
    """The caller's documents whose kernels are at hand."""
    hubs = {hub.about.session: hub for hub in await found.seen(caller.tenant)}
    rows = await found.rows.notebooks(caller.tenant)
    return [SessionModel.of(row, hubs[row.kernel]) for row in rows if row.kernel in hubs]


@router.post("", status_code=201, responses=described(400, 403, 404, 503, 507))
@act("kernels")
async def create(
    running: GatewayOf, found: KernelsOf, caller: Caller, request: Request, response: Response
) -> SessionModel:
    """Open a document: with a new kernel, with one that is there, or with the one that it has already."""
    body = await read(request, SessionRequest)
    path = body.document
    if not path:
        raise ProblemError(400, "bad_request", "A session wants the path of its document.")
    row = await found.rows.notebook(tenant_of(running, caller), path=path)
    hub: Hub | Away
    if row is None:
        hub = await _kernel(running, found, caller, body.kernel, path)
        name = body.name or path.rpartition("/")[2]
        row = NotebookRow(str(uuid.uuid4()), hub.about.tenant, hub.about.session, path, name, body.type or "notebook")
        await found.rows.add_notebook(row)
    else:
        hub = await found.look(kernel_id(row.kernel), caller.tenant)
    response.headers["Location"] = f"/api/sessions/{row.id}"
    return SessionModel.of(row, hub)


@router.get("/{session}", responses=described(404))
@act("kernels")
async def get(found: KernelsOf, caller: Caller, row: RowOf) -> SessionModel:
    """One document."""
    return SessionModel.of(row, await found.find(kernel_id(row.kernel), caller.tenant))


@router.patch("/{session}", responses=described(400, 403, 404, 409, 503))
@act("kernels")
async def change(running: GatewayOf, found: KernelsOf, caller: Caller, row: RowOf, request: Request) -> SessionModel:
    """Another path, name, type or kernel. A kernel that is no document's any more ends."""
    body = await read(request, SessionRequest)
    path = body.document or row.path
    if path != row.path and await found.rows.notebook(row.tenant, path=path) is not None:
        raise ProblemError(409, "path_taken", f"{path[:200]!r} has a session.", "Delete that session first.")
    before = await found.find(kernel_id(row.kernel), caller.tenant)
    hub = before
    if body.kernel is not None and (body.kernel.id or body.kernel.name):
        hub = await _kernel(running, found, caller, body.kernel, path)
        if hub.about.tenant != row.tenant:
            raise ProblemError(403, "forbidden", "The kernel is another tenant's than the session.")
    row = msgspec.structs.replace(
        row, path=path, name=body.name or row.name, type=body.type or row.type, kernel=hub.about.session
    )
    await found.rows.change_notebook(row)
    others = await found.rows.notebooks(row.tenant)
    if hub is not before and not any(each.kernel == before.about.session for each in others):
        await ended(running, found, caller, before)
    return SessionModel.of(row, hub)


@router.delete("/{session}", status_code=204, responses=described(404))
@act("kernels")
async def delete(running: GatewayOf, found: KernelsOf, caller: Caller, row: RowOf) -> None:
    """Close the document and end its kernel."""
    hub = await found.find(kernel_id(row.kernel), caller.tenant)
    await found.rows.remove_notebook(row.id)
    await ended(running, found, caller, hub)


async def _kernel(
    running: Gateway, found: JupyterKernels, caller: Caller, wanted: KernelChoice | None, path: str
) -> Hub:
    wanted = wanted or KernelChoice()
    if wanted.id:
        return await found.find(wanted.id, caller.tenant)
    return await started(running, found, caller, wanted.model_copy(update={"path": path}))
