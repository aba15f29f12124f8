"""Files with what is kept of one person: had by their link alone, listed and revoked by administrators."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from gateway.acts import act
from gateway.routes.access import Caller, GatewayOf, reach
from gateway.routes.problems import ProblemError, described

router = APIRouter(prefix="/v1/exports", tags=["exports"])

_ZIP = "application/zip"
_FILE = {_ZIP: {"schema": {"type": "string", "format": "binary"}}}

Link = Annotated[str, Path(max_length=128, description="As `export_person` told it.")]
Id = Annotated[str, Path(max_length=64, pattern="^[0-9a-f]*$", description="The link up to its first dot.")]


class Export(BaseModel):
    """One export. Whose it is of, only a pseudonym says."""

    export: str
    tenant: str
    subject: str = Field(description="A keyed digest of the person's e-mail or id.")
    principal: str = Field(description="Who asked for it.")
    state: str
    created: datetime
    expires: datetime
    revoked: datetime | None
    bytes: int
    sha256: str
    uses: int = Field(description="How often its link was used.")


@router.get("", responses=described(403))
@act("gdpr")
async def list_exports(running: GatewayOf, caller: Caller) -> list[Export]:
    """The newest hundred."""
    rows = await running.database.fetch(
        "SELECT id AS export, tenant, subject, principal, state, created, expires, revoked, bytes, sha256, uses"
        " FROM gdpr_export WHERE (%(tenant)s::text IS NULL OR tenant = %(tenant)s) ORDER BY created DESC LIMIT 100",
        {"tenant": reach(running, caller, None)},
    )
    return [Export(**row) for row in rows]


@router.get(
    "/{link}",
    response_class=StreamingResponse,
    responses={**described(404, 409), 200: {"description": "The file.", "content": _FILE}},
)
@act("public")
async def get_export(running: GatewayOf, link: Link) -> Response:
    """The file of a link. Whoever has the link may, without a token, until it expires; each use is in the audit.

    A link that was changed, has expired, was revoked or never was is answered in the same words.
    """
    office = running.office
    id = office.links.id(link)
    found = None if id is None else await office.exports.find(id, partial(office.links.holds, link))
    if found is None:
        raise ProblemError(404, "no_such_export", "There is no file under this link, or not any more.")
    if found.gateway != office.exports.me:
        message = "The file is on another gateway's disk."
        raise ProblemError(409, "export_elsewhere", message, "Use the link at the gateway that made it.")
    await running.audit.note("link", found.tenant, "gdpr.download", found.id)
    try:
        pieces = office.exports.open(found)
    except OSError:
        raise ProblemError(404, "no_such_export", "There is no file under this link, or not any more.") from None
    headers = {
        "Content-Length": str(found.bytes),
        "Content-Disposition": f'attachment; filename="{found.id}.zip"',
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return StreamingResponse(pieces, 200, headers, _ZIP)


@router.delete("/{export}", status_code=204, responses=described(403, 404))
@act("gdpr")
async def revoke_export(running: GatewayOf, caller: Caller, export: Id) -> None:
    """Its link holds no more, and its file is removed."""
    tenant = await running.office.exports.revoke(export, caller.tenant)
    if tenant is None:
        raise ProblemError(404, "no_such_export", "There is no such export.", "GET /v1/exports lists them.")
    await running.audit.note(caller.name, tenant, "gdpr.revoke", export)
