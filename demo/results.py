"""What the demo found out, task by task: for the table and for the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from demo.gateway import Turn


class Arm(msgspec.Struct, frozen=True):
    """One task done one way. Tokens are summed over all requests to the model; `usage` splits them."""

    steps: int
    calls: int
    tokens: int
    seconds: float
    #: Of `seconds` what the gateway spent without the model.
    own_seconds: float
    reason: str
    problem: str
    session: str
    usage: dict[str, Any]
    #: The gateway's own reckoning of the same calls made directly, to hold beside what the direct way really used.
    direct_usage: dict[str, Any]
    #: Where the shop differs from the reference afterwards; empty when nowhere.
    differences: list[str]

    @property
    def good(self) -> bool:
        return not self.differences and self.reason == "answered"


class TaskResult(msgspec.Struct, frozen=True):
    task: str
    request: str
    answer: str
    transcript: str
    cells: Arm
    direct: Arm | None

    @property
    def ratio(self) -> float | None:
        """How many times the tokens the direct way takes."""
        return self.direct.tokens / self.cells.tokens if self.direct and self.cells.tokens else None


class Results(msgspec.Struct, frozen=True):
    model: str
    #: Whether the model plays known solutions, so that each state must match.
    scripted: bool
    seconds: float
    tasks: list[TaskResult]
    excluded: dict[str, str]
    transcripts: str

    @property
    def good(self) -> bool:
        arms = [arm for each in self.tasks for arm in (each.cells, each.direct) if arm is not None]
        return all(arm.good for arm in arms)


def arm(turn: Turn, differences: list[str]) -> Arm:
    return Arm(
        steps=turn.steps,
        calls=len(turn.calls),
        tokens=turn.tokens,
        seconds=round(turn.seconds, 3),
        own_seconds=round(turn.own_seconds, 3),
        reason=turn.reason,
        problem=turn.problem,
        session=turn.session,
        usage=turn.usage,
        direct_usage=turn.direct_usage,
        differences=differences,
    )


def totals(arms: Sequence[Arm]) -> dict[str, float]:
    """Sums over tasks; dollars at the configured prices, with and without prompt caching."""
    names = ("input", "definitions", "results", "turns", "output", "dollars", "dollars_uncached")
    sums = {name: round(sum(float(each.usage.get(name, 0)) for each in arms), 6) for name in names}
    return {"tokens": float(sum(each.tokens for each in arms)), **sums}


def save(results: Results, path: Path) -> None:
    direct = [each.direct for each in results.tasks if each.direct is not None]
    body = msgspec.to_builtins(results) | {
        "good": results.good,
        "tasks_per_s": round(len(results.tasks) / max(sum(each.cells.seconds for each in results.tasks), 1e-9), 3),
        "totals": {"cells": totals([each.cells for each in results.tasks]), "direct": totals(direct)},
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(body), indent=1))
