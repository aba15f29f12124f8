"""The customer tasks of the demo, all of them, by cells and (the peer) by direct calls of the same tools.

Tokens are of one task's whole conversation, counted on the payloads that both arms really sent. `uncached` input is
what is left of it after prompt caching; dollars are at the configured prices.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure, command, quantile

Usage = dict[str, float]

_MEASURES: dict[str, tuple[str, Callable[[Usage], float]]] = {
    "tokens_input": ("tokens", lambda usage: usage["input"]),
    "tokens_uncached_input": ("tokens", lambda usage: usage["input"] - usage["cached"]),
    "tokens_output": ("tokens", lambda usage: usage["output"]),
    "task_cost": ("$", lambda usage: usage["dollars_uncached"]),
    "task_cost_cached": ("$", lambda usage: usage["dollars"]),
}
_QUANTILES = {"p50": 0.5, "p90": 0.9}

#: What all tasks together use, as a ratio to direct calls.
_RATIOS: dict[str, Callable[[Usage], float]] = {
    "tokens_chat_ratio": lambda usage: usage["input"],
    "cost_chat_ratio": lambda usage: usage["dollars_uncached"],
    "cost_cached_chat_ratio": lambda usage: usage["dollars"],
}

IDS = ("demo_tasks_per_s", "chat_turn_s", *_RATIOS, *(f"{name}_{q}" for name in _MEASURES for q in _QUANTILES))

_PEER = "the same tasks by direct tool calls"


def run(ids: set[str]) -> list[Figure]:
    """Run the demo over all tasks and measure. Raises RuntimeError when a task did not end as it must."""
    results = _demo()
    tasks = results["tasks"]
    rates = {arm: len(tasks) / sum(task[arm]["seconds"] for task in tasks) for arm in ("cells", "direct")}
    figures = [
        Figure("demo_tasks_per_s", rates["cells"], "1/s", rates["direct"], _PEER, command("demo_tasks_per_s")),
    ]
    own = {arm: quantile([task[arm]["own_seconds"] for task in tasks], 0.5) for arm in ("cells", "direct")}
    figures.append(Figure("chat_turn_s", own["cells"], "s", own["direct"], _PEER, command("chat_turn_s")))
    for id, of in _RATIOS.items():
        sums = {arm: sum(of(task[arm]["usage"]) for task in tasks) for arm in ("cells", "direct")}
        figures.append(Figure(id, sums["cells"] / sums["direct"], "ratio", None, _PEER, command(id)))
    for name, (unit, measure) in _MEASURES.items():
        arms = {arm: [measure(task[arm]["usage"]) for task in tasks] for arm in ("cells", "direct")}
        for label, q in _QUANTILES.items():
            id = f"{name}_{label}"
            figures.append(
                Figure(id, quantile(arms["cells"], q), unit, quantile(arms["direct"], q), _PEER, command(id))
            )
    return [figure for figure in figures if figure.id in ids]


def _demo() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "demo", "--tasks", "all", "--data-dir", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        last = done.stdout.strip().rpartition("\n")[2]
        if done.returncode or not last.startswith("results: "):
            raise RuntimeError(f"the demo failed ({done.returncode}): {done.stdout[-2000:]}{done.stderr[-2000:]}")
        results: dict[str, Any] = json.loads(Path(last.removeprefix("results: ")).read_text())
        return results
