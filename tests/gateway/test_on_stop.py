"""An orderly stop that keeps the kernels: the next gateway goes on where this one was."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from gateway_world import ROLES, settings_for

from gateway.runtime import open_gateway
from gateway.settings import Settings
from gateway.start_error import StartError


def keeping(tmp_path: Path, database_url: str, on_stop: str = "keep") -> Settings:
    pool = {
        "provisioner": "local",
        "warm": 1,
        "preload": (),
        "profiles": {"agent": {"roles": ROLES}},
        "on_stop": on_stop,
    }
    return settings_for(tmp_path / "d", database_url, pool=pool, server={"shutdown_grace_s": 0.2})


CELL = """
import time
for n in range(30):
    print(n, flush=True)
    time.sleep(0.1)
x + 22
"""


async def test_kernels_live_on_with_the_cells_in_them(tmp_path: Path, database_url: str) -> None:
    settings = keeping(tmp_path, database_url)
    async with open_gateway(settings) as gateway:
        session = (await gateway.sessions.create("shop", "test", "analyst")).id
        kernel = gateway.sessions.kernel(session)
        assert kernel is not None
        await gateway.sessions.run_cell(session, "x = 20")
        running = asyncio.create_task(gateway.sessions.run_cell(session, CELL))
        await asyncio.sleep(0.7)
    with pytest.raises(asyncio.CancelledError):
        await running
    async with open_gateway(settings) as gateway:
        again = gateway.sessions.kernel(session)
        assert again is not None
        assert again.pid == kernel.pid
        assert (await gateway.sessions.get(session)).state == "live"
        run = await gateway.sessions.run_cell(session, "x, n")  # after the one that runs
        assert "(20, 29)" in run.envelope
        transcript = str(await asyncio.to_thread(_notebook, tmp_path / "d", session))
        assert all(f"{number}\\n" in transcript for number in range(30))
        assert "42" in transcript
        await gateway.sessions.end(session)
    async with open_gateway(keeping(tmp_path, database_url, "end")) as gateway:
        assert gateway.pool.status().leased == 0


async def test_a_gateway_that_does_not_come_up_leaves_the_sessions_to_the_next(
    tmp_path: Path, database_url: str
) -> None:
    settings = keeping(tmp_path, database_url)
    async with open_gateway(settings) as gateway:
        session = (await gateway.sessions.create("shop", "test", "analyst")).id
        await gateway.sessions.run_cell(session, "x = 20")
    broken = settings.model_copy(update={"database_url": type(settings.database_url)("postgresql://127.0.0.1:1/none")})
    quick = broken.database.model_copy(update={"connect_timeout_s": 0.5})
    with pytest.raises(StartError):
        async with open_gateway(broken.model_copy(update={"database": quick})):
            pass
    async with open_gateway(keeping(tmp_path, database_url, "end")) as gateway:
        assert "20" in (await gateway.sessions.run_cell(session, "x")).envelope


def _notebook(data_dir: Path, session: str) -> str:
    return (data_dir / "transcripts" / "shop" / f"{session}.ipynb").read_text()
