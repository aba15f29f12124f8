"""The HTTP application on a running gateway."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse

from gateway.acts import act
from gateway.jupyter import documents
from gateway.jupyter import routes as jupyter
from gateway.jupyter import socket as channels
from gateway.routes import approvals, chat, credentials, mcp_servers, operations, sessions, tools, transcripts
from gateway.routes.guard import check_declared, enforce
from gateway.routes.limits import BodyLimit
from gateway.routes.problems import install
from gateway.runtime import Gateway

_DESCRIPTION = """
Sessions of sandboxed Jupyter kernels with a shop's tools, and an agent that works in them.

Every route but `/healthz` wants an access token: `Authorization: Bearer TOKEN` (or `token TOKEN`, or `?token=TOKEN`).
Errors are `application/problem+json` with `code`, `message` and `hint`.
"""


def create_app(gateway: Gateway) -> FastAPI:
    """The application. Starting and stopping the gateway is its caller's."""
    app = FastAPI(
        title="omniops-kernels",
        version=version("omniops-kernels"),
        description=_DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(enforce)],
    )
    app.state.gateway = gateway
    app.state.jupyter = gateway.jupyter
    install(app)
    app.add_middleware(BodyLimit, max_bytes=gateway.settings.server.max_request_mb * 2**20)
    for part in (sessions, chat, approvals, transcripts, operations, credentials, mcp_servers, tools):
        app.include_router(part.router)
    for ours in (jupyter, documents, channels):
        app.include_router(ours.router)

    @app.get("/v1/openapi.json", include_in_schema=False)
    @act("about")
    async def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())

    check_declared(app)
    return app
