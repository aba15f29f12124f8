"""`/readyz` tells the truth: each of its conditions broken for real."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_world import settings_for

from gateway.db import Database
from gateway.operations.draining import Drain
from gateway.operations.readiness import Readiness, why_not_writable
from gateway.postgres import EmbeddedPostgres, PostgresConfig
from gateway.runtime import open_gateway
from gateway.settings import DatabaseSettings, ReadySettings
from kernel_pool.types import PoolExhausted


async def test_a_postgres_that_is_stopped_hung_or_back(tmp_path: Path, folder: Path) -> None:
    server = EmbeddedPostgres(PostgresConfig(tmp_path, folder / "run"))
    url = await server.start()
    database = Database(url, DatabaseSettings(connect_timeout_s=0.5))
    await database.open()

    async def reachable() -> str:
        await database.fetch_one("SELECT 1")
        return ""

    ready = Readiness(ReadySettings(timeout_s=1, again_s=0), Drain(1), {"database": reachable})
    assert await ready.ask() == {"running": "", "database": ""}
    await server.stop()
    assert (await ready.ask())["database"]
    url = await server.start()
    for _ in range(20):
        if not (found := (await ready.ask())["database"]):
            break
    assert found == ""
    await database.close()
    await server.stop()


async def test_the_conditions_of_a_gateway(tmp_path: Path, database_url: str) -> None:
    pool = {"provisioner": "local", "warm": 1, "maximum": 2, "preload": (), "lease_timeout_s": 1}
    settings = settings_for(tmp_path / "d", database_url, pool=pool, ready={"again_s": 0})
    async with open_gateway(settings) as gateway:
        ready = gateway.readiness
        assert set((await ready.ask()).values()) == {""}
        kernels = [await gateway.pool.lease() for _ in range(2)]
        assert "all 2 kernels are in use" in (await ready.ask())["kernels"]
        with pytest.raises(PoolExhausted):  # it is true
            await gateway.pool.lease()
        for kernel in kernels:
            await gateway.pool.release(kernel)
        assert (await ready.ask())["kernels"] == ""
        gateway.drain.begin()
        assert (await ready.ask())["running"] == "the gateway is stopping"


@pytest.mark.parametrize(("left", "wanted"), [(0, "cannot be written: No space left"), (12, "0 MiB left"), (40, "")])
def test_a_disk_that_is_full_or_nearly(tmp_path: Path, left: int, wanted: str) -> None:
    """On a file system of 64 KiB of its own, of which so many are left, and 16 KiB are to be."""
    script = (
        "import sys; from pathlib import Path; from gateway.operations.readiness import why_not_writable as why;"
        "print(why(Path(sys.argv[1]), Path('/tmp'), 16384))"
    )
    fill = f"mount -t tmpfs -o size=64k none {tmp_path} && head -c {64 - left}k /dev/zero > {tmp_path}/fill"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc"]
    done = subprocess.run(
        [*command, f'{fill}; "{sys.executable}" -c "{script}" {tmp_path}'],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.strip()
    assert wanted in told, told
    assert bool(told) == bool(wanted)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    assert "the data folder cannot be written" in why_not_writable(tmp_path / "none", tmp_path, 0)
    assert "the runtime folder cannot be written" in why_not_writable(tmp_path, tmp_path / "none", 0)
    assert why_not_writable(tmp_path, tmp_path, 0) == ""
    assert list(tmp_path.iterdir()) == []


async def test_a_condition_that_hangs_is_not_tried_beside_itself() -> None:
    tries, over = 0, asyncio.Event()

    async def hanging() -> str:
        nonlocal tries
        tries += 1
        await over.wait()
        return ""

    ready = Readiness(ReadySettings(timeout_s=0.01, again_s=0), Drain(1), {"it": hanging})
    for _ in range(3):
        assert (await ready.ask())["it"] == "no answer within 0.01 s"
    assert tries == 1
    over.set()
    assert (await ready.ask())["it"] == ""
