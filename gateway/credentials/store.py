"""Credentials in the database, each change with its entry in the book of administration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from gateway.db import Database
from gateway.identity.audit import note

from .sealing import Keyring, Sealed

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
#: A private key in PEM has about 3,000 characters.
LONGEST_VALUE = 16_384
#: Shorter ones cannot be taken out of results without hurting ordinary words.
SHORTEST_VALUE = 6


class BadCredential(Exception):
    """A name or a value cannot be one. The message does not quote the value."""


@dataclass(frozen=True)
class Entry:
    """What may be told of a credential."""

    tenant: str
    name: str
    key_id: str
    changed: datetime
    changed_by: str


@dataclass(frozen=True)
class Row:
    """A credential as it is kept."""

    tenant: str
    name: str
    sealed: Sealed


class CredentialRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, ring: Keyring, tenant: str, name: str, value: str, principal: str) -> None:
        """Keep `value`, over the one of before.

        Raises:
            BadCredential
        """
        check_name(name)
        check_value(name, value)
        sealed = ring.seal(tenant, name, value)
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO credential (tenant, name, format, key_id, sealed, changed_by)"
                " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (tenant, name) DO UPDATE SET"
                " format = excluded.format, key_id = excluded.key_id, sealed = excluded.sealed,"
                " changed = now(), changed_by = excluded.changed_by",
                (tenant, name, sealed.format, sealed.key_id, sealed.data, principal),
            )
            await note(connection, principal, tenant, "credential.set", name)

    async def delete(self, tenant: str, name: str, principal: str) -> bool:
        """Whether there was one."""
        async with self._database.connection() as connection, connection.transaction():
            gone = await connection.execute("DELETE FROM credential WHERE tenant = %s AND name = %s", (tenant, name))
            if gone.rowcount:
                await note(connection, principal, tenant, "credential.deleted", name)
        return bool(gone.rowcount)

    async def entries(self, tenant: str) -> list[Entry]:
        """By name, without values."""
        rows = await self._database.fetch(
            "SELECT tenant, name, key_id, changed, changed_by FROM credential WHERE tenant = %s ORDER BY name",
            (tenant,),
        )
        return [Entry(**row) for row in rows]

    async def rows(self, tenant: str | None = None) -> list[Row]:
        """Of one tenant, or of all."""
        rows = await self._database.fetch(
            "SELECT tenant, name, format, key_id, sealed FROM credential"
            " WHERE %(tenant)s::text IS NULL OR tenant = %(tenant)s ORDER BY tenant, name",
            {"tenant": tenant},
        )
        return [_row(row) for row in rows]

    async def reseal(self, ring: Keyring, principal: str) -> int:
        """Seal everything with the ring's newest key; how many were sealed anew. All of them, or after an error none.

        Raises:
            SealError: one does not open.
        """
        async with self._database.connection() as connection, connection.transaction():
            # nobody sets or changes one meanwhile
            await connection.execute("LOCK TABLE credential IN SHARE ROW EXCLUSIVE MODE")
            found = await connection.execute(
                "SELECT tenant, name, format, key_id, sealed FROM credential WHERE key_id <> %s", (ring.newest,)
            )
            old = [_row(row) for row in await found.fetchall()]
            for row in old:
                sealed = ring.seal(row.tenant, row.name, ring.open(row.tenant, row.name, row.sealed))
                await connection.execute(
                    "UPDATE credential SET format = %s, key_id = %s, sealed = %s WHERE tenant = %s AND name = %s",
                    (sealed.format, sealed.key_id, sealed.data, row.tenant, row.name),
                )
            await note(connection, principal, "", "credential.key_rotated", ring.newest)
        return len(old)


def check_name(name: str) -> None:
    """Raises BadCredential."""
    if not NAME.fullmatch(name):
        raise BadCredential(
            f"{name[:64]!r} cannot name a credential: letters a-z, digits and _, a letter first, 63 at most."
        )


def check_value(name: str, value: str) -> None:
    """Raises BadCredential."""
    if not SHORTEST_VALUE <= len(value) <= LONGEST_VALUE:
        raise BadCredential(
            f"The value of {name} has {len(value):,} characters; it takes {SHORTEST_VALUE} to {LONGEST_VALUE:,}."
        )
    if value != value.strip() or "\0" in value:
        raise BadCredential(f"The value of {name} begins or ends with white space, or holds a NUL.")
    if any(not c.isprintable() and c not in "\n\t" for c in value):
        raise BadCredential(f"The value of {name} holds control characters.")


def _row(row: dict[str, object]) -> Row:
    sealed = Sealed(int(str(row["format"])), str(row["key_id"]), bytes(row["sealed"]))  # type: ignore[call-overload]
    return Row(str(row["tenant"]), str(row["name"]), sealed)
