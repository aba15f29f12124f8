"""Transcripts as resources: `transcript://SESSION`, a notebook in which personal data is masked."""

from __future__ import annotations

import re
from urllib.parse import quote

import mcp_types as types
from mcp.shared.exceptions import MCPError

from gateway.mcp_server.api import Api, ApiError

SCHEME = "transcript://"
NOTEBOOK = "application/x-ipynb+json"
#: As the protocol numbers it.
_NOT_FOUND = -32002

_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")

TEMPLATE = types.ResourceTemplate(
    name="transcript",
    title="Transcript of a session",
    uri_template=f"{SCHEME}{{session}}",
    description="What was said and run in a session, as a Jupyter notebook; personal data is masked.",
    mime_type=NOTEBOOK,
)


async def list_transcripts(api: Api, cursor: str | None, page: int) -> types.ListResourcesResult:
    """A page of them, the newest first. Raises MCPError for a cursor that is none, ApiError."""
    offset = 0
    if cursor is not None:
        if not re.fullmatch(r"\d{1,9}", cursor):
            raise MCPError(types.INVALID_PARAMS, "This cursor is none of ours.")
        offset = int(cursor)
    found = await api.get("/v1/transcripts", {"limit": page + 1, "offset": offset})
    resources = [
        types.Resource(
            name=each["session"],
            title=each["title"] or each["session"],
            uri=f"{SCHEME}{each['session']}",
            description=f"{each['tenant']}, {each['role']}, {each['created']}: {each['cells']} cells, "
            f"{each['messages']} messages, {each['state']}",
            mime_type=NOTEBOOK,
        )
        for each in found[:page]
    ]
    following = str(offset + page) if len(found) > page else None
    return types.ListResourcesResult(resources=resources, next_cursor=following)


async def read_transcript(api: Api, uri: str, most: int) -> types.ReadResourceResult:
    """Raises MCPError: there is no such transcript, or it is larger than `most` bytes."""
    session = uri.removeprefix(SCHEME).rstrip("/")
    if not uri.startswith(SCHEME) or not _SESSION.match(session):
        raise MCPError(_NOT_FOUND, f"There is no resource {uri[:100]!r}: they are called {SCHEME}SESSION.")
    try:
        text = await api.text(f"/v1/transcripts/{quote(session)}/export", {"format": "ipynb"}, most)
    except ApiError as error:
        raise MCPError(_NOT_FOUND if error.status == 404 else types.INTERNAL_ERROR, str(error)) from None
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=NOTEBOOK, text=text)])
