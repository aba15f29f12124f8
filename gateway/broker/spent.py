"""What tool calls take of the budgets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Spent:
    """What calls have taken, of a cell or of a session."""

    calls: int = 0
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    dollars: float = 0.0

    def add(self, other: Spent) -> None:
        self.calls += other.calls
        self.rows += other.rows
        self.bytes += other.bytes
        self.seconds += other.seconds
        self.dollars += other.dollars
