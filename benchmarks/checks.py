"""What the check of a cell costs: as a session waits for it, beside `ty check` started anew for the same cell."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ty import find_ty_bin

from benchmarks.figure import Figure, quantile
from benchmarks.support import figure_of
from demo import tau
from demo.model.solution import solve
from gateway.checking.checker import Checker, Look
from gateway.settings import CheckSettings
from servers.registry import Registry, load_registry

IDS = ("cell_check_ms", "cell_check_found_ms")

_TASKS, _PEERS = 60, 15
_WRONG = """\
from servers.woocommerce import list_orders, cancel_order
for order in list_orders(customer_id={n}):
    if order["state"] == "pending" and order["total"] > {n}:
        cancel_order(order_id=order["number"], reason="done")
"""


def run(ids: set[str]) -> list[Figure]:
    """Measure both figures, by one run of some seconds."""
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    registry = load_registry()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        checker = Checker(CheckSettings(), Path(folder))
        try:
            await checker.warm(registry)
            sessions = _sessions()
            right = [ms for cells in sessions for ms in await _session(checker, registry, cells)]
            wrong = [ms for n in range(100) for ms in await _session(checker, registry, [_WRONG.format(n=n)])]
        finally:
            await checker.close()
        peers = [_cold(Path(folder), cell) for cell in [cells[-1] for cells in sessions][:_PEERS]]
    peer = quantile(peers, 0.5)
    return [
        figure_of("cell_check_ms", quantile(right, 0.5), "ms", peer, "`ty check` of a cell, started for each"),
        figure_of("cell_check_found_ms", quantile(wrong, 0.5), "ms", peer, "`ty check` of a cell, started for each"),
    ]


def _sessions() -> list[list[str]]:
    """Cells of the demo's model, by session."""
    data, found = tau.load_data(), []
    for task in tau.load_tasks()[:_TASKS]:
        try:
            found.append([step.code for step in solve(task, data).steps])
        except KeyError:  # the shop refuses what the task asks first
            continue
    return found


async def _session(checker: Checker, registry: Registry, cells: Sequence[str]) -> list[float]:
    """Milliseconds of each cell's check, after those before it."""
    history, times = checker.history(), []

    async def ask(names: Sequence[str]) -> Look:
        return Look()

    for cell in cells:
        began = time.perf_counter()
        check = await checker.conclude(await checker.check(cell, history, registry), ask)
        times.append((time.perf_counter() - began) * 1000)
        if check.note:
            raise RuntimeError(check.note)
        history.add(cell, ok=True, changed=())
    return times


def _cold(folder: Path, cell: str) -> float:
    """Milliseconds of `ty check`, from nothing to the end of its process."""
    (stubs,) = folder.iterdir()
    file = stubs / "cell.py"
    file.write_text(cell)
    began = time.perf_counter()
    subprocess.run(
        [find_ty_bin(), "check", "--quiet", str(file)], cwd=stubs, check=False, env={}, stdout=subprocess.DEVNULL
    )
    return (time.perf_counter() - began) * 1000
