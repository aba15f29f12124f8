"""What happened, as Jupyter notebooks."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi.responses import FileResponse

from gateway.routes.access import Caller, GatewayOf, reach
from gateway.routes.models import TranscriptSummary
from gateway.routes.problems import described

router = APIRouter(prefix="/v1/transcripts", tags=["transcripts"])

NOTEBOOK = "application/x-ipynb+json"


@router.get("", responses=described(403))
async def list_transcripts(running: GatewayOf, caller: Caller, tenant: str | None = None) -> list[TranscriptSummary]:
    """All transcripts, the newest first."""
    found = await asyncio.to_thread(running.transcripts.summaries, reach(running, caller, tenant))
    names = TranscriptSummary.model_fields
    return [TranscriptSummary(**{name: getattr(each, name) for name in names}) for each in found]


@router.get(
    "/{session}",
    response_class=FileResponse,
    responses={**described(404), 200: {"content": {NOTEBOOK: {}}, "description": "A notebook, nbformat 4.5."}},
)
async def get(running: GatewayOf, caller: Caller, session: str) -> FileResponse:
    """A session's notebook; `.ipynb` may follow the id."""
    path = await asyncio.to_thread(running.transcripts.find, session.removesuffix(".ipynb"), caller.tenant)
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
    return FileResponse(path, media_type=NOTEBOOK, filename=path.name, headers=headers)
