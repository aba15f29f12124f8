"""Export files on this gateway's disk, and their rows: made, found by link, revoked, removed when they expire."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from gateway.db import Database
from gateway.gdpr.bundle import partial_of
from gateway.gdpr.subject import Subject
from gateway.transcripts.store import NAME

log = structlog.get_logger(__name__)

_PIECE = 256 * 1024
_ID_CHARS = 32

_FIND = """
    UPDATE gdpr_export SET uses = uses + 1
    WHERE id = %s AND state = 'ready' AND revoked IS NULL AND expires > now() RETURNING tenant, gateway, bytes, sha256
"""
_OVER = """
    SELECT id, tenant FROM gdpr_export
    WHERE gateway = %(me)s AND state <> 'removed'
      AND (expires <= now() OR revoked IS NOT NULL OR (state = 'writing' AND NOT (id = ANY(%(writing)s))))
"""


@dataclass(frozen=True)
class Found:
    """A file that may be given out."""

    id: str
    tenant: str
    gateway: str
    bytes: int
    sha256: str


class Exports:
    """The files of one gateway. `me`: its id; `root`: where they are."""

    def __init__(self, database: Database, root: Path, me: str) -> None:
        self._database = database
        self._root = root
        self.me = me
        #: Being written by this process.
        self.writing: set[str] = set()

    def path(self, tenant: str, id: str) -> Path:
        """Where a file is. Raises ValueError for what can be no tenant or id."""
        if not NAME.match(tenant) or len(id) != _ID_CHARS or not set(id) <= set("0123456789abcdef"):
            raise ValueError("that names no export")
        return self._root / tenant / f"{id}.zip"

    async def begin(self, id: str, subject: Subject, principal: str, session: str, link_s: float) -> datetime:
        """When it will expire."""
        row = await self._database.fetch_one(
            "INSERT INTO gdpr_export (id, tenant, subject, principal, session, gateway, state, expires)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'writing', now() + make_interval(secs => %s)) RETURNING expires",
            (id, subject.tenant, subject.pseudonyms[0], principal, session, self.me, link_s),
        )
        assert row is not None
        expires: datetime = row["expires"]
        return expires

    async def ready(self, id: str, size: int, sha256: str) -> None:
        """It is in its place."""
        await self._database.execute(
            "UPDATE gdpr_export SET state = 'ready', bytes = %s, sha256 = %s WHERE id = %s", (size, sha256, id)
        )

    async def find(self, id: str, holds: Any) -> Found | None:
        """The file of a link, counted as used; `holds`: says of a tenant whether the link is one of it.

        None: there is none, or it has expired, was revoked or removed, or is another tenant's.
        """
        row = await self._database.fetch_one("SELECT tenant FROM gdpr_export WHERE id = %s", (id,))
        if row is None or not holds(row["tenant"]):
            return None
        found = await self._database.fetch_one(_FIND, (id,))
        return None if found is None else Found(id, **found)

    async def revoke(self, id: str, tenant: str | None) -> str | None:
        """Its link holds no more, and its file goes, here at once. Whose it was; None: there is no such one."""
        row = await self._database.fetch_one(
            "UPDATE gdpr_export SET revoked = coalesce(revoked, now())"
            " WHERE id = %s AND (%s::text IS NULL OR tenant = %s) RETURNING tenant",
            (id, tenant, tenant),
        )
        if row is not None:
            await self.tidy()
        return None if row is None else str(row["tenant"])

    async def remove_of(self, subject: Subject) -> int:
        """Revoke and remove all of a person's; how many there were."""
        rows = await self._database.fetch(
            "UPDATE gdpr_export SET revoked = now() WHERE tenant = %s AND subject = ANY(%s) AND revoked IS NULL"
            " AND state <> 'removed' RETURNING id",
            (subject.tenant, list(subject.pseudonyms)),
        )
        await self.tidy()
        return len(rows)

    async def tidy(self) -> list[str]:
        """Remove the files that have expired or were revoked, and what a killed gateway left half written."""
        rows = await self._database.fetch(_OVER, {"me": self.me, "writing": list(self.writing)})
        for row in rows:
            path = self.path(row["tenant"], row["id"])
            await asyncio.to_thread(_unlink, path)
            await self._database.execute(
                "UPDATE gdpr_export SET state = 'removed', removed = now() WHERE id = %s", (row["id"],)
            )
            log.info("an export file was removed", export=row["id"], tenant=row["tenant"])
        return [row["id"] for row in rows]

    def open(self, found: Found) -> Iterator[bytes]:
        """Its bytes, piece by piece. Blocking. Raises OSError."""
        path = self.path(found.tenant, found.id)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return _pieces(descriptor)


def _pieces(descriptor: int) -> Iterator[bytes]:
    with open(descriptor, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            yield piece


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
    partial_of(path).unlink(missing_ok=True)
