"""The MCP server over standard input and output, for a gateway that runs elsewhere or is started again meanwhile."""

from __future__ import annotations

from mcp.server.stdio import stdio_server

from gateway.mcp_server.api import Api, over_network
from gateway.mcp_server.server import Client, make_server
from gateway.settings import McpServerSettings


async def serve_stdio(url: str, token: str, settings: McpServerSettings, silence_s: float) -> None:
    """Until the client closes its end. `silence_s`: the gateway's longest silence. Raises ApiError."""
    async with over_network(url, silence_s=silence_s) as http:
        api = Api(http, token)
        await api.get("/v1/status")  # a wrong key is said at once, and not call by call
        server, _ = make_server(lambda ctx: Client(api, "stdio"), settings)
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
