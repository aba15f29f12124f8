"""`make bench [ONLY=id]`: runs the benchmarks, prints a table, writes `benchmarks/results.json`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figure import Figure

RESULTS = Path(__file__).with_name("results.json")
MODULES = (
    "benchmarks.calls",
    "benchmarks.checks",
    "benchmarks.finding",
    "benchmarks.gdpr",
    "benchmarks.idle",
    "benchmarks.ingest",
    "benchmarks.jupyter",
    "benchmarks.journey",
    "benchmarks.kernels",
    "benchmarks.limits",
    "benchmarks.outputs",
    "benchmarks.pool",
    "benchmarks.containers",
    "benchmarks.sessions",
    "benchmarks.sync",
    "benchmarks.tasks",
    "benchmarks.workloads",
)


def show(figures: list[Figure]) -> None:
    table = Table("figure", "value", "unit", "peer", "peer is", "ratio")
    for f in figures:
        table.add_row(
            f.id,
            f"{f.value:.4g}",
            f.unit,
            "" if f.peer is None else f"{f.peer:.4g}",
            f.peer_name,
            "" if f.ratio is None else f"{f.ratio:.3f}",
        )
    Console().print(table)


def save(figures: list[Figure]) -> None:
    """Replace what was measured anew, keep the rest."""
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    measured = {f.id for f in figures}
    rows = [row for row in old if row["id"] not in measured] + [f.as_json() for f in figures]
    RESULTS.write_text(json.dumps(sorted(rows, key=lambda row: str(row["id"])), indent=1) + "\n")


def main() -> int:
    modules = [importlib.import_module(name) for name in MODULES]
    known = [id for module in modules for id in module.IDS]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", action="append", metavar="ID", choices=known, help=f"one of: {', '.join(known)}")
    wanted = set(parser.parse_args().only or known)
    figures: list[Figure] = []
    for module in modules:
        ids = wanted & set(module.IDS)
        if ids:
            figures += [f for f in module.run(ids) if f.id in wanted]
    show(figures)
    save(figures)
    missing = wanted - {f.id for f in figures}
    if missing:
        print(f"not measured: {', '.join(sorted(missing))}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
