"""What a gateway has of the others on its database, put together."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from gateway.db import Database
from gateway.settings import Settings
from gateway.transcripts.mirror import Mirror

from .forward import Forwarder
from .owners import Owners
from .passes import Passes


@dataclass(frozen=True)
class Peers:
    """Whose the sessions are, how requests come to other gateways, and what these see of transcripts."""

    owners: Owners
    passes: Passes
    forwarder: Forwarder
    #: None: no other gateway is to have the transcripts.
    mirror: Mirror | None


async def open_peers(stack: AsyncExitStack, database: Database, settings: Settings, id: str, *, keep: bool) -> Peers:
    """`id`: of the data folder. `keep`: at the end, the sessions stay this gateway's while its lease lasts."""
    owners = Owners(database, settings.peers, id)
    passes = Passes(await owners.open(), id)
    stack.push_async_callback(owners.close, keep=keep)
    forwarder = Forwarder(passes, settings.peers.connect_s)
    stack.push_async_callback(forwarder.close)
    shared = settings.peers.mirror == "auto" and settings.database_url is not None
    mirror = Mirror(database, owners.fence) if shared or settings.peers.mirror == "on" else None
    return Peers(owners, passes, forwarder, mirror)
