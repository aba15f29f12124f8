"""What the scripted model plays: for each customer's message the steps of a known solution, and the answer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec


class Call(msgspec.Struct, frozen=True):
    """One tool call: `tool` such as "woocommerce.lookup_order"."""

    tool: str
    arguments: dict[str, Any]


class Step(msgspec.Struct, frozen=True):
    """One cell, and the tool calls that it makes: what direct calling has to do instead."""

    code: str
    calls: tuple[Call, ...]
    #: The shop refuses this step's last call, as it should.
    refused: bool = False


class Script(msgspec.Struct, frozen=True):
    task: str
    message: str
    steps: tuple[Step, ...]
    answer: str

    @property
    def calls(self) -> tuple[tuple[Call, bool], ...]:
        """All calls in order, each with whether the shop refuses it."""
        return tuple(
            (call, step.refused and position == len(step.calls) - 1)
            for step in self.steps
            for position, call in enumerate(step.calls)
        )


def save(scripts: Iterable[Script], path: Path) -> None:
    path.write_bytes(msgspec.json.encode(list(scripts)))


def load(path: Path) -> dict[str, Script]:
    """Scripts by message. Raises OSError, msgspec.DecodeError."""
    return {script.message: script for script in msgspec.json.decode(path.read_bytes(), type=list[Script])}
