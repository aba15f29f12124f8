"""The ledger: what each tenant's workloads cost the model, and what the traditional way would have cost.

Chat is counted turn by turn as it goes (`gateway.agent.counterfactual`), tokens on both sides by the same rules. Long
work is reckoned from its bytes: what single calls would have put before a model, read once, against its report.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from gateway.db import Database
from gateway.settings import ModelSettings, SavingsSettings

_TURNS = """
SELECT session.tenant AS tenant, 'chat' AS workload, count(*)::bigint AS runs,
       coalesce(sum((usage->'usage'->>'input')::bigint), 0)::bigint AS input,
       coalesce(sum((usage->'usage'->>'cached')::bigint), 0)::bigint AS cached,
       coalesce(sum((usage->'usage'->>'output')::bigint), 0)::bigint AS output,
       coalesce(sum((usage->'direct_usage'->>'input')::bigint), 0)::bigint AS direct_input,
       coalesce(sum((usage->'direct_usage'->>'cached')::bigint), 0)::bigint AS direct_cached,
       coalesce(sum((usage->'direct_usage'->>'output')::bigint), 0)::bigint AS direct_output
FROM turn JOIN session ON session.id = turn.session
WHERE turn.ended >= %(since)s AND (%(tenant)s::text IS NULL OR session.tenant = %(tenant)s)
GROUP BY session.tenant
"""
_WORK = """
SELECT tenant, workload, count(*)::bigint AS runs,
       (sum(report_bytes) / %(bytes)s)::bigint AS input, 0::bigint AS cached, 0::bigint AS output,
       (sum(direct_bytes) / %(bytes)s)::bigint AS direct_input, 0::bigint AS direct_cached, 0::bigint AS direct_output
FROM work_run
WHERE started >= %(since)s AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
GROUP BY tenant, workload
"""
_ALL = f"SELECT * FROM ({_TURNS} UNION ALL {_WORK}) AS each ORDER BY tenant, workload"  # noqa: S608


class Saving(msgspec.Struct, frozen=True):
    """One workload of one tenant. Money in the ledger's currency, with prompt caching and without it."""

    tenant: str
    workload: str
    runs: int
    tokens: int
    direct_tokens: int
    cost: float
    direct_cost: float
    cost_uncached: float
    direct_cost_uncached: float

    @property
    def saved(self) -> float:
        """Negative where the traditional way would have cost less."""
        return self.direct_cost - self.cost


class Savings:
    def __init__(self, database: Database, settings: SavingsSettings, model: ModelSettings) -> None:
        self._database = database
        self._settings = settings
        self._input = model.price_input if settings.price_input is None else settings.price_input
        self._cached = model.price_cached if settings.price_cached is None else settings.price_cached
        self._output = model.price_output if settings.price_output is None else settings.price_output

    @property
    def currency(self) -> str:
        return self._settings.currency

    async def list(self, tenant: str | None, since: datetime) -> tuple[Saving, ...]:
        """By tenant and workload, of what ended (work: began) at this time or after."""
        asked = {"tenant": tenant, "since": since, "bytes": self._settings.bytes_per_token}
        return tuple(self._saving(row) for row in await self._database.fetch(_ALL, asked))

    async def day(self) -> tuple[Saving, ...]:
        """Those of the last 24 hours."""
        return await self.list(None, datetime.now(UTC) - timedelta(days=1))

    def _saving(self, row: dict[str, Any]) -> Saving:
        def cost(prefix: str, *, caching: bool) -> float:
            entering, cached, leaving = (row[f"{prefix}{kind}"] for kind in ("input", "cached", "output"))
            cached = cached if caching else 0
            dollars = (entering - cached) * self._input + cached * self._cached + leaving * self._output
            return float(round(dollars / 1_000_000 * self._settings.per_dollar, 6))

        return Saving(
            tenant=row["tenant"],
            workload=row["workload"],
            runs=row["runs"],
            tokens=row["input"] + row["output"],
            direct_tokens=row["direct_input"] + row["direct_output"],
            cost=cost("", caching=True),
            direct_cost=cost("direct_", caching=True),
            cost_uncached=cost("", caching=False),
            direct_cost_uncached=cost("direct_", caching=False),
        )
