"""A thousand sessions that nobody uses, on one gateway: what they cost in memory and in CPU time.

They have no kernels, as after `cell.idle_s`: what a kernel takes is measured in `kernels`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
from pathlib import Path

from benchmarks.figure import Figure, command
from gateway.runtime import open_gateway
from gateway.settings import load_settings

IDS = ("idle_1000_cpu_s", "idle_session_kib")

_SESSIONS, _AT_ONCE, _IDLE_S = 1000, 8, 30.0
_PEER = "the same gateway with no session, as long"


def run(ids: set[str]) -> list[Figure]:
    """Measure both, in a minute and a half."""
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        settings = load_settings(
            data_dir=Path(folder) / "data",
            runtime_dir=Path(folder) / "run",
            log_level="error",
            pool={"provisioner": "local", "warm": 1},
            tenants={"shop": {}},
        )
        async with open_gateway(settings) as gateway:
            slots = asyncio.Semaphore(_AT_ONCE)

            async def make() -> None:
                async with slots:
                    await gateway.sessions.create("shop", "bench", "agent", kernel=False)

            for _ in range(20):  # what is loaded and cached at the first
                await make()
            without = await _cpu_s()
            before = _resident_kib()
            await asyncio.gather(*(make() for _ in range(_SESSIONS)))
            with_them = await _cpu_s()
            each = (_resident_kib() - before) / _SESSIONS
    return [
        Figure("idle_1000_cpu_s", with_them, f"s of {_IDLE_S:g}", without, _PEER, command("idle_1000_cpu_s")),
        Figure("idle_session_kib", each, "KiB", None, "none", command("idle_session_kib")),
    ]


async def _cpu_s() -> float:
    """CPU time of this process while nothing is asked of it."""
    await asyncio.sleep(2)
    began = time.process_time()
    await asyncio.sleep(_IDLE_S)
    return time.process_time() - began


def _resident_kib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024
