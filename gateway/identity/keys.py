"""API keys in the database: made, listed, rotated, revoked; each change with its entry in the audit.

A key is `omk_<id>_<secret>`. Its secret is 256 random bits, so one SHA-256 is enough to keep: there are too many to
try, whatever a try costs; a slow hash would only let strangers buy the gateway's time.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from gateway.acts import KEY_ROLES, KeyRole
from gateway.db import Database
from gateway.identity.audit import note

PREFIX = "omk_"
_TOKEN = re.compile(r"omk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_LABEL_CHARS = 100
#: Any number that nobody else on this database locks.
_FIRST_LOCK = 0x6F6D6B31

_COLUMNS = "id, tenant, role, label, created, created_by, expires, revoked, last_used"

_INSERT = (
    "INSERT INTO api_key (id, tenant, role, label, created_by, expires) VALUES (%s, %s, %s, %s, %s, %s) RETURNING "
)


class KeyProblem(Exception):
    """A key cannot be made, found or changed. The message is for people."""


@dataclass(frozen=True)
class Key:
    """What may be told of a key. `tenant`: None for all."""

    id: str
    tenant: str | None
    role: KeyRole
    label: str
    created: datetime
    created_by: str
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None

    def ended(self, now: datetime) -> bool:
        return self.revoked is not None or (self.expires is not None and self.expires <= now)


@dataclass(frozen=True)
class NewKey:
    """A key with its text, which is never had again."""

    key: Key
    text: str

    def told(self, url: str) -> tuple[str, ...]:
        """For people who see it for the first time, and the last."""
        return (
            f"  first key  {self.text}",
            "             of role admin, for all tenants. It is shown this once. Try it:",
            f'             curl -H "Authorization: Bearer {self.text}" {url}/v1/status',
            "             Make one for each person and program, then revoke it:",
            "             omniops keys create --tenant TENANT --role analyst --label WHOSE",
            f"             omniops keys revoke {self.key.id}",
        )


@dataclass(frozen=True)
class Known:
    """What a key is held against: itself, and its secrets' digests with their ends."""

    key: Key
    secrets: tuple[tuple[bytes, datetime | None], ...]


def parts_of(token: str) -> tuple[str, bytes] | None:
    """The id and the digest of the secret; None for what is no key."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else (found[1], _digest(found[2]))


class KeyRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, *, role: KeyRole, tenant: str | None, label: str, by: str, expires: datetime | None = None
    ) -> NewKey:
        """A new key. Raises KeyProblem."""
        _check(role, label, expires)
        async with self._database.connection() as connection, connection.transaction():
            return await _insert(connection, role, tenant, label, by, expires)

    async def first(self, label: str, by: str) -> NewKey | None:
        """A key of role admin for all tenants, where there has never been any; else None."""
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_FIRST_LOCK,))
            found = await connection.execute("SELECT 1 FROM api_key LIMIT 1")
            if await found.fetchone() is not None:
                return None
            return await _insert(connection, "admin", None, label, by, None)

    async def list(self, tenant: str | None = None) -> list[Key]:
        """Of one tenant, or all; the newest first, those that count before the others."""
        rows = await self._database.fetch(
            f"SELECT {_COLUMNS} FROM api_key WHERE %(tenant)s::text IS NULL OR tenant = %(tenant)s"  # noqa: S608
            " ORDER BY revoked IS NOT NULL, created DESC, id",
            {"tenant": tenant},
        )
        return [Key(**row) for row in rows]

    async def rotate(self, id: str, *, tenant: str | None, by: str, overlap_s: float) -> NewKey:
        """A new secret for a key; those before end after `overlap_s` seconds, or when they would have. `tenant`: whose
        keys are reached, None for all. Raises KeyProblem."""
        secret = secrets.token_urlsafe(32)
        async with self._database.connection() as connection, connection.transaction():
            key = await _locked(connection, id, tenant)
            if key.ended(datetime.now(UTC)):
                raise KeyProblem(f"Key {id} does not count any more. Make a new one.")
            await connection.execute(
                "UPDATE api_key_secret SET expires = least(expires, now() + %s) WHERE key = %s",
                (timedelta(seconds=overlap_s), id),
            )
            await connection.execute("DELETE FROM api_key_secret WHERE key = %s AND expires <= now()", (id,))
            await connection.execute("INSERT INTO api_key_secret (key, digest) VALUES (%s, %s)", (id, _digest(secret)))
            await note(connection, by, key.tenant or "", "key.rotated", f"{id} ({key.label}), overlap {overlap_s:g} s")
        return NewKey(key, f"{PREFIX}{id}_{secret}")

    async def revoke(self, id: str, *, tenant: str | None, by: str) -> Key:
        """End a key for good, at once. Raises KeyProblem."""
        async with self._database.connection() as connection, connection.transaction():
            key = await _locked(connection, id, tenant)
            if key.revoked is None:
                await connection.execute("UPDATE api_key SET revoked = now() WHERE id = %s", (id,))
                await connection.execute("DELETE FROM api_key_secret WHERE key = %s", (id,))
                await note(connection, by, key.tenant or "", "key.revoked", f"{id} ({key.label})")
            return await _locked(connection, id, tenant)

    async def known(self, id: str) -> Known | None:
        """What a token with this id is held against; None where there is no such key."""
        rows = await self._database.fetch(
            f"SELECT {_COLUMNS}, digest, secret_expires FROM api_key JOIN"  # noqa: S608 - no value in it
            " (SELECT key, digest, expires AS secret_expires FROM api_key_secret) AS secret ON key = id WHERE id = %s",
            (id,),
        )
        if not rows:
            return None
        held = tuple((bytes(row.pop("digest")), row.pop("secret_expires")) for row in rows)
        return Known(Key(**rows[0]), held)

    async def used(self, times: dict[str, datetime]) -> None:
        """Note when keys were used last."""
        await self._database.execute(
            "UPDATE api_key SET last_used = greatest(last_used, used.at)"
            " FROM unnest(%s::text[], %s::timestamptz[]) AS used (id, at) WHERE api_key.id = used.id",
            (list(times), list(times.values())),
        )


async def _insert(
    connection: AsyncConnection[DictRow],
    role: KeyRole,
    tenant: str | None,
    label: str,
    by: str,
    expires: datetime | None,
) -> NewKey:
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    made = await connection.execute(
        (_INSERT + _COLUMNS).encode(),
        (id, tenant, role, label, by, expires),
    )
    row = await made.fetchone()
    assert row is not None
    await connection.execute("INSERT INTO api_key_secret (key, digest) VALUES (%s, %s)", (id, _digest(secret)))
    await note(connection, by, tenant or "", "key.created", f"{id} ({label}), role {role}")
    return NewKey(Key(**row), f"{PREFIX}{id}_{secret}")


async def _locked(connection: AsyncConnection[DictRow], id: str, tenant: str | None) -> Key:
    """Nobody changes it until the transaction ends. Raises KeyProblem, also for one of another tenant."""
    found = await connection.execute(f"SELECT {_COLUMNS} FROM api_key WHERE id = %s FOR UPDATE".encode(), (id,))  # noqa: S608
    row = await found.fetchone()
    if row is None or (tenant is not None and row["tenant"] != tenant):
        raise KeyProblem(f"There is no key {id[:64]!r}. `omniops keys list` shows them.")
    return Key(**row)


def _check(role: str, label: str, expires: datetime | None) -> None:
    if role not in KEY_ROLES:
        raise KeyProblem(f"{role[:64]!r} is no role of keys: {', '.join(KEY_ROLES)}.")
    if not label.strip() or len(label) > _LABEL_CHARS or not label.isprintable():
        raise KeyProblem(f"A key wants a label: 1 to {_LABEL_CHARS} printable characters that say whose it is.")
    if expires is not None and expires <= datetime.now(UTC):
        raise KeyProblem(f"A key that expires at {expires:%Y-%m-%d %H:%M} would never count.")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
