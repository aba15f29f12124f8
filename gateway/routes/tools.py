"""Which tools there are, found by what they do: of the caller's tenant, and what its sessions may call, alone."""

from __future__ import annotations

import asyncio
import heapq
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Path, Query

from gateway.acts import SESSIONS, act
from gateway.auth import Principal
from gateway.routes.access import Caller, GatewayOf, check_role, check_tenant
from gateway.routes.problems import ProblemError, described
from gateway.routes.tool_models import ToolLine, ToolRecord, Tools
from gateway.runtime import Gateway
from gateway.types import Role
from servers.checking import closest
from servers.foreign.words import one_line
from servers.registry import Registry
from servers.tool import Tool

router = APIRouter(tags=["tools"])

Roles: TypeAlias = frozenset[Role]

#: Tools in one answer: milliseconds of work.
MAX_FOUND = 200

OfTenant = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=64,
        description="Whose tools. None: the token's own tenant; for the server's own token, what every tenant has.",
    ),
]
OfRole = Annotated[
    Role | None, Query(description="Only what this role may call. None: all that the token's roles may.")
]
Name = Annotated[str, Path(max_length=300, description="`server.tool`.")]


@router.get("/v1/tools", responses=described(403, 404))
@act("tools.look")
async def find_tools(
    running: GatewayOf,
    caller: Caller,
    query: Annotated[
        str, Query(max_length=1000, description="What it should do, in any words. Empty: a list by name.")
    ] = "",
    server: Annotated[str | None, Query(min_length=1, max_length=200, description="Of this server alone.")] = None,
    tenant: OfTenant = None,
    role: OfRole = None,
    limit: Annotated[int, Query(ge=1, le=MAX_FOUND)] = 20,
    after: Annotated[str, Query(max_length=300, description="For a list: `next` of the part before.")] = "",
) -> Tools:
    """Find tools by what they do, best first; without `query` list them by name."""
    of, roles = _reach(running, caller, tenant, role)
    registry = running.catalogue.of_tenant(of)
    allowed = [tool for tool in (registry if server is None else registry.of_server(server)) if _may(roles, tool)]
    if server is not None and not allowed:
        raise _no_server(registry, roles, server)
    if query.strip():
        found = await running.broker.search.find(of, roles, query, limit, server)
        return Tools(tools=[ToolLine.of(tool, running.scrubber) for tool in found], total=len(allowed), next=None)
    rest = (tool for tool in allowed if tool.qualified_name > after)
    page = heapq.nsmallest(limit + 1, rest, key=lambda tool: tool.qualified_name)
    lines = [ToolLine.of(tool, running.scrubber) for tool in page[:limit]]
    return Tools(tools=lines, total=len(allowed), next=lines[-1].name if len(page) > limit else None)


@router.get("/v1/tools/{name}", responses=described(403, 404))
@act("tools.look")
async def show_tool(
    running: GatewayOf, caller: Caller, name: Name, tenant: OfTenant = None, role: OfRole = None
) -> ToolRecord:
    """All about one tool: its signature, description, schemas, effect, and who may call it."""
    of, roles = _reach(running, caller, tenant, role)
    registry = running.catalogue.of_tenant(of)
    tool = registry.find(name)
    if tool is None or not _may(roles, tool):
        raise _no_tool(registry, roles, name)
    document = registry.documents.get(tool.server, "")
    return await asyncio.to_thread(ToolRecord.whole, tool, document, running.scrubber)


def _reach(running: Gateway, caller: Principal, tenant: str | None, role: Role | None) -> tuple[str, Roles | None]:
    """Whose tools, and callable by whom (None: by anybody, or nobody). Raises ProblemError (403, 404)."""
    of = tenant or caller.tenant or ""
    if of:
        check_tenant(running, caller, of)
    if role is not None:
        check_role(caller, role)
        return of, frozenset({role})
    return of, None if caller.role == "admin" and caller.tenant is None else SESSIONS[caller.role]


def _may(roles: Roles | None, tool: Tool) -> bool:
    return roles is None or not roles.isdisjoint(tool.roles)


def _no_server(registry: Registry, roles: Roles | None, server: str) -> ProblemError:
    """That of which the caller may call nothing is as if it were not there."""
    known = [name for name in registry.documents if any(_may(roles, tool) for tool in registry.of_server(name))]
    likely = closest(server, known)
    hint = f"Did you mean {likely}?" if likely else "GET /v1/tools?query=... finds tools of all servers."
    return ProblemError(404, "unknown_server", f"There is no server {one_line(server, 80)!r}.", hint)


def _no_tool(registry: Registry, roles: Roles | None, name: str) -> ProblemError:
    server, _, short = name.partition(".")
    likely = closest(short, [tool.name for tool in registry.of_server(server) if _may(roles, tool)])
    hint = f"Did you mean {server}.{likely}?" if likely else "GET /v1/tools?query=... finds tools."
    return ProblemError(404, "unknown_tool", f"There is no tool {one_line(name, 80)!r}.", hint)
