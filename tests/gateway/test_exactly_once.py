"""The kernel is killed at every call boundary of a task, and its cell run again: each write is applied once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_world import ShopProcess, running_shop, settings_for

from demo import check, tau
from demo.model.solution import solve
from gateway.runtime import Gateway, open_gateway
from gateway.types import Boundary, CallRecord

#: Cancellations and returns; changes of addresses and items.
TASKS = ("55", "41")


@pytest.fixture(scope="module")
def shop() -> Iterator[ShopProcess]:
    with running_shop() as shop:
        yield shop


class Killer:
    """Kills the session's kernel at one boundary, counted from 0; None only counts."""

    def __init__(self) -> None:
        self.gateway: Gateway | None = None
        self.at: int | None = None
        self.seen: list[tuple[Boundary, str]] = []

    def arm(self, at: int | None) -> None:
        self.at, self.seen = at, []

    async def observe(self, boundary: Boundary, record: CallRecord) -> None:
        self.seen.append((boundary, record.tool))
        if len(self.seen) - 1 != self.at:
            return
        assert self.gateway is not None
        kernel = self.gateway.sessions.kernel(record.session)
        assert kernel is not None
        os.kill(kernel.pid, signal.SIGKILL)
        await kernel.exited


def cells_of(task_id: str) -> list[str]:
    task = next(task for task in tau.load_tasks() if task.id == task_id)
    data = tau.load_data()
    return [step.code for step in solve(task, data, tau.Reference().run(task.actions).refused).steps]


async def play(gateway: Gateway, cells: list[str]) -> tuple[int, list[str]]:
    """Run the cells in a session; where the kernel dies, restore the session and run the cell again.

    Returns how often it died, and how each cell ended.
    """
    session = await gateway.sessions.create("shop", "test", "agent")
    deaths, ends = 0, []
    for code in cells:
        run = await gateway.sessions.run_cell(session.id, code)
        if run.result.status == "dead":
            deaths += 1
            assert (await gateway.sessions.get(session.id)).state == "lost"
            await gateway.sessions.restore(session.id)
            run = await gateway.sessions.run_cell(session.id, code, cell_id=run.cell)
        ends.append(run.result.status)
    await gateway.sessions.end(session.id)
    return deaths, ends


def stamps(state: dict[str, Any]) -> Counter[str]:
    """How many of our writes each object has seen."""
    found: Counter[str] = Counter()
    for kind in ("orders", "customers"):
        for each in state[kind]:
            own = [entry["value"] for entry in each["meta_data"] if entry["key"] == "_omniops_calls"]
            found[f"{kind}/{each['id']}"] += sum(len(value) for value in own)
    return +found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("task", TASKS)
async def test_every_write_is_applied_once_wherever_the_kernel_dies(
    task: str, tmp_path: Path, database_url: str, shop: ShopProcess
) -> None:
    killer, cells = Killer(), cells_of(task)
    async with open_gateway(settings_for(tmp_path, database_url, shop), observers=(killer.observe,)) as gateway:
        killer.gateway = gateway
        shop.reset()
        deaths, ends = await play(gateway, cells)
        assert deaths == 0
        assert ends[-1] == "ok"
        undisturbed = shop.state()
        boundaries = list(killer.seen)
        assert sum(boundary == "sent" for boundary, _ in boundaries) >= 7
        assert sum(stamps(undisturbed).values()) >= 4
        for at, where in enumerate(boundaries):
            shop.reset()
            killer.arm(at)
            assert await play(gateway, cells) == (1, ends), where
            state = shop.state()
            assert check.retail_data(state) == check.retail_data(undisturbed), where
            assert stamps(state) == stamps(undisturbed), where
