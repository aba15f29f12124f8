"""What a session may call, and how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.settings import BrokerSettings
from gateway.types import Grant
from servers.errors import ApprovalRequired, BudgetExceeded, ToolDenied
from servers.tool import Tool

MIB = 1024 * 1024


def check_allowed(grant: Grant, tool: Tool) -> None:
    """Analysts read; agents read and write; what is critical waits for a person.

    Raises:
        ToolDenied, ApprovalRequired
    """
    if tool.effect == "critical":
        raise ApprovalRequired(f"{tool.name} needs a person's approval, and this gateway has nobody to ask.")
    if tool.effect != "read" and grant.role != "agent":
        raise ToolDenied(f"{tool.name} changes things; a session of role {grant.role!r} may only read.")


@dataclass
class SessionBudget:
    """Calls of a session that went out; those that the journal answered are not counted."""

    calls: int = 0


class CellBudget:
    """What one run of a cell may spend, and has spent."""

    def __init__(self, settings: BrokerSettings, session: SessionBudget) -> None:
        self._settings = settings
        self._session = session
        self.calls = 0
        self.bytes = 0
        self.seconds = 0.0

    def take_call(self) -> None:
        """Count one call, before anything is done about it.

        Raises:
            BudgetExceeded: with what was spent.
        """
        limits = self._settings
        if self.calls >= limits.calls_per_cell:
            raise self._exceeded("calls_per_cell", f"{self.calls:,} tool calls in this cell", "Go on in another cell.")
        if self._session.calls >= limits.calls_per_session:
            raise self._exceeded("calls_per_session", f"{self._session.calls:,} tool calls in this session", "")
        if self.seconds >= limits.seconds_per_cell:
            raise self._exceeded(
                "seconds_per_cell", f"{self.seconds:.0f} s of tool calls in this cell", "Go on in another cell."
            )
        self.calls += 1

    def take_bytes(self, count: int) -> None:
        """Count arguments or a result.

        Raises:
            BudgetExceeded: with what was spent.
        """
        self.bytes += count
        if self.bytes > self._settings.cell_mb * MIB:
            spent = f"{self.bytes / MIB:,.1f} MiB of arguments and results in this cell"
            raise self._exceeded("cell_mb", spent, "Ask for less at once, or go on in another cell.")

    def take_seconds(self, seconds: float) -> None:
        self.seconds += seconds

    @property
    def spent(self) -> Mapping[str, float]:
        return {
            "calls_in_cell": self.calls,
            "calls_in_session": self._session.calls,
            "bytes_in_cell": self.bytes,
            "seconds_in_cell": round(self.seconds, 3),
        }

    def _exceeded(self, budget: str, spent: str, hint: str) -> BudgetExceeded:
        limit = getattr(self._settings, budget)
        return BudgetExceeded(
            f"The budget {budget} of {limit:,} is used up: {spent}.",
            hint=hint,
            data={"budget": budget, "limit": limit, **self.spent},
        )
