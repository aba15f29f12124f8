"""Schedules in the database: who puts a due time in has claimed it, so that of several gateways one runs it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from gateway.db import Database

#: Of the gateway of a run that goes on: whether it is heard of.
_ALIVE = "EXISTS (SELECT FROM gateway WHERE gateway.id = r.gateway AND alive_until > now())"
_LIST = f"""
SELECT r.tenant, r.name, r.due, r.session, r.started, r.ended,
       CASE WHEN r.state = 'running' AND NOT {_ALIVE} THEN 'lost' ELSE r.state END AS state
FROM schedule_run AS r WHERE (%(tenant)s::text IS NULL OR r.tenant = %(tenant)s)
ORDER BY r.due DESC, r.tenant, r.name LIMIT %(limit)s
"""  # noqa: S608 - nothing but the text above
_RUNS = f"SELECT FROM schedule_run AS r WHERE r.tenant = %s AND r.name = %s AND r.state = 'running' AND {_ALIVE}"
_KNOW = """
INSERT INTO schedule (tenant, name, rule, since) VALUES (%(tenant)s, %(name)s, %(rule)s, %(now)s)
ON CONFLICT (tenant, name) DO UPDATE SET
    since = CASE WHEN schedule.rule = excluded.rule THEN schedule.since ELSE excluded.since END, rule = excluded.rule
RETURNING greatest(since, (SELECT max(due) FROM schedule_run WHERE tenant = %(tenant)s AND name = %(name)s)) AS after
"""
_CLAIM = """
INSERT INTO schedule_run (tenant, name, due, state, gateway, started) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING RETURNING due
"""


class ScheduleRun(msgspec.Struct, frozen=True):
    """One time that a schedule was due. `lost`: its gateway was killed while it ran."""

    tenant: str
    name: str
    due: datetime
    state: str
    session: str
    started: datetime | None
    ended: datetime | None


class ScheduleRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def after(self, tenant: str, name: str, rule: str, now: datetime) -> datetime:
        """From when on due times are open: the last that is known, or since when the schedule has this rule."""
        given = {"tenant": tenant, "name": name, "rule": rule, "now": now}
        row = await self._database.fetch_one(_KNOW, given)
        assert row is not None
        after: datetime = row["after"]
        return after

    async def claim(self, tenant: str, name: str, due: datetime, *, state: str, gateway: str, now: datetime) -> bool:
        """Put it in; False where another gateway has."""
        started = now if state == "running" else None
        return await self._database.fetch_one(_CLAIM, (tenant, name, due, state, gateway, started)) is not None

    async def runs(self, tenant: str, name: str) -> bool:
        """Whether an earlier one still goes on somewhere."""
        return await self._database.fetch_one(_RUNS, (tenant, name)) is not None

    async def told(self, run: tuple[str, str, datetime], *, session: str = "", state: str = "", now: datetime) -> None:
        """What became of a run: its session, and how it ended."""
        await self._database.execute(
            "UPDATE schedule_run SET session = coalesce(nullif(%s, ''), session),"
            " state = coalesce(nullif(%s, ''), state), ended = CASE WHEN %s = '' THEN ended ELSE %s END"
            " WHERE tenant = %s AND name = %s AND due = %s",
            (session, state, state, now, *run),
        )

    async def list(self, tenant: str | None, limit: int) -> tuple[ScheduleRun, ...]:
        rows = await self._database.fetch(_LIST, {"tenant": tenant, "limit": limit})
        return tuple(msgspec.convert(row, ScheduleRun) for row in rows)

    async def forget(self, days: int) -> None:
        await self._database.execute("DELETE FROM schedule_run WHERE due < now() - make_interval(days => %s)", (days,))
