"""What happened, as Jupyter notebooks: found, read, verified."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from pathlib import Path as FilePath
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse, Response

from gateway.acts import act
from gateway.auth import Principal
from gateway.routes.access import Caller, GatewayOf, check_act, check_role, reach
from gateway.routes.models import TranscriptErased, TranscriptReplay, TranscriptSummary, TranscriptVerification
from gateway.routes.problems import ProblemError, described
from gateway.runtime import Gateway
from gateway.transcripts.clean import clean_json
from gateway.transcripts.erasure import StillOpen
from gateway.transcripts.index import Query as Wanted
from gateway.transcripts.store import Form
from gateway.transcripts.verify import verify

router = APIRouter(prefix="/v1/transcripts", tags=["transcripts"])

NOTEBOOK = "application/x-ipynb+json"
RECORD = "application/x-ndjson"
_TYPES = {"ipynb": NOTEBOOK, "html": "text/html; charset=utf-8", "jsonl": RECORD}

#: What Postgres takes for text.
_TEXT = r"^[^\x00]*$"

#: A session's id, or the beginning of it.
Id = Annotated[str, Path(max_length=80)]


@router.get("", responses=described(403))
@act("transcripts.read")
async def list_transcripts(
    running: GatewayOf,
    caller: Caller,
    tenant: Annotated[str | None, Query(max_length=64)] = None,
    since: Annotated[datetime | None, Query(description="Sessions that went on after this time.")] = None,
    until: Annotated[datetime | None, Query(description="Sessions that began before this time.")] = None,
    tool: Annotated[
        str | None,
        Query(max_length=200, pattern=_TEXT, description="Called: `server.name`, or `server`."),
    ] = None,
    error: Annotated[
        str | None, Query(max_length=200, pattern=_TEXT, description="In which it came up, by name; `any`.")
    ] = None,
    cost_min: Annotated[float | None, Query(ge=0, description="US dollars, of the model and of tools.")] = None,
    cost_max: Annotated[float | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
) -> list[TranscriptSummary]:
    """Transcripts that fit, the newest first; all of them where nothing is asked for."""
    wanted = Wanted(
        tenant=reach(running, caller, tenant),
        since=since,
        until=until,
        tool=tool,
        error=error,
        cost_min=cost_min,
        cost_max=cost_max,
        limit=limit,
        offset=offset,
    )
    await running.upkeep.flush()
    found = await running.index.search(wanted)
    return [TranscriptSummary(**msgspec.structs.asdict(each)) for each in found]


@router.get(
    "/{session}",
    response_class=Response,
    responses={**described(404), 200: {"content": {NOTEBOOK: {}}, "description": "A notebook, nbformat 4.5."}},
)
@act("transcripts.read")
async def get(running: GatewayOf, caller: Caller, session: Id) -> Response:
    """A session's notebook; `.ipynb` may follow the id."""

    path = await find(running, caller, session.removesuffix(".ipynb"))
    notebook = await asyncio.to_thread(running.transcripts.notebook, path)
    return Response(notebook, media_type=NOTEBOOK, headers=attached(path.name))


@router.get("/{session}/verification", responses=described(404))
@act("transcripts.read")
async def verification(running: GatewayOf, caller: Caller, session: Id) -> TranscriptVerification:
    """Whether record and notebook are, byte by byte, what was written, and end where the database says."""
    path = await find(running, caller, session)
    live = running.sessions.transcript(path.stem)
    async with live.lock if live is not None else contextlib.nullcontext():  # nobody adds meanwhile
        await running.upkeep.flush()
        known = await running.index.head(path.stem)
        found = await asyncio.to_thread(verify, path, known)
    return TranscriptVerification(**msgspec.structs.asdict(found))


@router.get(
    "/{session}/export",
    response_class=Response,
    responses={**described(403, 404), 200: {"content": {NOTEBOOK: {}, "text/html": {}, RECORD: {}}}},
)
@act("transcripts.read")
async def export(
    running: GatewayOf,
    caller: Caller,
    session: Id,
    form: Annotated[Form, Query(alias="format", description="jsonl: the record as it is.")] = "html",
) -> Response:
    """A session as a file to give away. Personal data is masked, but in the record, which the server's token gets."""
    path = await find(running, caller, session)
    if form == "jsonl":
        check_act(caller, "transcripts.record")
    content = await asyncio.to_thread(running.transcripts.export, path, form)
    await running.audit.note_if_possible(caller.name, path.parent.name, "transcript.export", f"{path.stem}.{form}")
    return Response(content, media_type=_TYPES[form], headers=attached(f"{path.stem}.{form}"))


@router.get(
    "/{session}/outputs/{name}",
    response_class=FileResponse,
    responses={
        **described(404, 416),
        200: {"description": "The file.", "content": {RECORD: {}}},
        206: {"description": "The part.", "content": {RECORD: {}}},
    },
)
@act("transcripts.read")
async def outputs(
    running: GatewayOf, caller: Caller, session: Id, name: Annotated[str, Path(max_length=200)]
) -> FileResponse:
    """All outputs of a cell that said too much for its notebook, one a line; a cell's `metadata.omniops.spool.file`
    names it. Parts of it by `Range`. Personal data is masked.
    """
    path = await find(running, caller, session)
    found = await asyncio.to_thread(running.transcripts.outputs, path, name)
    return FileResponse(found, media_type=RECORD, headers=attached(name))


@router.post("/{session}/replay", responses=described(403, 404, 409, 503))
@act("transcripts.replay")
async def replay(running: GatewayOf, caller: Caller, session: Id) -> TranscriptReplay:
    """Run the session's cells in a new kernel, its calls answered from the journal, and tell where outputs differ."""
    path = await find(running, caller, session)
    info = await running.sessions.get(path.stem, caller.tenant)
    check_role(caller, info.role)
    live = running.sessions.transcript(info.id)
    async with live.lock if live is not None else contextlib.nullcontext():
        cells = await asyncio.to_thread(running.transcripts.cells, path)
    found = await running.replayer.replay(info, {cell["id"]: cell for cell in cells})
    return TranscriptReplay(**clean_json(msgspec.to_builtins(found), running.transcripts.redaction.personal))


@router.delete("/{session}", responses=described(403, 404, 409))
@act("transcripts.erase")
async def erase(
    running: GatewayOf,
    caller: Caller,
    session: Id,
    reason: Annotated[str, Query(max_length=500, pattern=_TEXT)] = "",
    by: Annotated[str, Query(max_length=64, pattern=_TEXT, description="Who asks for it.")] = "",
) -> TranscriptErased:
    """Remove what an ended session said and made. Its record stays as tombstones, and still verifies."""
    path = await find(running, caller, session)
    if path.stem != session:
        raise ProblemError(404, "transcript_not_found", "Give the whole id of a session that is to be erased.")
    who = f"{caller.name}/{by}" if by else caller.name
    try:
        removed = await running.eraser.erase(path.stem, reason, who)
    except StillOpen as error:
        raise ProblemError(409, "session_open", str(error)) from None
    return TranscriptErased(session=path.stem, erased=removed)


async def find(running: Gateway, caller: Principal, session: str) -> FilePath:
    """The notebook of a session that the caller reaches. Raises TranscriptError."""
    await running.sessions.fetch(session, caller.tenant)
    return await asyncio.to_thread(running.transcripts.find, session, caller.tenant)


def attached(name: str) -> dict[str, str]:
    """Headers of a file that browsers save and do not show."""
    return {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
    }
