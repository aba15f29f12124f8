"""Looks for what is due and runs it: each due time once, whichever gateways look."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from gateway.saving import PASSING
from gateway.settings import ScheduleSettings, SchedulingSettings

from .rows import ScheduleRows, ScheduleRun
from .times import due_between, next_due
from .work import Began

log = structlog.get_logger(__name__)

#: Runs one and says how it ended.
Run = Callable[[str, ScheduleSettings, Began], Awaitable[str]]

#: Due times of one schedule that one look deals with.
_AT_ONCE = 100
_FORGET_S = 3600.0


@dataclass(frozen=True)
class Upcoming:
    """A schedule as it is configured, and when it is next due (UTC)."""

    tenant: str
    schedule: ScheduleSettings
    due: datetime


class Schedules:
    """One gateway's. Its methods belong to one event loop."""

    def __init__(
        self,
        rows: ScheduleRows,
        settings: SchedulingSettings,
        schedules: Mapping[str, Sequence[ScheduleSettings]],
        *,
        gateway: str,
        run: Run,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`schedules`: by tenant; `gateway`: this one's id; `run` runs one."""
        self._rows = rows
        self._settings = settings
        self._schedules = [(tenant, each) for tenant, of in schedules.items() for each in of]
        self._gateway = gateway
        self._run = run
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def upcoming(self, tenant: str | None = None) -> list[Upcoming]:
        """What is configured, of one tenant or of all."""
        now = self._clock()
        return [
            Upcoming(name, each, next_due(each.cron, each.zone, now))
            for name, each in self._schedules
            if tenant in (None, name)
        ]

    async def runs(self, tenant: str | None, limit: int) -> tuple[ScheduleRun, ...]:
        """What was due, the latest first."""
        return await self._rows.list(tenant, limit)

    async def keep(self) -> None:
        """For ever: look for what is due."""
        forgot = 0.0
        while self._schedules and self._settings.enabled:
            try:
                await self.look()
                if (now := asyncio.get_running_loop().time()) - forgot > _FORGET_S:
                    await self._rows.forget(self._settings.keep_days)
                    forgot = now
            except PASSING as error:
                log.warning("schedules cannot be looked at, at present", error=str(error))
            await asyncio.sleep(self._settings.look_s)

    async def look(self) -> None:
        """Begin what is due now, and say what was missed."""
        for tenant, schedule in self._schedules:
            await self._look_at(tenant, schedule)

    async def settled(self) -> None:
        """Wait for the runs that this gateway has begun."""
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look_at(self, tenant: str, schedule: ScheduleSettings) -> None:
        now = self._clock()
        after = await self._rows.after(tenant, schedule.name, f"{schedule.cron} {schedule.zone}", now)
        for due in due_between(schedule.cron, schedule.zone, after, now, _AT_ONCE):
            state = "running"
            if now - due > timedelta(seconds=self._settings.late_s):
                state = "missed"
            elif await self._rows.runs(tenant, schedule.name):
                state = "skipped"
            mine = await self._rows.claim(
                tenant, schedule.name, due, state=state, gateway=self._gateway, now=self._clock()
            )
            if not mine:
                continue
            if state == "running":
                task = asyncio.create_task(self._one(tenant, schedule, due))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                log.warning(f"a scheduled run was {state}", tenant=tenant, schedule=schedule.name, due=due.isoformat())

    async def _one(self, tenant: str, schedule: ScheduleSettings, due: datetime) -> None:
        key = (tenant, schedule.name, due)

        async def began(session: str) -> None:
            await self._rows.told(key, session=session, now=self._clock())

        state = "stopped"
        try:
            state = await self._run(tenant, schedule, began)
        except asyncio.CancelledError:
            log.warning("a scheduled run was stopped with its gateway", tenant=tenant, schedule=schedule.name)
            raise
        except Exception as error:  # noqa: BLE001 - the boundary of a task that nobody waits for
            state = "failed"
            log.error("a scheduled run failed", tenant=tenant, schedule=schedule.name, error=str(error))
        finally:
            try:
                await asyncio.shield(self._rows.told(key, state=state, now=self._clock()))
            except PASSING as error:
                log.error("a scheduled run cannot be entered", schedule=schedule.name, state=state, error=str(error))
