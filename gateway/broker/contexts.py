"""What a tool gets beside its arguments: the tenant's store and rows, the session's pins. Made here only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import httpx

from gateway.db import Database
from gateway.settings import Settings, TenantSettings
from gateway.types import Grant
from servers.context import Embedder, SessionPins, Shop, ToolContext
from servers.errors import ToolDenied

from .scrub import secrets_of


class ContextFactory(Protocol):
    """Makes the surroundings of calls."""

    #: Every secret that a context may hold, for the scrubber.
    secrets: Collection[str]

    async def pins(self, grant: Grant) -> SessionPins:
        """Asked once per session."""
        ...

    def context(self, grant: Grant, pins: SessionPins, *, idempotency_key: str, resuming: bool) -> ToolContext: ...


class Pins:
    """`servers.context.SessionPins` in the session's row: pinned once, for every gateway and every later kernel."""

    def __init__(self, database: Database, session: str, *, customer: int | None, customer_required: bool) -> None:
        self._database = database
        self._session = session
        self.customer = customer
        self.customer_required = customer_required

    async def pin_customer(self, customer_id: int) -> None:
        """Raises ToolDenied when another customer is pinned already."""
        pinned = await self._database.execute(
            "UPDATE session SET customer = %s WHERE id = %s AND (customer IS NULL OR customer = %s)",
            (customer_id, self._session, customer_id),
        )
        if not pinned:
            raise ToolDenied(
                "This conversation is with another customer, who was verified before.",
                hint="Start a new conversation for another customer.",
            )
        self.customer = customer_id


class Contexts:
    """The gateway's `ContextFactory`. The http client and the embedder are the caller's to close."""

    def __init__(
        self, settings: Settings, database: Database, http: httpx.AsyncClient, embedder: Embedder | None = None
    ) -> None:
        self._database = database
        self._http = http
        self._embedder = embedder
        self._shops = {tenant: shop for tenant, one in settings.tenants.items() if (shop := shop_of(one)) is not None}
        self.secrets: Collection[str] = secrets_of(settings)

    async def pins(self, grant: Grant) -> Pins:
        row = await self._database.fetch_one("SELECT customer FROM session WHERE id = %s", (grant.session,))
        customer = row["customer"] if row else None
        return Pins(self._database, grant.session, customer=customer, customer_required=grant.role == "agent")

    def context(self, grant: Grant, pins: SessionPins, *, idempotency_key: str, resuming: bool) -> ToolContext:
        return ToolContext(
            tenant=grant.tenant,
            session=grant.session,
            pins=pins,
            idempotency_key=idempotency_key,
            resuming=resuming,
            http=self._http,
            shop=self._shops.get(grant.tenant),
            database=self._database.tenant(grant.tenant),
            embedder=self._embedder,
        )


def shop_of(tenant: TenantSettings) -> Shop | None:
    """The tenant's store, if it has one."""
    if tenant.shop is None:
        return None
    return Shop(
        url=str(tenant.shop.url),
        consumer_key=tenant.shop.consumer_key.get_secret_value(),
        consumer_secret=tenant.shop.consumer_secret.get_secret_value(),
        timeout_s=tenant.shop.timeout_s,
    )
