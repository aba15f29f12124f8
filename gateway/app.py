"""The HTTP application on a running gateway."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gateway.acts import act
from gateway.completions.errors import OpenAiErrorFormat
from gateway.jupyter import documents
from gateway.jupyter import routes as jupyter
from gateway.jupyter import socket as channels
from gateway.openapi import TAGS, describe, operation_id
from gateway.operations.entrance import Entrance
from gateway.peers.middleware import Elsewhere
from gateway.routes import (
    approvals,
    chat,
    completions,
    credentials,
    exports,
    files,
    handovers,
    imports,
    keys,
    mcp,
    mcp_servers,
    operations,
    savings,
    schedules,
    sessions,
    tools,
    transcripts,
    work,
)
from gateway.routes.door import Door
from gateway.routes.guard import check_declared, enforce
from gateway.routes.limits import BodyLimit
from gateway.routes.problems import install
from gateway.runtime import Gateway

_DESCRIPTION = """
Sessions of sandboxed Jupyter kernels with a shop's tools, and an agent that works in them.

Every route but `/healthz` and `/readyz` wants an access token: `Authorization: Bearer TOKEN` (or `token TOKEN`, or
`?token=TOKEN`). Every answer has an `X-Request-Id`: the one that was sent, or a new one; the log has it, too.
Errors are `application/problem+json` with `code`, `message` and `hint`; on `/v1/chat/completions` and `/v1/models` they
are OpenAI's.
"""


class _Application(FastAPI):
    """FastAPI behind the entrance: what it answers to a failure of its own passes there, too."""

    entrance: Entrance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await OpenAiErrorFormat(self.entrance)(scope, receive, send)


def create_app(gateway: Gateway) -> FastAPI:
    """The application. Starting and stopping the gateway is its caller's."""
    app = _Application(
        title="omniops-kernels",
        version=version("omniops-kernels"),
        description=_DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        openapi_tags=TAGS,
        generate_unique_id_function=operation_id,
        dependencies=[Depends(enforce)],
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it would record addresses with tokens
    )
    app.openapi = partial(describe, app)  # type: ignore[method-assign]
    app.entrance = Entrance(super(_Application, app).__call__, gateway)
    app.state.gateway = gateway
    app.state.jupyter = gateway.jupyter
    install(app)
    settings = gateway.settings
    app.add_middleware(Elsewhere, gateway=gateway)
    app.add_middleware(Door, routes=app, gateway=gateway)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.server.max_request_mb * 2**20,
        max_file_bytes=settings.files.largest_mb * 2**20,
        time_s=settings.server.body_s,
    )
    parts = (
        sessions,
        files,
        chat,
        completions,
        approvals,
        transcripts,
        operations,
        imports,
        credentials,
        keys,
        mcp,
        mcp_servers,
        tools,
        handovers,
        savings,
        schedules,
        work,
        exports,
    )
    for part in parts:
        app.include_router(part.router)
    for ours in (jupyter, documents, channels):
        app.include_router(ours.router)

    @app.get("/v1/openapi.json", include_in_schema=False)
    @act("about")
    async def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())

    check_declared(app)
    return app
