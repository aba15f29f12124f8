"""A gateway in a process of its own, to be killed: one pool, one lease, one cell; or, alive, one that comes back.

    doomed_pool.py RUNTIME_DIR PLACE HOST IMAGE GRACE CODE

It prints a line of JSON for all that a test may wait for: {"lease": ...}, then {"output": ...} and {"result": ...}.
With "" as the code it leases and runs nothing; with an adoptable kernel it resumes that one's cell.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernel_pool.container_config import DockerConfig
from kernel_pool.docker import DockerPlace
from kernel_pool.kernel import Kernel
from kernel_pool.local import LocalPlace
from kernel_pool.place import Place
from kernel_pool.pool import Pool
from kernel_pool.types import Limits, PlaceConfig, PoolConfig, Profile

CELL, SESSION = "cell-1", "session-1"


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def configured(folder: Path, grace_s: float, **changes: Any) -> PoolConfig:
    profile = Profile(preload=(), limits=Limits(memory_mb=128, disk_mb=16), minimum=0, maximum=1)
    return PoolConfig(folder, (profile,), start_timeout_s=90, lease_timeout_s=90, orphan_grace_s=grace_s, **changes)


def place_of(place: str, host: str, image: str) -> Callable[[PlaceConfig], Place]:
    if place == "local":
        return LocalPlace
    runtime: Any = place
    docker = DockerConfig(image=image, runtime=runtime, host=host)
    return lambda config: DockerPlace(config, docker)


async def run(pool: Pool, code: str) -> None:
    def tell(event: Any) -> None:
        say(output=len(event.get("text", "")), begin=event.get("text", "")[:20])

    kernel: Kernel | None = pool.adopt(SESSION)
    if kernel is not None:
        say(lease=kernel.id, pid=kernel.pid)
        result = await kernel.resume(CELL, deadline_s=60, on_output=tell)
    else:
        kernel = await pool.lease(note=SESSION, tenant="tenant")
        say(lease=kernel.id, pid=kernel.pid)
        if not code:
            return
        await kernel.execute("x = 41", deadline_s=30)
        result = await kernel.execute(code, deadline_s=60, msg_id=CELL, on_output=tell)
    say(result=result.status)


async def main(folder: str, place: str, host: str, image: str, grace: str, code: str) -> None:
    pool = Pool(configured(Path(folder), float(grace)), place_of(place, host, image))
    await pool.start()
    await run(pool, code)
    await asyncio.sleep(1000)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
