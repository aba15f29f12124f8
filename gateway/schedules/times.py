"""When a schedule is due, in its own time zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim


def due_between(cron: str, zone: str, after: datetime, until: datetime, most: int) -> list[datetime]:
    """The first `most` times after `after`, up to and with `until`, in UTC.

    An hour that a zone leaves out moves what is due in it to its end; what is due in an hour that comes twice is once.
    """
    found = []
    for moment in islice(_times(cron, zone, after), most):
        if moment > until:
            break
        found.append(moment)
    return found


def next_due(cron: str, zone: str, after: datetime) -> datetime:
    return next(_times(cron, zone, after))


def _times(cron: str, zone: str, after: datetime) -> Iterator[datetime]:
    for moment in CronSim(cron, after.astimezone(ZoneInfo(zone))):
        yield moment.astimezone(UTC)
