"""A gateway's schedules, from its settings."""

from __future__ import annotations

from functools import partial

from gateway.db import Database
from gateway.sessions import Sessions
from gateway.settings import Settings

from .keeper import Schedules
from .rows import ScheduleRows
from .work import run_schedule


def schedules_of(settings: Settings, database: Database, sessions: Sessions, gateway: str) -> Schedules:
    """`gateway`: the id of this one."""
    configured = {name: tenant.schedules for name, tenant in settings.tenants.items()}
    run = partial(run_schedule, sessions)
    return Schedules(ScheduleRows(database), settings.scheduling, configured, gateway=gateway, run=run)
