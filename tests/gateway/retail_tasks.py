"""Customers' tasks of the retail data as tool calls: those that lie beside the project, else those of the package."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from demo import tau
from demo.model.script import Script
from demo.model.solution import solve

#: Data from outside that may not be part of the project.
SHARED = Path(os.environ.get("SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
TRAIN = SHARED / "tau_retail" / "tasks_train.json"

#: The retail data's tools that change the shop.
WRITES = {
    "cancel_pending_order",
    "exchange_delivered_order_items",
    "modify_pending_order_address",
    "modify_pending_order_items",
    "modify_pending_order_payment",
    "modify_user_address",
    "return_delivered_order_items",
}


@cache
def tasks_with_writes() -> tuple[tau.Task, ...]:
    """Of the 520 that train agents, or, where they are not there, of the package's 114."""
    tasks = [_task(*each) for each in enumerate(json.loads(TRAIN.read_bytes()))] if TRAIN.exists() else tau.load_tasks()
    return tuple(task for task in tasks if any(action.name in WRITES for action in task.actions))


@cache
def script_of(task: tau.Task) -> Script:
    """Its cells and calls. What the shop refuses is among them."""
    try:
        return solve(task, tau.load_data())
    except KeyError:  # it asks for what there is not: only the reference knows, and takes long to say so
        return solve(task, tau.load_data(), _reference().run(task.actions).refused)


@cache
def _reference() -> tau.Reference:
    return tau.Reference()


def _task(number: int, row: Mapping[str, Any]) -> tau.Task:
    return tau.Task(
        id=f"train-{number}",
        reason=row["instruction"],
        known_info=f"{row['instruction']} My user id is {row['user_id']}.",
        instructions="",
        actions=tuple(tau.Action(action["name"], action["kwargs"]) for action in row["actions"]),
        communicate=tuple(row["outputs"]),
    )
