"""What happened, as Jupyter notebooks."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi.responses import Response

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
    response_class=Response,
    responses={**described(404), 200: {"content": {NOTEBOOK: {}}, "description": "A notebook, nbformat 4.5."}},
)
async def get(running: GatewayOf, caller: Caller, session: str) -> Response:
    """A session's notebook; `.ipynb` may follow the id."""

    def look() -> tuple[str, bytes]:
        path = running.transcripts.find(session.removesuffix(".ipynb"), caller.tenant)
        return path.name, running.transcripts.notebook(path)

    name, notebook = await asyncio.to_thread(look)
    return Response(notebook, media_type=NOTEBOOK, headers=_attached(name))


def _attached(name: str) -> dict[str, str]:
    """Headers of a file that browsers save and do not show."""
    return {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
    }
