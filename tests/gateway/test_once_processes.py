"""Kernels and gateways in processes of their own, killed at every point of every write tool: each write once.

What `test_once_every_task.py` plays through for all tasks, here with real kills, on the real socket between stub and
broker, and over HTTP: of every tool that changes something one call, and every victim killed where the effect is there
and nobody knows of it; before and after that, one by turns; of two tools the gateway at every point too.
`EXACTLY_ONCE=all`: all, in every call of every task.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gateway_world import ShopProcess, own_database, running_shop
from retail_tasks import script_of, tasks_with_writes
from survival_world import migrated

from demo import tau

VICTIMS = ("gateway", "both", "kernel")
ALL = os.environ.get("EXACTLY_ONCE") == "all"
POINTS = {"asked", "before", "executing", "sent", "after", "answered"}


@dataclass(frozen=True)
class Stage:
    process: subprocess.Popen[str]
    shop: ShopProcess

    def play(self, task: str) -> tuple[list[list[str]], dict[str, Any]]:
        """Undisturbed: the points that were passed; what came of it, here and in the shop."""
        passed, _, came = self._play(task)
        return passed, came

    def kill(self, task: str, victim: str, at: int, point: str) -> dict[str, Any]:
        """What came of it all the same."""
        _, dead, came = self._play(task, victim, at)
        assert dead or point == "answered", f"{victim} was not killed"
        return came

    def _play(self, task: str, victim: str = "", at: int = -1) -> tuple[list[list[str]], bool, dict[str, Any]]:
        self.shop.reset()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"task": task, "victim": victim, "at": at}) + "\n")
        self.process.stdin.flush()
        came = json.loads(self.process.stdout.readline())
        return came.pop("passed"), came.pop("dead"), {**came, "shop": timeless(self.shop.written())}


def timeless(value: Any) -> Any:
    match value:
        case dict():
            return {key: timeless(item) for key, item in value.items() if not str(key).startswith("date_")}
        case list():
            return [timeless(item) for item in value]
    return value


@pytest.fixture(scope="module")
def stage(postgres: str) -> Iterator[Stage]:
    with (
        own_database(postgres) as url,
        running_shop() as shop,
        tempfile.TemporaryDirectory(prefix="omniops-") as folder,
    ):
        asyncio.run(migrated(url))
        with forks(url, shop.url, folder) as process:
            yield Stage(process, shop)


@contextmanager
def forks(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("once_forks.py")
    root = str(script.parents[2])
    with subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([root, str(script.parents[1]), str(script.parent)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == "ready"
            yield process
        finally:
            process.kill()


def tasks_for(tool: str) -> list[str]:
    """Those with a call of the tool, the shortest first; before them those that move money on a gift card."""
    found = []
    for task in tasks_with_writes() + (tau.load_tasks() if tool in RARE else ()):
        calls = [call for call, _ in script_of(task).calls]
        if any(call.tool == tool for call in calls):
            card = any("gift_card" in str(call.arguments.get("payment_method_id")) for call in calls)
            found.append((not card, len(calls), task.id))
    return [task for _, _, task in sorted(found)]


#: Of the package's tasks alone.
RARE = ("woocommerce.change_customer_address", "support.hand_over")
THOROUGH = ("support.hand_over", "woocommerce.change_order_payment")
TOOLS = (
    *RARE,
    "woocommerce.cancel_order",
    "woocommerce.change_order_address",
    "woocommerce.change_order_items",
    "woocommerce.change_order_payment",
    "woocommerce.exchange_items",
    "woocommerce.return_items",
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_write_is_applied_once_whoever_is_killed_wherever(stage: Stage, tool: str) -> None:
    for task in tasks_for(tool)[:5]:  # of some the shop refuses the write
        passed, expected = stage.play(task)
        if any(row[0] == tool and row[3] == "applied" for row in expected["journal"]):
            break
    else:
        pytest.fail(f"no task has a write of {tool} that the shop makes")
    points = {point: number for number, (of, point) in reversed(list(enumerate(passed))) if of == tool}
    assert points.keys() >= (POINTS if tool.startswith("support") else POINTS | {"request 1 applied"})
    for point, at in points.items():
        for victim in victims(tool, point):
            assert stage.kill(task, victim, at, point) == expected, f"{victim} killed at {point!r}"


def victims(tool: str, point: str) -> tuple[str, ...]:
    """Everybody where the effect is there and nobody knows of it; before and after that, one by turns."""
    if ALL or point == "request 1 applied" or (tool.startswith("support") and point == "executing"):
        return VICTIMS
    turn = VICTIMS[TOOLS.index(tool) % len(VICTIMS)]
    if tool in THOROUGH:
        return tuple({"gateway": 0, turn: 0})
    return (turn,) if point in ("executing", "answered") else ()


if ALL:  # hours

    @pytest.mark.timeout(0)
    def test_every_task_is_done_as_undisturbed_whoever_is_killed_wherever(stage: Stage) -> None:
        for task in tasks_with_writes():
            passed, expected = stage.play(task.id)
            for victim in VICTIMS:
                for at, (tool, point) in enumerate(passed):
                    came = stage.kill(task.id, victim, at, point)
                    assert came == expected, f"{task.id}: {victim} killed at {point!r} of {tool}"
