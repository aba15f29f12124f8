"""The tools that look: which tools and sessions there are."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import mcp_types as types

from gateway.mcp_server.api import Api, ApiError
from gateway.mcp_server.cells import Bound
from gateway.mcp_server.models import (
    DescribeTool,
    EndSession,
    FoundTool,
    FoundTools,
    ListedSession,
    ListedSessions,
    ListSessions,
    SearchTools,
    SessionOver,
)


async def search_tools(api: Api, asked: SearchTools) -> types.CallToolResult:
    """Raises ApiError."""
    given = {"query": asked.query, "server": asked.server, "limit": asked.limit, "tenant": asked.tenant}
    answer = await api.get("/v1/tools", given)
    found = FoundTools(
        tools=[FoundTool(**{name: each[name] for name in FoundTool.model_fields}) for each in answer["tools"]],
        total=answer["total"],
    )
    lines = [f"{each.call}  [{each.effect}] {each.summary}" for each in found.tools]
    return _result("\n".join(lines) or "No tool has to do with that.", found.model_dump())


async def describe_tool(api: Api, asked: DescribeTool) -> types.CallToolResult:
    """Raises ApiError."""
    record = await api.get(f"/v1/tools/{quote(asked.name, safe='')}", {"tenant": asked.tenant})
    roles = ", ".join(record["roles"])
    return _result(f"{record['stub']}\n# {record['effect']}, for {roles}\n", record)


async def list_sessions(api: Api, asked: ListSessions) -> types.CallToolResult:
    """Raises ApiError."""
    answer = await api.get("/v1/sessions", {"limit": asked.limit, "tenant": asked.tenant})
    found = ListedSessions(
        sessions=[ListedSession(**{name: each[name] for name in ListedSession.model_fields}) for each in answer]
    )
    lines = [f"{each.id}  {each.state}  {each.role}  {each.cells} cells  {each.title}" for each in found.sessions]
    return _result("\n".join(lines) or "There are no sessions.", found.model_dump())


async def end_session(api: Api, asked: EndSession, bound: Bound) -> types.CallToolResult:
    """Raises ApiError."""
    session = asked.session or bound.session
    if not session:
        raise ApiError("This connection has no session yet: name one.")
    await api.delete(f"/v1/sessions/{quote(session, safe='')}")
    if bound.session == session:
        bound.session = ""
    return _result(f"Session {session} has ended.", SessionOver(session=session, ended=True).model_dump())


def _result(text: str, structured: dict[str, Any]) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=structured)
