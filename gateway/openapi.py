"""The description of all routes, as programs read it and as `/v1/docs` shows it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from gateway.routes.problems import MEDIA_TYPE

#: In the order in which the page shows them.
TAGS = [
    {"name": "sessions", "description": "Sessions and their cells: run, follow, cancel, restart, restore."},
    {"name": "files", "description": "The work folder of a session."},
    {"name": "chat", "description": "The agent, and its conversations."},
    {"name": "approvals", "description": "Calls that wait for a person; what was done, and taking it back."},
    {"name": "transcripts", "description": "What happened: search, read, verify, replay, erase."},
    {"name": "tools", "description": "What cells can call."},
    {"name": "work", "description": "Long work of tools: how far it is, what it took."},
    {"name": "exports", "description": "Files with what is kept of one person."},
]
_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "An access token; `omniops serve` prints the server's own at start.",
}
_EVENT = {
    "type": "object",
    "description": "One event of a stream; the route says which there are.",
    "properties": {
        "event": {"type": "string", "description": "Its kind."},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string", "description": "For `Last-Event-ID`, where a lost stream can be taken up."},
    },
    "required": ["data"],
}


def operation_id(route: APIRoute) -> str:
    """`sessions_run_cell`: what generated clients name their functions by."""
    tag = str(route.tags[0]).lower().replace(" ", "_") if route.tags else "gateway"
    return f"{tag}_{route.name}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application: as FastAPI makes it, with problems and tokens as they are."""
    document = FastAPI.openapi(app)
    document["components"].setdefault("securitySchemes", {})["token"] = _TOKEN
    document["components"]["schemas"]["ServerSentEvent"] = _EVENT
    document["security"] = [{"token": []}]
    for methods in document["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                content = response.get("content", {})
                _as_problem(content)
                if "text/event-stream" in content:
                    content["text/event-stream"] = {"schema": {"$ref": "#/components/schemas/ServerSentEvent"}}
            if "401" not in operation["responses"]:
                operation["security"] = []
    return document


def _as_problem(content: dict[str, Any]) -> None:
    """FastAPI has the model of an error as plain JSON, which no route answers errors with."""
    if MEDIA_TYPE in content and not content[MEDIA_TYPE]:
        content[MEDIA_TYPE] = content.pop("application/json")
