"""Whether a tenant's upstreams can be reached with its credentials: each is asked for something small."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

from gateway.broker.contexts import Contexts
from gateway.credentials.vault import CredentialMissing
from servers.errors import ToolError
from servers.supabase.check import Finding, check
from servers.woocommerce.client import Store


async def check_tenant(contexts: Contexts, tenant: str) -> AsyncIterator[Finding]:
    """One finding after another: the credentials, the store, the tenant's own tables."""
    async for finding in _credentials(contexts, tenant):
        yield finding
    try:
        shop = await contexts.shop(tenant)
        if shop is None:
            yield Finding("shop", "absent", f"tenants.{tenant}.shop is not set.")
        else:
            await Store(shop, contexts.http).get("products", {"per_page": 1})
            yield Finding("shop", "works", f"{shop.url} takes the keys.")
    except CredentialMissing as error:
        yield Finding("shop", "fails", str(error))
    except ToolError as error:
        yield Finding("shop", "fails", f"{error.message} {error.hint}".strip())
    try:
        project = await contexts.supabase(tenant)
    except CredentialMissing as error:
        yield Finding("supabase", "fails", str(error))
        return
    if project is None:
        yield Finding("supabase", "absent", f"tenants.{tenant}.supabase is not set.")
        return
    async for finding in check(contexts.for_check(tenant, project, secrets.token_hex(8))):
        yield finding


async def _credentials(contexts: Contexts, tenant: str) -> AsyncIterator[Finding]:
    for name, problem in (await contexts.credentials(tenant)).items():
        yield Finding(f"credential {name}", "fails" if problem else "works", problem or "It opens.")
