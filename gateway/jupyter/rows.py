"""What Jupyter clients made, in the database."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from gateway.db import Database

SessionType = Literal["notebook", "console", "file"]


class KernelRow(msgspec.Struct, frozen=True):
    """A kernel whose session has not ended."""

    session: str
    tenant: str
    name: str


class AwayRow(KernelRow, frozen=True):
    """A kernel that another gateway has."""

    busy: bool
    used: datetime


class NotebookRow(msgspec.Struct, frozen=True):
    """What Jupyter calls a session: a document, and the kernel that it runs in."""

    id: str
    tenant: str
    kernel: str
    path: str
    name: str
    type: str


_KERNEL = """
    SELECT jupyter_kernel.session, tenant, name FROM jupyter_kernel JOIN session ON id = jupyter_kernel.session
    WHERE state <> 'ended' AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
"""

_NOTEBOOK = """
    SELECT jupyter_session.id, jupyter_session.tenant, kernel, path, name, type
    FROM jupyter_session JOIN session ON session.id = kernel
    WHERE state <> 'ended' AND (%(tenant)s::text IS NULL OR jupyter_session.tenant = %(tenant)s)
"""


_AWAY = """
    SELECT jupyter_kernel.session, tenant, name,
           EXISTS (SELECT FROM cell WHERE cell.session = session.id AND status = 'running') AS busy,
           coalesce((SELECT max(coalesce(cell.ended, cell.started)) FROM cell WHERE cell.session = session.id),
                    session.created) AS used
    FROM jupyter_kernel JOIN session ON session.id = jupyter_kernel.session
    JOIN gateway ON gateway.id = session.gateway
    WHERE state = 'live' AND gateway.id <> %(me)s AND alive_until > now()
      AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
      AND (%(id)s::text IS NULL OR jupyter_kernel.session = %(id)s)
"""


class JupyterRows:
    """The statements. `tenant`: the caller's, None for one that reaches all."""

    def __init__(self, database: Database, me: str = "") -> None:
        """`me`: the gateway."""
        self._database = database
        self._me = me

    async def add_kernel(self, session: str, name: str) -> None:
        await self._database.execute("INSERT INTO jupyter_kernel (session, name) VALUES (%s, %s)", (session, name))

    async def kernel(self, session: str, tenant: str | None) -> KernelRow | None:
        row = await self._database.fetch_one(
            f"{_KERNEL} AND jupyter_kernel.session = %(id)s", {"tenant": tenant, "id": session}
        )
        return None if row is None else msgspec.convert(row, KernelRow)

    async def away(self, tenant: str | None, session: str | None = None) -> list[AwayRow]:
        """Those that other gateways have which live."""
        rows = await self._database.fetch(_AWAY, {"tenant": tenant, "id": session, "me": self._me})
        return [msgspec.convert(row, AwayRow) for row in rows]

    async def live(self) -> list[KernelRow]:
        """Those whose kernels may have outlived the gateway before."""
        rows = await self._database.fetch(f"{_KERNEL} AND state = 'live'", {"tenant": None})
        return [msgspec.convert(row, KernelRow) for row in rows]

    async def add_notebook(self, row: NotebookRow) -> None:
        """One with the same path, of a kernel that has ended, gives way."""
        await self._database.execute(
            "INSERT INTO jupyter_session (id, tenant, kernel, path, name, type) VALUES (%s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (tenant, path) DO UPDATE SET id = excluded.id, kernel = excluded.kernel,"
            " name = excluded.name, type = excluded.type, created = now()",
            (row.id, row.tenant, row.kernel, row.path, row.name, row.type),
        )

    async def notebooks(self, tenant: str | None) -> list[NotebookRow]:
        rows = await self._database.fetch(f"{_NOTEBOOK} ORDER BY jupyter_session.created", {"tenant": tenant})
        return [msgspec.convert(row, NotebookRow) for row in rows]

    async def notebook(
        self, tenant: str | None, *, id: str | None = None, path: str | None = None
    ) -> NotebookRow | None:
        """By its id or its path."""
        row = await self._database.fetch_one(
            f"{_NOTEBOOK} AND (jupyter_session.id = %(id)s OR path = %(path)s)",
            {"tenant": tenant, "id": id, "path": path},
        )
        return None if row is None else msgspec.convert(row, NotebookRow)

    async def change_notebook(self, row: NotebookRow) -> None:
        await self._database.execute(
            "UPDATE jupyter_session SET kernel = %s, path = %s, name = %s, type = %s WHERE id = %s",
            (row.kernel, row.path, row.name, row.type, row.id),
        )

    async def remove_notebook(self, id: str) -> None:
        await self._database.execute("DELETE FROM jupyter_session WHERE id = %s", (id,))
