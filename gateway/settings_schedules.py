"""Settings of work that begins by itself."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator, model_validator

from .settings_group import Group


class ScheduleSettings(Group):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$", description="Its name, one per tenant.")
    cron: str = Field(description="When, as cron has it: `15 3 * * *`, `0 8 * * MON-FRI`.")
    zone: str = Field("UTC", description="Time zone of these times, such as Europe/Berlin.")
    tool: str | None = Field(None, description="The tool that is called, such as woocommerce.sync_store.")
    arguments: dict[str, Any] = Field({}, description="Its arguments; for a notebook, variables that its cells get.")
    notebook: Path | None = Field(None, description="Or the notebook (.ipynb) whose cells are run in order.")
    role: Literal["analyst", "operator"] = Field("operator", description="Role of its session.")
    deadline_s: float = Field(21_600.0, gt=0, description="Wall time of one cell.")

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        try:
            next(CronSim(value, datetime.now(UTC)))
        except (CronSimError, StopIteration) as error:
            raise ValueError(f"{value!r} is no time of cron: {error or 'it never comes'}") from error
        return value

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is no time zone; they are named like Europe/Berlin") from error
        return value

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if (self.tool is None) == (self.notebook is None):
            raise ValueError("it wants tool or notebook, one of them")
        if not all(name.isidentifier() for name in self.arguments):
            raise ValueError("arguments are named like variables")
        return self


class SchedulingSettings(Group):
    enabled: bool = Field(True, description="This gateway runs schedules; off where others do.")
    look_s: float = Field(10.0, gt=0, description="Seconds between two looks for what is due.")
    late_s: float = Field(300.0, gt=0, description="What could not begin so long after its time is missed.")
    keep_days: int = Field(90, gt=0, description="Days for which runs are listed.")
