"""How servers are, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from .book import Pin, Ruling
from .config import Http, ServerConfig
from .problems import State

if TYPE_CHECKING:
    from .connection import Connection

#: Which of several connections speaks for its server.
_ORDER: tuple[State, ...] = ("ready", "connecting", "needs login", "down", "idle", "misconfigured")


@dataclass(frozen=True)
class ServerStatus:
    """`detail` and `advice` are for people; nothing here holds a secret."""

    server: str
    #: As cells import it: `servers.<module>`.
    module: str
    #: The tenant whose own it is; "" for everyone's.
    owner: str
    transport: str
    state: State
    detail: str
    advice: str
    since: datetime | None
    #: What the server says it is.
    program: str
    connections: int
    tools: int
    #: Nobody has said what they do: they are critical, for operators alone.
    unclassified: int
    #: Their definitions have changed and wait for a person.
    changed: int
    notes: tuple[str, ...]


def status_of(
    config: ServerConfig,
    connections: Sequence[Connection],
    pins: Sequence[Pin],
    rulings: Sequence[Ruling],
    program: str,
    notes: tuple[str, ...],
) -> ServerStatus:
    """`connections`: those that the one who asks may know of."""
    first = min(connections, key=lambda each: _ORDER.index(each.state), default=None)
    state: State = "misconfigured" if config.problem else first.state if first else "idle"
    return ServerStatus(
        server=config.name,
        module=config.module,
        owner=config.owner,
        transport=config.transport.shown if config.transport else "",
        state=state,
        detail=config.problem or (first.detail if first else ""),
        advice=_advice(config, state),
        since=first.since if first else None,
        program=program,
        connections=sum(each.state == "ready" for each in connections),
        tools=sum(pin.listed for pin in pins),
        unclassified=sum(not ruling.by for ruling in rulings),
        changed=sum(pin.listed and pin.offered is not None for pin in pins),
        notes=notes,
    )


def _advice(config: ServerConfig, state: State) -> str:
    if state == "needs login" and isinstance(config.transport, Http):
        return (
            "Get a token for it, put it into the gateway's environment as MY_TOKEN, and give the server "
            '"headers": {"Authorization": "Bearer ${MY_TOKEN}"} in .mcp.json; then start the gateway again.'
        )
    if state == "misconfigured":
        return "Correct the file, or set the variable; then start the gateway again."
    if state == "down":
        return f"It is tried again by itself. At once: omniops mcp reconnect {config.module}"
    return ""
