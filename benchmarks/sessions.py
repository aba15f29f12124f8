"""A thousand sessions of a whole gateway: made, one cell each, ended; and what is left over of them."""

from __future__ import annotations

import asyncio
import glob
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figure import Figure, quantile
from benchmarks.stock import stock_kernel
from benchmarks.support import figure_of, run_cell
from gateway.runtime import Gateway, open_gateway
from gateway.settings import load_settings

IDS = ("sessions_1000_per_s", "sessions_1000_p99_ms", "left_over")

_SESSIONS, _AT_ONCE = 1000, 8
_PEERS = 24
_PEER = "stock ipykernel, no sandbox: start, one cell, end; 8 at a time"


@dataclass
class Trace:
    """By what the kernels of the run would be found."""

    kernels: dict[str, int] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    seconds: float = 0.0


def run(ids: set[str]) -> list[Figure]:
    """Measure all figures, by one run of a minute or two."""
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    trace, before = Trace(), descriptors()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        settings = load_settings(
            data_dir=Path(folder) / "data",
            runtime_dir=Path(folder) / "run",
            log_level="error",
            pool={"provisioner": "local", "warm": 4, "warm_maximum": 16, "refill_starts": 2},
            tenants={"shop": {}},
        )
        async with open_gateway(settings) as gateway:
            await run_sessions(gateway, _SESSIONS, trace)
            left = left_of(trace, Path(folder) / "run")
    left |= descriptors() - before | {f"process {pid}" for pid in _children(os.getpid())}
    if left:
        print("left over:", *sorted(left), sep="\n  ")
    peers, started = [], time.perf_counter()
    slots = asyncio.Semaphore(_AT_ONCE)

    async def peer() -> None:
        async with slots:
            began = time.perf_counter()
            async with stock_kernel() as stock:
                await run_cell(stock.channels, "1+1")
            peers.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(peer() for _ in range(_PEERS)))
    per_s = _PEERS / (time.perf_counter() - started)
    return [
        figure_of("sessions_1000_per_s", _SESSIONS / trace.seconds, "1/s", per_s, _PEER),
        figure_of("sessions_1000_p99_ms", quantile(trace.times, 0.99), "ms", quantile(peers, 0.99), _PEER),
        figure_of("left_over", float(len(left)), "things", 0.0, "none"),
    ]


async def run_sessions(gateway: Gateway, count: int, trace: Trace) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with slots:
            began = time.perf_counter()
            session = (await gateway.sessions.create("shop", "bench", "agent")).id
            kernel = gateway.sessions.kernel(session)
            if kernel is None:
                raise RuntimeError("a session has no kernel")
            trace.kernels[kernel.id] = kernel.pid
            run = await gateway.sessions.run_cell(session, "open('file', 'w').write('x'); 1 + 1")
            if run.result.status != "ok":
                raise RuntimeError(f"a cell ended with {run.result.status}: {run.result.reason or run.result.error}")
            await gateway.sessions.end(session)
            trace.times.append((time.perf_counter() - began) * 1000)

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    trace.seconds = time.perf_counter() - started


def left_of(trace: Trace, runtime: Path) -> set[str]:
    """Processes, folders, sockets and cgroups of kernels that have ended. Process ids are not used again so soon."""
    names = set(trace.kernels)
    left = {f"process {pid}" for pid in trace.kernels.values() if Path(f"/proc/{pid}").exists()}
    found = [*map(str, runtime.rglob("*")), *glob.glob("/sys/fs/cgroup/**/omniops-*/*", recursive=True)]
    left |= {path for path in found if names & set(path.split("/"))}
    sockets = Path("/proc/net/unix").read_text().splitlines()
    return left | {line.split()[-1] for line in sockets if names & set(line.split()[-1].split("/"))}


def descriptors() -> set[str]:
    """This process's own. Those of the interpreter's pool of threads may come at any time."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if "[eventpoll]" not in target:
            found.add(f"descriptor {name}: {target}")
    return found


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
