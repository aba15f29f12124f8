"""`/mcp`: the gateway as an MCP server over streamable HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.acts import act
from gateway.auth import token_of
from gateway.mcp_server.front import FrontClosed
from gateway.mcp_server.metadata import PATH, ProtectedResource
from gateway.routes.access import Caller, GatewayOf
from gateway.routes.problems import ProblemError, described

router = APIRouter(tags=["MCP server"])


@router.api_route("/mcp", methods=["POST", "DELETE"], include_in_schema=False)
@act("about")  # what its tools do goes through the routes, and their acts
async def mcp(running: GatewayOf, caller: Caller, request: Request) -> Response:
    """Whatever the protocol asks; its own errors are JSON-RPC's. No GET: the server says nothing that was not asked."""
    if not token_of(request.headers.get("authorization", ""), ""):
        hint = "Send the header `Authorization: Bearer TOKEN`."
        raise ProblemError(401, "unauthorized", "The protocol wants the access token in a header.", hint)
    try:
        return await running.mcp_front.answer(request.app, caller)
    except FrontClosed:
        raise ProblemError(503, "stopping", "The gateway is stopping.") from None


@router.get(PATH, responses=described(404))
@act("public")
async def protected_resource(running: GatewayOf, request: Request) -> ProtectedResource:
    """Who gives tokens for `/mcp` (RFC 9728), where `mcp_server.authorization_servers` names somebody."""
    issuers = running.settings.mcp_server.authorization_servers
    if not issuers:
        raise ProblemError(404, "not_found", "Tokens for this gateway are given by its operator.")
    return ProtectedResource.of(request, issuers)
