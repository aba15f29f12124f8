"""One run of a schedule: a session of its own, with its transcript, in which the cells are run one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nbformat

from gateway.sessions import Sessions
from gateway.settings import ScheduleSettings

#: Told the session as soon as there is one.
Began = Callable[[str], Awaitable[None]]


class NotRunnable(Exception):
    """The notebook cannot be read. The message says why."""


def cells_of(schedule: ScheduleSettings) -> list[str]:
    """The sources of its cells. Raises NotRunnable."""
    given = [f"{name} = {value!r}" for name, value in schedule.arguments.items()]
    if schedule.tool is not None:
        server, _, name = schedule.tool.rpartition(".")
        return [f"from servers.{server} import {name}\n{name}({', '.join(given).replace(' = ', '=')})"]
    assert schedule.notebook is not None
    cells = _notebook(schedule.notebook)
    # after the notebook's own: its first cell holds the parameters' defaults
    return [*cells[:1], "\n".join(given), *cells[1:]] if given else cells


def _notebook(path: Path) -> list[str]:
    try:
        read: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, nbformat.ValidationError, AttributeError) as error:
        raise NotRunnable(f"The notebook {path} cannot be read: {error}") from error
    return [cell.source for cell in read.cells if cell.cell_type == "code" and cell.source.strip()]


async def run_schedule(sessions: Sessions, tenant: str, schedule: ScheduleSettings, began: Began) -> str:
    """Run it to its end; how its last cell ended. The first cell that does not end well is the last.

    Raises NotRunnable, SessionError, KernelPoolError.
    """
    cells = await asyncio.to_thread(cells_of, schedule)
    title = f"schedule {schedule.name}"
    session = await sessions.create(tenant, f"schedule:{schedule.name}", schedule.role, title, kernel=False)
    await began(session.id)
    state = "ok"
    try:
        for cell in cells:
            run = await sessions.run_cell(session.id, cell, deadline_s=schedule.deadline_s)
            state = run.result.status
            if state != "ok":
                break
    finally:
        # one that waits for a person keeps its session: it goes on there after the decision
        if state != "paused":
            await asyncio.shield(sessions.end(session.id))
    return state
