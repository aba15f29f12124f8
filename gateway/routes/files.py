"""Files in a session's work folder: up, down, listed, removed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from gateway.acts import act
from gateway.routes.access import GatewayOf, SessionOf
from gateway.routes.problems import ProblemError, described
from gateway.transcripts.clean import clean_text
from kernel_pool.files import ENTRIES, About

router = APIRouter(prefix="/v1/sessions/{session}/files", tags=["files"])

_BYTES = "application/octet-stream"
_BINARY = {_BYTES: {"schema": {"type": "string", "format": "binary"}}}
#: A time after which no file was changed, whatever a kernel says; seconds.
_LAST = 4_000_000_000
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

FilePath = Annotated[
    str,
    Path(
        min_length=1, max_length=1000, description="In the work folder, parts separated by `/`, as `data/orders.csv`."
    ),
]


class File(BaseModel):
    """Something in the work folder."""

    path: str
    kind: Literal["file", "folder", "link", "other"] = Field(description="Links are not followed, only removed.")
    size: int = Field(description="Bytes.")
    modified: datetime

    @classmethod
    def of(cls, path: str, about: About) -> File:
        modified = datetime.fromtimestamp(min(max(about.modified_ns // 10**9, 0), _LAST), UTC)
        return cls(path=clean_text(path), kind=about.kind, size=max(about.size, 0), modified=modified)


class Files(BaseModel):
    files: list[File]
    next: str | None = Field(description="Of a folder that goes on: what `after` has to be. Null at its end.")


@router.get("", responses=described(404, 409, 503))
@act("sessions.run")
async def list_files(
    running: GatewayOf,
    found: SessionOf,
    path: Annotated[str, Query(max_length=1000, description="A folder; empty: the work folder itself.")] = "",
    after: Annotated[str, Query(max_length=300, description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=ENTRIES)] = ENTRIES,
) -> Files:
    """What is in a folder, by name."""
    entries, more = await running.sessions.files.list(found.id, path, after, limit)
    files = [File.of(f"{path}/{entry.name}" if path else entry.name, entry) for entry in entries]
    return Files(files=files, next=clean_text(entries[-1].name) if more and entries else None)


@router.put(
    "/{path:path}",
    status_code=201,
    responses=described(404, 409, 413, 503),
    openapi_extra={"requestBody": {"required": True, "content": _BINARY}},
)
@act("sessions.run")
async def put_file(running: GatewayOf, found: SessionOf, path: FilePath, request: Request) -> File:
    """Put a file there: the body as it is, in place of a file that is there. Folders on its way are made.

    It is there when it is whole. At most `files.largest_mb`, and what the kernel's folder holds.
    """
    return File.of(path, await running.sessions.files.write(found.id, path, request.stream()))


@router.get(
    "/{path:path}",
    response_class=StreamingResponse,
    responses={
        **described(404, 409, 413, 416, 503),
        200: {"description": "The file.", "content": _BINARY},
        206: {"description": "The part.", "content": _BINARY},
    },
)
@act("sessions.run")
async def get_file(
    running: GatewayOf,
    found: SessionOf,
    path: FilePath,
    wanted: Annotated[str | None, Header(alias="Range", description="One range, as `bytes=0-99`.")] = None,
) -> StreamingResponse:
    """A file, or a part of it. One that is changed meanwhile breaks the answer off."""
    about = await running.sessions.files.look(found.id, path)
    first, last = _range(wanted, about.size) if wanted else (0, about.size - 1)
    headers = {
        "Content-Length": str(last - first + 1),
        "Accept-Ranges": "bytes",
        "ETag": f'"{about.inode:x}-{about.modified_ns:x}-{about.size:x}"',
        # what a cell wrote is shown by no browser as a page of this gateway
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2], safe='')}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    if wanted:
        headers["Content-Range"] = f"bytes {first}-{last}/{about.size}"
    pieces = running.sessions.files.read(found.id, path, about, first, last - first + 1)
    return StreamingResponse(pieces, 206 if wanted else 200, headers, _BYTES)


@router.delete("/{path:path}", status_code=204, responses=described(404, 409, 503))
@act("sessions.run")
async def delete_file(running: GatewayOf, found: SessionOf, path: FilePath) -> None:
    """Remove a file, a link, or an empty folder."""
    await running.sessions.files.delete(found.id, path)


def _range(wanted: str, size: int) -> tuple[int, int]:
    """First and last byte. Raises ProblemError (416)."""
    asked = _RANGE.fullmatch(wanted.strip())
    first, last = asked.groups() if asked else ("", "")
    if first:
        found = int(first), min(int(last or size - 1), size - 1)
    elif last:
        found = max(0, size - int(last)), size - 1
    else:
        found = 0, -1
    if found[0] > found[1]:
        hint = "One range of bytes is understood, as `bytes=0-99`, `bytes=100-` or `bytes=-100`."
        raise ProblemError(416, "bad_range", f"The file of {size:,} bytes has no part {wanted[:60]!r}.", hint)
    return found
