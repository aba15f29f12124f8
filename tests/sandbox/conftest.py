"""A kernel's side of the broker, against a socket that answers as a test says."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from door_double import Answer, DoorDouble


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path for sockets."""
    with tempfile.TemporaryDirectory(prefix="omniops-") as name:
        yield Path(name)


@pytest.fixture
def door(folder: Path) -> Iterator[Callable[[Answer], DoorDouble]]:
    opened: list[DoorDouble] = []

    def open_door(answer: Answer) -> DoorDouble:
        opened.append(DoorDouble(folder / "broker.sock", answer))
        return opened[-1]

    yield open_door
    for one in opened:
        one.close()
