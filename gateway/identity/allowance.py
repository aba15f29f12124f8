"""What a tenant may use in a day: cells, and money for the model and for tools.

Gateways on one database count together: what the database has is looked up now and then, and what this gateway begins
in between is added. A day is one of UTC.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from gateway.db import Database
from gateway.session_errors import QuotaUsedUp
from gateway.settings import Settings

log = structlog.get_logger(__name__)

_USED = """
    SELECT tenant, sum(cells)::bigint AS cells, sum(dollars)::float8 AS dollars FROM (
        SELECT session.tenant, count(*) AS cells, 0 AS dollars FROM cell JOIN session ON session.id = cell.session
        WHERE cell.started >= %(since)s GROUP BY 1
        UNION ALL
        SELECT tenant, 0, sum(cost) FROM call WHERE started >= %(since)s GROUP BY 1
        UNION ALL
        SELECT session.tenant, 0, sum((turn.usage ->> 'dollars')::float8) FROM turn
        JOIN session ON session.id = turn.session WHERE turn.started >= %(since)s GROUP BY 1
    ) AS used WHERE tenant = ANY(%(tenants)s) GROUP BY tenant
"""


@dataclass(frozen=True)
class _Most:
    cells: int | None
    dollars: float | None


class Allowance:
    """Belongs to one event loop. `run` it, where there is anything to count."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._every_s = settings.limits.count_s
        most = {
            name: _Most(
                settings.limits.cells_per_day if tenant.cells_per_day is None else tenant.cells_per_day,
                settings.limits.dollars_per_day if tenant.dollars_per_day is None else tenant.dollars_per_day,
            )
            for name, tenant in settings.tenants.items()
        }
        self._most = {name: each for name, each in most.items() if each != _Most(None, None)}
        self._day: date | None = None
        self._cells: Counter[str] = Counter()
        self._dollars: dict[str, float] = {}
        #: Begun here since the last look.
        self._begun: Counter[str] = Counter()

    def check(self, tenant: str) -> None:
        """Before what costs money. Raises QuotaUsedUp."""
        most = self._most.get(tenant)
        if most is None:
            return
        self._today()
        if most.dollars is not None and self._dollars.get(tenant, 0.0) >= most.dollars:
            raise QuotaUsedUp(tenant, "money", "dollars_per_day")
        if most.cells is not None and self._cells[tenant] + self._begun[tenant] >= most.cells:
            raise QuotaUsedUp(tenant, "cells", "cells_per_day")

    def begin(self, tenant: str) -> None:
        """Count a cell that is about to run. Raises QuotaUsedUp."""
        self.check(tenant)
        if tenant in self._most:
            self._begun[tenant] += 1

    async def look(self) -> None:
        """See what was used today, at all gateways."""
        if not self._most:
            return
        self._today()
        since = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        begun = self._begun.copy()
        rows = await self._database.fetch(_USED, {"since": since, "tenants": list(self._most)})
        self._cells = Counter({row["tenant"]: int(row["cells"]) for row in rows})
        self._dollars = {row["tenant"]: float(row["dollars"] or 0) for row in rows}
        self._begun -= begun  # those are in the database, or never came to be

    async def run(self) -> None:
        """For ever: look."""
        while self._most:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except (psycopg.Error, PoolTimeout) as error:
                log.warning("what tenants have used today cannot be read", error=str(error))

    def _today(self) -> None:
        today = datetime.now(UTC).date()
        if self._day != today:
            self._day = today
            self._cells.clear()
            self._dollars.clear()
            self._begun.clear()
