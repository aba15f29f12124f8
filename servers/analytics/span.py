"""The time that a report is about, and what it says of its input."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, TypedDict

from msgspec import Meta

from ..errors import ToolInputError

Since = Annotated[
    str,
    Meta(description="ISO 8601, UTC where it has no zone, such as '2026-09-01'; '': from the first on", max_length=40),
]
Until = Annotated[str, Meta(description="the first moment that no longer counts; '': to the last", max_length=40)]

#: How many rows of each list a report has.
Top = Annotated[int, Meta(description="rows of each list", ge=1, le=50)]


class Dirt(TypedDict):
    what: str
    rows: int
    rule: Annotated[str, Meta(description="what was done with them")]


class Share(TypedDict):
    name: str
    count: int
    share: Annotated[float, Meta(description="of all, 0 to 1")]


@dataclass(frozen=True)
class Span:
    """`since` counts, `until` does not."""

    since: datetime
    until: datetime

    @property
    def parameters(self) -> dict[str, object]:
        return {"since": self.since, "until": self.until}

    @property
    def told(self) -> tuple[str, str]:
        """As a report has it: "" for an end that is open."""
        ends = (self.since, _FIRST), (self.until, _LAST)
        since, until = ("" if end == opened else end.isoformat().replace("+00:00", "Z") for end, opened in ends)
        return since, until


# no infinity: psycopg has no datetime for it
_FIRST = datetime(1, 1, 2, tzinfo=UTC)
_LAST = datetime(9999, 12, 30, tzinfo=UTC)


def span_of(since: str, until: str) -> Span:
    """
    Raises:
        ToolInputError: no time, or the end is not after the beginning.
    """
    span = Span(_moment("since", since, _FIRST), _moment("until", until, _LAST))
    if span.until <= span.since:
        raise ToolInputError(f"until ({until}) is not after since ({since}).", hint="until is the first day left out.")
    return span


def _moment(name: str, text: str, opened: datetime) -> datetime:
    if not text:
        return opened
    try:
        read = datetime.fromisoformat(text)
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ToolInputError(f"{name}: {text!r} is no ISO 8601 time.", hint="Such as 2026-09-01.") from None


def dirt(*found: tuple[str, int, str]) -> list[Dirt]:
    """What there was any of."""
    return [Dirt(what=what, rows=rows, rule=rule) for what, rows, rule in found if rows]


def rate(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0
