"""MCP servers: how they are, what their tools are taken for, and what people decide about that."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.acts import act
from gateway.auth import Principal
from gateway.mcp_client.book import Pin, Stale
from gateway.mcp_client.config import ServerConfig
from gateway.routes.access import Caller, GatewayOf, check_everyone, check_tenant, reach
from gateway.routes.problems import ProblemError, described
from gateway.runtime import Gateway
from gateway.types import Role
from servers.checking import closest
from servers.foreign.names import tool_name
from servers.foreign.record import Definition
from servers.foreign.words import one_line, prose
from servers.tool import Effect

router = APIRouter(tags=["MCP servers"])

#: Who sits at the keyboard, as they say: every operator has the same token.
_PERSON = r"^[\w .@-]*$"
OfTenant = Annotated[str | None, Query(max_length=64, description="As this tenant sees it.")]
Module = Annotated[str, Path(max_length=64, description="As cells import it.")]

ToolState = Literal["usable", "unclassified", "changed", "gone"]


class Server(BaseModel):
    """An MCP server, as the caller may see it."""

    server: str
    module: str = Field(description="As cells import it: `servers.<module>`.")
    owner: str = Field(description="The tenant whose own it is; empty for everyone's.")
    transport: str
    state: Literal["idle", "connecting", "ready", "down", "needs login", "misconfigured"]
    detail: str
    advice: str
    since: datetime | None
    program: str = Field(description="What it says it is.")
    connections: int
    tools: int
    unclassified: int
    changed: int
    notes: list[str]


class Servers(BaseModel):
    servers: list[Server]


class ForeignTool(BaseModel):
    tool: str = Field(description="As cells import it: `server.tool`.")
    name: str = Field(description="As its server has it.")
    state: ToolState
    effect: Effect
    roles: list[Role]
    idempotent: bool
    raised: bool = Field(description="The server's own hints make it more than was decided.")
    by: str = Field(description="Who classified it; empty: nobody.")
    at: datetime | None
    digest: str
    definition: str = Field(description="What may be called, as JSON.")
    offered_digest: str = Field(description="Of what its server has now, where that is another definition.")
    offered: str


class ForeignTools(BaseModel):
    tools: list[ForeignTool]


class _Decision(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tool: str = Field(description="`server.tool`.", max_length=300)
    tenant: str | None = Field(None, max_length=64, description="For this tenant alone. None: for all.")
    by: str = Field("", max_length=64, pattern=_PERSON, description="Who decides; kept with the token's name.")


class Classification(_Decision):
    effect: Effect
    roles: list[Role] = Field(["operator"], max_length=3, description="Who may call it.")
    idempotent: bool = Field(False, description="It may be sent again after a crash. Its server must say so too.")


class Acceptance(_Decision):
    digest: str = Field(max_length=64, description="The `offered_digest` of the definition that was looked at.")


@router.get("/v1/servers", responses=described(403))
@act("tools.look")
async def list_servers(running: GatewayOf, caller: Caller, tenant: OfTenant = None) -> Servers:
    """The MCP servers and their states."""
    of = reach(running, caller, tenant)
    found = [running.mcp.status(config, of) for config in running.mcp.visible(of)]
    return Servers(servers=[Server(**asdict(each)) for each in found])


@router.post("/v1/servers/{module}/reconnect", responses=described(403, 404))
@act("operations")
async def reconnect(running: GatewayOf, caller: Caller, module: Module, tenant: OfTenant = None) -> Server:
    """End its connections and make one now."""
    check_everyone(caller)
    config = _server(running, module, tenant)
    await running.mcp.reconnect(config, tenant)
    await running.audit.note_if_possible(caller.name, tenant or config.owner, "server.reconnect", config.module)
    return Server(**asdict(running.mcp.status(config, tenant)))


@router.get("/v1/servers/{module}/tools", responses=described(403, 404))
@act("tools.look")
async def list_tools(running: GatewayOf, caller: Caller, module: Module, tenant: OfTenant = None) -> ForeignTools:
    """What a server's tools are taken for, and what has changed."""
    of = reach(running, caller, tenant)
    config = _server(running, module, of)
    pins = running.mcp.book.of_server(config.owner, config.module)
    return ForeignTools(tools=[_shown(running, config, pin, of) for pin in pins])


@router.post("/v1/tools/classify", responses=described(403, 404))
@act("tools.decide")
async def classify(running: GatewayOf, caller: Caller, body: Classification) -> ForeignTool:
    """Say what a foreign tool does and who may call it."""
    check_everyone(caller)
    if body.tenant is not None:
        check_tenant(running, caller, body.tenant)
    config, pin = _tool(running, body)
    await running.mcp.book.classify(
        pin,
        tenant=body.tenant or config.owner,
        effect=body.effect,
        roles=tuple(dict.fromkeys(body.roles)),
        idempotent=body.idempotent,
        principal=_who(caller, body.by),
    )
    await running.mcp.renew()
    return _shown(running, config, pin, body.tenant)


@router.post("/v1/tools/accept", responses=described(403, 404, 409))
@act("tools.decide")
async def accept(running: GatewayOf, caller: Caller, body: Acceptance) -> ForeignTool:
    """Let a changed definition count, after somebody has looked at it. Its class stays."""
    check_everyone(caller)
    config, pin = _tool(running, body)
    try:
        await running.mcp.book.accept(pin, body.digest, _who(caller, body.by))
    except Stale as error:
        raise ProblemError(409, "stale", str(error), f"omniops tools review {config.module}") from None
    await running.mcp.renew()
    return _shown(running, config, running.mcp.book.pin(pin.key) or pin, body.tenant)


def _shown(running: Gateway, config: ServerConfig, pin: Pin, tenant: str | None) -> ForeignTool:
    ruling = running.mcp.book.ruling(tenant or config.owner, pin)
    state: ToolState = "usable" if ruling.by else "unclassified"
    if pin.offered is not None:
        state = "changed"
    return ForeignTool(
        tool=f"{config.module}.{tool_name(pin.key.name)}",
        name=one_line(pin.key.name, 200),
        state=state if pin.listed else "gone",
        effect=ruling.effect,
        roles=list(ruling.roles),
        idempotent=ruling.idempotent,
        raised=ruling.decided not in (None, ruling.effect),
        by=ruling.by,
        at=ruling.at,
        digest=pin.definition.digest,
        definition=_text(pin.definition),
        offered_digest=pin.offered.digest if pin.offered else "",
        offered=_text(pin.offered) if pin.offered else "",
    )


def _text(definition: Definition) -> str:
    """For people to compare: nothing invisible in it, as JSON escapes what is not ASCII."""
    whole: dict[str, Any] = {
        "description": prose(definition.description, 20_000).splitlines(),
        "arguments": definition.input_schema,
        "result": definition.output_schema,
        "hints": dict(definition.annotations),
    }
    return json.dumps(whole, indent=1, sort_keys=True)


def _server(running: Gateway, module: str, tenant: str | None) -> ServerConfig:
    """Raises ProblemError: 404 for a server that the tenant does not have, 409 where several tenants have one."""
    found = [each for each in running.mcp.visible(tenant) if each.module == module]
    if not found:
        likely = closest(module, (each.module for each in running.mcp.visible(tenant)))
        hint = f"Did you mean {likely}?" if likely else "GET /v1/servers lists them."
        raise ProblemError(404, "unknown_server", f"There is no MCP server {one_line(module, 64)!r}.", hint)
    if len(found) > 1:
        owners = ", ".join(each.owner for each in found)
        raise ProblemError(409, "ambiguous", f"Several tenants have a server {module!r}: {owners}.", "Name the tenant.")
    return found[0]


def _tool(running: Gateway, body: _Decision) -> tuple[ServerConfig, Pin]:
    """Raises ProblemError (404, 409)."""
    module, _, name = body.tool.partition(".")
    config = _server(running, module, body.tenant)
    pins = running.mcp.book.of_server(config.owner, config.module)
    exact = [pin for pin in pins if pin.key.name == name]
    found = exact or [pin for pin in pins if pin.listed and tool_name(pin.key.name) == name]
    if not found:
        likely = closest(name, (tool_name(pin.key.name) for pin in pins))
        hint = f"Did you mean {module}.{likely}?" if likely else f"GET /v1/servers/{module}/tools lists them."
        raise ProblemError(404, "unknown_tool", f"There is no tool {one_line(body.tool, 80)!r}.", hint)
    return config, found[0]


def _who(caller: Principal, person: str) -> str:
    return f"{caller.name} ({person})" if person else caller.name
