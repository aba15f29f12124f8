"""What a tool gets beside its arguments: the tenant's store and rows, the session's pins. Made here only."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import httpx
from pydantic import SecretStr

from gateway.credentials.known import REFERENCE, Secrets
from gateway.credentials.vault import CredentialMissing, Vault, reference_of
from gateway.db import Database
from gateway.settings import Settings, ShopSettings
from gateway.types import Grant
from servers.context import Embedder, SessionPins, Shop, SyncLimits, ToolContext
from servers.errors import ToolDenied, ToolError, UpstreamError
from servers.gdpr.office import DataProtection
from servers.scraping.rules import Endpoint, Rules
from servers.supabase.connections import Connections
from servers.supabase.project import SupabaseProject
from servers.tool import Tool

from .scrub import secrets_of

Upstream = TypeVar("Upstream")


class ContextFactory(Protocol):
    """Makes the surroundings of calls."""

    #: Every secret that a context may hold, for scrubbers; it grows as credentials are set.
    secrets: Secrets

    async def pins(self, grant: Grant) -> SessionPins:
        """Asked once per session."""
        ...

    async def context(
        self, grant: Grant, pins: SessionPins, tool: Tool, *, idempotency_key: str, resuming: bool
    ) -> ToolContext:
        """
        Raises:
            ToolDenied: a credential that the tool needs is not set.
        """
        ...


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
    """The gateway's `ContextFactory`. What it is given is the caller's to close."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        http: httpx.AsyncClient,
        embedder: Embedder | None = None,
        vault: Vault | None = None,
        secrets: Secrets | None = None,
    ) -> None:
        """`secrets`: what the vault adds to. None: this gateway has no credentials but those of its settings."""
        self._database = database
        self.http = http
        self._embedder = embedder
        self._vault = vault
        self._tenants = settings.tenants
        self._connections = Connections()
        #: What is kept of people, for one call under this key; None: nobody gives it out here.
        self.data_protection: Callable[[Grant, str], DataProtection] | None = None
        self.secrets = Secrets() if secrets is None else secrets
        self.secrets.add(secrets_of(settings))

    async def pins(self, grant: Grant) -> Pins:
        row = await self._database.fetch_one("SELECT customer FROM session WHERE id = %s", (grant.session,))
        customer = row["customer"] if row else None
        return Pins(self._database, grant.session, customer=customer, customer_required=grant.role == "agent")

    async def context(
        self, grant: Grant, pins: SessionPins, tool: Tool, *, idempotency_key: str, resuming: bool
    ) -> ToolContext:
        # An earlier attempt may have reached the upstream: that it cannot be asked now is no refusal of that.
        refusal = UpstreamError if resuming else ToolDenied
        unusable: dict[str, ToolError] = {}

        async def usable(name: str, found: Awaitable[Upstream]) -> Upstream | None:
            try:
                return await found
            except CredentialMissing as error:  # a matter of the tools alone that ask for it
                unusable[name] = refusal(str(error), tool=tool.qualified_name)
                return None

        configured = self._tenants.get(grant.tenant)
        has_shop = configured is not None and configured.shop is not None
        has_tables = configured is not None and configured.supabase is not None
        try:
            return ToolContext(
                tenant=grant.tenant,
                session=grant.session,
                pins=pins,
                idempotency_key=idempotency_key,
                resuming=resuming,
                http=self.http,
                shop=await usable("shop", self.shop(grant.tenant)) if has_shop else None,
                database=self._database.tenant(grant.tenant),
                embedder=self._embedder,
                supabase=await usable("supabase", self.supabase(grant.tenant)) if has_tables else None,
                scraping=await self._scraping(grant.tenant, tool),
                data_protection=self._data_protection(grant, tool, idempotency_key),
                unusable=unusable,
                credentials=await self._credentials(grant.tenant, tool.credentials) if tool.credentials else {},
            )
        except CredentialMissing as error:
            raise refusal(str(error), tool=tool.qualified_name) from None

    def _data_protection(self, grant: Grant, tool: Tool, key: str) -> DataProtection | None:
        """For the tools of `gdpr` and no others: nobody else's code reaches all that is kept of a tenant's people."""
        if self.data_protection is None or tool.server != "gdpr" or grant.role != "operator":
            return None
        return self.data_protection(grant, key)

    async def shop(self, tenant: str) -> Shop | None:
        """The tenant's store, if it has one.

        Raises:
            CredentialMissing: a setting of it refers to one.
        """
        configured = self._tenants.get(tenant)
        shop = configured.shop if configured else None
        return None if shop is None else await self._shop(tenant, shop)

    async def _shop(self, tenant: str, shop: ShopSettings) -> Shop:
        key, secret = await self._value(tenant, shop.consumer_key), await self._value(tenant, shop.consumer_secret)
        # the pair as Basic authentication sends it
        self.secrets.add([base64.b64encode(f"{key}:{secret}".encode()).decode()])
        return Shop(
            url=str(shop.url),
            consumer_key=key,
            consumer_secret=secret,
            timeout_s=shop.timeout_s,
            in_flight=shop.in_flight,
            requests_per_s=shop.requests_per_s,
            webhook_secret=await self._value(tenant, shop.webhook_secret),
            sync=SyncLimits(**shop.sync.model_dump()),
        )

    async def _scraping(self, tenant: str, tool: Tool) -> Rules:
        """What the tenant's crawls may do; of others' tools nothing is looked up.

        Raises:
            CredentialMissing: a setting of it refers to one.
        """
        configured = self._tenants.get(tenant)
        if configured is None or tool.server != "scraping":
            return Rules()
        settings = configured.scraping
        endpoint = settings.endpoint
        limits = settings.model_dump(exclude={"endpoint", "page_mb"})
        if endpoint is None:
            found = None
        else:
            asked = endpoint.model_dump(exclude={"url", "key"})
            found = Endpoint(url=str(endpoint.url), key=await self._value(tenant, endpoint.key), **asked)
        return Rules(page_bytes=int(settings.page_mb * 1024 * 1024), endpoint=found, **limits)

    async def supabase(self, tenant: str) -> SupabaseProject | None:
        """The tenant's own tables, if it has any.

        Raises:
            CredentialMissing: a setting of it refers to one.
        """
        configured = self._tenants.get(tenant)
        project = configured.supabase if configured else None
        if project is None:
            return None
        subject = {"sub": project.subject} if project.subject else {}
        return SupabaseProject(
            tenant=tenant,
            connections=self._connections,
            database_url=await self._value(tenant, project.database_url),
            url=str(project.url or ""),
            key=await self._value(tenant, project.key),
            jwt_secret=await self._value(tenant, project.jwt_secret),
            role=project.role,
            claims={**project.claims, **subject},
            schemas=project.schemas,
            open_tables=project.open_tables,
            customer_may=project.customer_may,
            write_functions=project.write_functions,
            match_function=project.match_function,
            statement_timeout_s=project.statement_timeout_s,
            in_flight=project.in_flight,
            result_mb=project.result_mb,
            batch_rows=project.batch_rows,
        )

    async def credentials(self, tenant: str) -> Mapping[str, str]:
        """The tenant's credentials by name, each with what is wrong with it, "" for nothing."""
        return {} if self._vault is None else await self._vault.problems(tenant)

    def for_check(self, tenant: str, project: SupabaseProject, key: str) -> ToolContext:
        """What a look at the tenant's tables gets: no session's, and without pins."""
        pins = Pins(self._database, "", customer=None, customer_required=False)
        return ToolContext(tenant, "", pins, key, False, self.http, supabase=project)

    async def close(self) -> None:
        """Close the connections to tenants' projects."""
        await self._connections.close()

    async def _credentials(self, tenant: str, names: tuple[str, ...]) -> Mapping[str, str]:
        return {name: await self._value(tenant, SecretStr(REFERENCE + name)) for name in names}

    async def _value(self, tenant: str, setting: SecretStr | None) -> str:
        """ "" for no setting."""
        plain = setting.get_secret_value() if setting else ""
        name = reference_of(plain)
        if name is None:
            return plain
        if self._vault is None:
            raise CredentialMissing(f"This gateway keeps no credentials, so there is none named {name!r}.")
        return await self._vault.value(tenant, name)
