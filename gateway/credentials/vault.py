"""The opened credentials, in memory, for those who make tools' surroundings. Every value that it gives is known to the
scrubber first.

A setting may name a credential in place of a value: `secret://woocommerce_secret` is the one of that name of the very
tenant whose setting it is. There is no way to write down another tenant's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from psycopg import Error as PsycopgError

from gateway.settings import CredentialSettings

from .keys import Keys, KeysError
from .known import REFERENCE, Secrets
from .sealing import Keyring, SealError
from .store import NAME, CredentialRows, Entry

log = structlog.get_logger(__name__)


class CredentialMissing(Exception):
    """A credential that a setting or tool wants is not there or does not open."""


@dataclass(frozen=True)
class _Opened:
    values: Mapping[str, str]
    #: Those that do not open, and why.
    broken: Mapping[str, str]
    at: float


class Vault:
    """Tenants' credentials. Opened ones are kept for `refresh_s`; what this gateway changes counts at once."""

    def __init__(self, rows: CredentialRows, keys: Keys, settings: CredentialSettings, known: Secrets) -> None:
        """`known`: what the scrubber takes out; every opened value is added to it."""
        self._rows = rows
        self._keys = keys
        self._refresh_s = settings.refresh_s
        self._known = known
        self._ring: Keyring | None = None
        self._opened: dict[str, _Opened] = {}

    async def open(self) -> None:
        """Open everything once, so that the scrubber knows it before anything is said.

        Raises:
            KeysError
        """
        self._ring = self._keys.load()
        by_tenant: dict[str, None] = {row.tenant: None for row in await self._rows.rows()}
        for tenant in by_tenant:
            opened = await self._load(tenant)
            for problem in opened.broken.values():
                log.error("a credential cannot be opened", tenant=tenant, problem=problem)

    async def values(self, tenant: str) -> Mapping[str, str]:
        """The tenant's credentials by name; those that do not open are left out."""
        return (await self._of(tenant)).values

    async def problems(self, tenant: str) -> Mapping[str, str]:
        """Each credential by name, with why it does not open, "" where it does."""
        opened = await self._of(tenant)
        return {**dict.fromkeys(opened.values, ""), **opened.broken}

    async def value(self, tenant: str, name: str) -> str:
        """
        Raises:
            CredentialMissing
        """
        opened = await self._of(tenant)
        if name in opened.broken:
            raise CredentialMissing(opened.broken[name])
        if name not in opened.values:
            raise CredentialMissing(
                f"Tenant {tenant!r} has no credential {name!r}. Set it: omniops credentials set {tenant} {name}"
            )
        return opened.values[name]

    async def resolve(self, tenant: str, setting: str) -> str:
        """A setting's value, or the tenant's credential that it refers to.

        Raises:
            CredentialMissing
        """
        name = reference_of(setting)
        return setting if name is None else await self.value(tenant, name)

    async def put(self, tenant: str, name: str, value: str, principal: str) -> None:
        """Raises BadCredential, KeysError."""
        self._known.add([value])
        # What another gateway has rotated away must not seal anything any more: look at the keys again.
        await self._rows.put(self._reload(), tenant, name, value, principal)
        self._opened.pop(tenant, None)

    async def delete(self, tenant: str, name: str, principal: str) -> bool:
        """Whether there was one. Its value stays known to the scrubber."""
        try:
            return await self._rows.delete(tenant, name, principal)
        finally:
            self._opened.pop(tenant, None)

    async def entries(self, tenant: str) -> list[Entry]:
        return await self._rows.entries(tenant)

    async def rotate(self, principal: str) -> tuple[int, str]:
        """Seal everything with a new key: how many there were, and the key's id. Keys in the settings are the
        operator's to change: then everything is sealed with the first of them.

        Killed at any point, it leaves every credential open to the keys that are kept.

        Raises:
            KeysError, SealError
        """
        ring = self._reload() if self._keys.in_settings else self._keys.add()
        self._ring = ring
        count = await self._rows.reseal(ring, principal)
        if not self._keys.in_settings:
            self._ring = self._keys.keep(ring)
        self._opened.clear()
        return count, ring.newest

    async def _of(self, tenant: str) -> _Opened:
        found = self._opened.get(tenant)
        if found is not None and time.monotonic() - found.at < self._refresh_s:
            return found
        try:
            return await self._load(tenant)
        except PsycopgError:
            if found is None:
                raise
            return found  # the database is away for a moment; what was true still is, as far as anybody knows

    async def _load(self, tenant: str) -> _Opened:
        begun = time.monotonic()
        ring = self._ring or self._reload()
        values: dict[str, str] = {}
        broken: dict[str, str] = {}
        for row in await self._rows.rows(tenant):
            if row.sealed.key_id not in ring.ids:
                ring = self._reload()
            try:
                values[row.name] = ring.open(tenant, row.name, row.sealed)
            except SealError as error:
                broken[row.name] = str(error)
        self._known.add(values.values())
        opened = self._opened[tenant] = _Opened(values, broken, begun)
        return opened

    def _reload(self) -> Keyring:
        try:
            self._ring = self._keys.load()
        except KeysError:
            if self._ring is None:
                raise
            log.warning("the keys of the credentials cannot be read again; the ones in memory are used")
        return self._ring


def reference_of(setting: str) -> str | None:
    """The name of the credential that a setting refers to, or None for a plain value."""
    if not setting.startswith(REFERENCE):
        return None
    name = setting.removeprefix(REFERENCE)
    if not NAME.fullmatch(name):
        raise CredentialMissing(f"{setting[:80]!r} is no reference: {REFERENCE} and the name of a credential.")
    return name
