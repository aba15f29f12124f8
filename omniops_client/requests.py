"""Each call of the gateway's interface as plain data: what is sent, how it is read, whether it may be sent again.

Nothing is sent here. The blocking and the asynchronous client share all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote
from uuid import uuid4

from omniops_client import types

T = TypeVar("T")


@dataclass(frozen=True)
class Request(Generic[T]):
    """One request. `answer` is what its JSON is read as."""

    method: str
    path: str
    answer: type[T]
    params: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: It may be sent again where its answer was lost: it changes nothing, or the same thing.
    repeatable: bool = False
    #: Longest silence, seconds; None for the client's own, 0 for none at all.
    silence_s: float | None = None


def new_cell_id() -> str:
    return uuid4().hex[:16]


# -- sessions --


def create_session(
    tenant: str, *, role: str, title: str, customer: int | None, profile: str | None, key: str | None
) -> Request[types.SessionInfo]:
    body = given(tenant=tenant, role=role, title=title or None, customer=customer, profile=profile)
    headers = {"Idempotency-Key": key or uuid4().hex}
    return Request("POST", "/v1/sessions", types.SessionInfo, body=body, headers=headers, repeatable=True, silence_s=90)


def get_session(session: str) -> Request[types.SessionInfo]:
    return _get(_session(session), types.SessionInfo)


def list_sessions(tenant: str | None, after: str | None, limit: int) -> Request[list[types.SessionInfo]]:
    return _get("/v1/sessions", list[types.SessionInfo], tenant=tenant, after=after, limit=limit)


def end_session(session: str) -> Request[None]:
    return Request("DELETE", _session(session), type(None), repeatable=True)


def run_cell(session: str, code: str, cell: str, deadline_s: float | None) -> Request[types.CellResult]:
    body = given(code=code, cell_id=cell, deadline_s=deadline_s)
    return Request("POST", _session(session, "cells"), types.CellResult, body=body)


def follow_cell(session: str, cell: str, last_event: str) -> Request[types.CellResult]:
    headers = {"Last-Event-ID": last_event} if last_event else {}
    return Request("GET", _session(session, "cells", cell, "events"), types.CellResult, headers=headers)


def list_cells(session: str) -> Request[list[types.CellState]]:
    return _get(_session(session, "cells"), list[types.CellState])


def get_cell(session: str, cell: str) -> Request[types.CellState]:
    return _get(_session(session, "cells", cell), types.CellState)


def cancel_cell(session: str, cell: str) -> Request[types.Cancelled]:
    return Request("POST", _session(session, "cells", cell, "cancel"), types.Cancelled, repeatable=True)


def interrupt(session: str) -> Request[dict[str, Any]]:
    return Request("POST", _session(session, "interrupt"), dict[str, Any])


def restart(session: str) -> Request[types.SessionInfo]:
    return Request("POST", _session(session, "restart"), types.SessionInfo, silence_s=90)


def restore(session: str) -> Request[list[types.CellResult]]:
    return Request("POST", _session(session, "restore"), list[types.CellResult], silence_s=0)


def list_files(session: str, path: str, after: str) -> Request[types.FilePage]:
    return _get(_session(session, "files"), types.FilePage, path=path or None, after=after or None)


def read_file(session: str, path: str, first: int) -> Request[bytes]:
    headers = {"Range": f"bytes={first}-"} if first else {}
    return Request("GET", _file(session, path), bytes, headers=headers, repeatable=True)


def write_file(session: str, path: str) -> Request[types.File]:
    return Request("PUT", _file(session, path), types.File)


def delete_file(session: str, path: str) -> Request[None]:
    return Request("DELETE", _file(session, path), type(None))


# -- people --


def list_approvals(
    state: str | None, tenant: str | None, session: str | None, limit: int
) -> Request[tuple[types.Approval, ...]]:
    return _get("/v1/approvals", tuple[types.Approval, ...], state=state, tenant=tenant, session=session, limit=limit)


def get_approval(approval: str) -> Request[types.Approval]:
    return _get(_path("approvals", approval), types.Approval)


def approve(approval: str, calls: Sequence[int] | None, note: str) -> Request[types.Approval]:
    return Request(
        "POST",
        _path("approvals", approval, "approve"),
        types.Approval,
        body={"calls": calls and tuple(calls), "note": note},
    )


def deny(approval: str, note: str) -> Request[types.Approval]:
    return Request("POST", _path("approvals", approval, "deny"), types.Approval, body={"note": note})


def watch_approvals() -> Request[types.Approval]:
    return _get("/v1/approvals/events", types.Approval)


def list_writes(tenant: str | None, session: str | None, limit: int) -> Request[tuple[types.Write, ...]]:
    return _get("/v1/calls", tuple[types.Write, ...], tenant=tenant, session=session, limit=limit)


def revert(call: int) -> Request[types.Write]:
    return Request("POST", _path("calls", str(call), "revert"), types.Write)


# -- transcripts, tools, chat, operations --


def list_transcripts(
    tenant: str | None,
    since: datetime | None,
    until: datetime | None,
    tool: str | None,
    error: str | None,
    cost_min: float | None,
    cost_max: float | None,
    limit: int,
    offset: int,
) -> Request[list[types.Transcript]]:
    return _get(
        "/v1/transcripts",
        list[types.Transcript],
        tenant=tenant,
        since=since and since.isoformat(),
        until=until and until.isoformat(),
        tool=tool,
        error=error,
        cost_min=cost_min,
        cost_max=cost_max,
        limit=limit,
        offset=offset,
    )


def get_notebook(session: str) -> Request[dict[str, Any]]:
    return _get(_path("transcripts", session), dict[str, Any])


def export_transcript(session: str, form: types.TranscriptForm) -> Request[bytes]:
    return _get(_path("transcripts", session, "export"), bytes, format=form)


def verify_transcript(session: str) -> Request[types.Verification]:
    return _get(_path("transcripts", session, "verification"), types.Verification, silence_s=600)


def find_tools(
    query: str, server: str | None, tenant: str | None, role: str | None, limit: int, after: str
) -> Request[types.ToolPage]:
    words, last = query or None, after or None
    return _get(
        "/v1/tools", types.ToolPage, query=words, server=server, tenant=tenant, role=role, limit=limit, after=last
    )


def get_tool(name: str, tenant: str | None, role: str | None) -> Request[types.ToolRecord]:
    return _get(_path("tools", name), types.ToolRecord, tenant=tenant, role=role)


def chat(
    tenant: str, message: str, *, session: str | None, mode: str | None, customer: int | None
) -> Request[types.Answer]:
    body = given(tenant=tenant, message=message, session=session, mode=mode, customer=customer)
    return Request("POST", "/v1/chat", types.Answer, body=body, silence_s=0)


def status() -> Request[types.Status]:
    return _get("/v1/status", types.Status)


def plain(method: str, path: str, body: object, params: Mapping[str, str] | None) -> Request[Any]:
    """Any route by its path."""
    return Request(method, path, object, params or {}, body, repeatable=method in ("GET", "PUT", "DELETE"))


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _get(route: str, answer: type[T], /, silence_s: float | None = None, **params: object) -> Request[T]:
    texts = {name: str(value) for name, value in given(**params).items()}
    return Request("GET", route, answer, params=texts, repeatable=True, silence_s=silence_s)


def _session(session: str, *more: str) -> str:
    return _path("sessions", session, *more)


def _file(session: str, path: str) -> str:
    return f"{_session(session, 'files')}/{quote(path)}"


def _path(*parts: str) -> str:
    return "/".join(("/v1", *(quote(part, safe="") for part in parts)))
