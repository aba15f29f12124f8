"""What a tool gets beside its arguments. The broker makes one per call; no tool finds credentials elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx


@dataclass(frozen=True)
class Shop:
    """A WooCommerce store: where it is and the narrowest keys there are. Never logged, never sent to a kernel."""

    url: str
    consumer_key: str
    consumer_secret: str
    timeout_s: float = 20.0

    def __repr__(self) -> str:
        return f"Shop(url={self.url!r}, consumer_key=***, consumer_secret=***)"


class Rows(Protocol):
    """A database connection bound to the tenant by row-level security (`SET LOCAL`), inside one transaction."""

    async def fetch(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]: ...

    async def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> int: ...


class TenantDatabase(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Rows]: ...


class Embedder(Protocol):
    """Turns texts into unit vectors of `dimensions` floats."""

    dimensions: int

    async def embed(self, texts: Sequence[str]) -> list[list[float]]: ...


class SessionPins(Protocol):
    """What is pinned to the session beside the tenant."""

    #: Upstream id of the customer that this conversation was verified for.
    customer: int | None
    #: True where a customer must be verified before personal data is read (chat); false for analysts.
    customer_required: bool

    async def pin_customer(self, customer_id: int) -> None:
        """Pin once. Raises ToolDenied when another customer is pinned already."""
        ...


@dataclass(frozen=True)
class ToolContext:
    """One call's surroundings."""

    tenant: str
    session: str
    pins: SessionPins
    #: Same for every attempt at the same call; writes stamp it upstream so that they can be recognised.
    idempotency_key: str
    #: True when an earlier attempt may have reached the upstream: look for the stamp before writing.
    resuming: bool
    http: httpx.AsyncClient
    shop: Shop | None = None
    database: TenantDatabase | None = None
    embedder: Embedder | None = None
