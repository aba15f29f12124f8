"""One run of the demo: services up, tasks through the agent both ways, the shop checked after each, results written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from demo import check, results, tau
from demo.gateway import Gateway, GatewayFailed, Mode, Turn
from demo.model.script import Script, save
from demo.model.solution import customer_message, solve
from demo.processes import Processes
from demo.results import Arm, Results, TaskResult
from demo.services import TENANT, Services, Shop
from demo.show import Screen

#: Tasks of every kind: exchanges, changes, returns, cancellations, addresses, payment; questions only; customers who
#: cannot be found at once; requests that the shop refuses; a hand-over to a person.
CHOSEN = (
    *("0", "2", "3", "11", "12", "13", "15", "16", "17", "22", "23", "26", "29", "31", "40", "41", "43", "54", "59"),
    *("64", "67", "71", "78", "86", "87", "98", "101", "104", "105", "110", "113"),
)
MIXED = "the reference gives all changed items the price and options of the last new one; a correct shop does not"


def choose(wanted: str, count: int | None = None) -> tuple[list[tau.Task], dict[str, str]]:
    """The first `count` of the wanted tasks ("all", ids with commas, "" for `CHOSEN`); why others are left out.

    Raises ValueError when nothing is left, and for an id that is none.
    """
    tasks = {task.id: task for task in tau.load_tasks()}
    ids = list(tasks) if wanted == "all" else [*CHOSEN] if wanted == "" else wanted.replace(" ", "").split(",")
    unknown = [each for each in ids if each not in tasks]
    if unknown:
        raise ValueError(f"There is no task {', '.join(unknown)}; they are numbered 0 to {len(tasks) - 1}.")
    excluded = {task.id: MIXED for task in tasks.values() if tau.mixes_items(task)}
    chosen = [tasks[each] for each in ids if each not in excluded][:count]
    if not chosen:
        raise ValueError(f"Task {wanted} cannot be checked: {MIXED}.")
    return chosen, excluded


def run(tasks: Sequence[tau.Task], excluded: dict[str, str], data_dir: Path, screen: Screen) -> tuple[Results, Path]:
    """Run the tasks; the results and the file that they are in.

    Raises ProcessFailed, GatewayFailed, tau.DataMissing, OSError.
    """
    started = time.monotonic()
    data_dir.mkdir(parents=True, exist_ok=True)
    with Processes(data_dir / "logs") as processes:
        services = Services(processes, data_dir)
        try:
            outcomes = _start(services, tasks, data_dir, screen)
            screen.say(f"Ready after {time.monotonic() - started:.1f} s.")
            done = _Run(services.gateway, services.shop, screen, outcomes)
            found = done.both_ways(tasks)
        finally:
            services.close()
        total = time.monotonic() - started
        transcripts = data_dir / "transcripts" / TENANT
        summary = Results(
            services.model.name, services.model.scripted, round(total, 3), found, excluded, str(transcripts)
        )
    path = data_dir / "results.json"
    results.save(summary, path)
    return summary, path


Outcomes = dict[str, tau.RetailData]


def _start(services: Services, tasks: Sequence[tau.Task], data_dir: Path, screen: Screen) -> Outcomes:
    screen.say(f"Starting the shop, the gateway and the model ({services.model.name}); data in {data_dir}")
    services.start_shop()
    services.start_gateway()
    outcomes, scripts = _prepare(tasks)
    if services.model.scripted:
        path = data_dir / "scripts.json"
        save(scripts, path)
        services.start_model(path)
    services.wait()
    screen.say(f"Kernels: {services.gateway.isolation()}")
    loaded = services.gateway.load_catalogue(TENANT)
    screen.say("Catalogue in Postgres, with embeddings: " + ", ".join(f"{name} {n}" for name, n in loaded.items()))
    return outcomes


def _prepare(tasks: Sequence[tau.Task]) -> tuple[Outcomes, list[Script]]:
    """What the reference makes of each task, and what the scripted model is to play."""
    reference, data = tau.Reference(), tau.load_data()
    outcomes, scripts = {}, []
    for task in tasks:
        outcome = reference.run(task.actions)
        outcomes[task.id] = outcome.state
        scripts.append(solve(task, data, outcome.refused))
    return outcomes, scripts


class _Run:
    def __init__(self, gateway: Gateway, shop: Shop, screen: Screen, outcomes: Outcomes) -> None:
        self._gateway = gateway
        self._shop = shop
        self._screen = screen
        self._outcomes = outcomes

    def both_ways(self, tasks: Sequence[tau.Task]) -> list[TaskResult]:
        cells: list[tuple[Turn, Arm]] = []
        for number, task in enumerate(tasks, start=1):
            self._screen.task(number, len(tasks), task)
            turn, arm = self._one(task, "cells")
            self._screen.checked(arm)
            cells.append((turn, arm))
        self._screen.heading("The same by direct tool calls, for comparison")
        found = []
        for task, (turn, arm) in zip(tasks, cells, strict=True):
            _, direct = self._one(task, "direct")
            self._screen.direct(task.id, direct)
            transcript = f"{turn.session}.ipynb"
            found.append(TaskResult(task.id, task.reason, turn.answer, transcript, arm, direct))
        return found

    def _one(self, task: tau.Task, mode: Mode) -> tuple[Turn, Arm]:
        """One task, one way, on a fresh shop; shown as it happens for cells."""
        self._shop.reset()
        turn = Turn(mode)
        started = time.monotonic()
        for event in self._gateway.chat(TENANT, customer_message(task), mode):
            turn.take(event)
            if mode == "cells":
                self._screen.event(event)
        turn.seconds = time.monotonic() - started
        if not turn.reason:
            raise GatewayFailed(f"Task {task.id}: the stream ended without an end event.")
        if turn.session:
            self._gateway.end_session(turn.session)
        differences = check.differences(self._outcomes[task.id], self._shop.state())
        return turn, results.arm(turn, differences)
