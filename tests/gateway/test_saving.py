"""A disk that is full and a database that is away: results reach their callers, nothing is lost, nothing ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from gateway_world import notebook_of, settings_for
from psycopg_pool import PoolTimeout

from gateway.postgres import EmbeddedPostgres, PostgresConfig
from gateway.routes.problems import problem_of
from gateway.runtime import open_gateway
from gateway.session_errors import NotSaved
from kernel_pool.types import KernelPoolError

pytestmark = pytest.mark.timeout(300)
needs_mount = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "small", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room at all."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert os.statvfs(folder).f_bavail == 0
    return filler


@needs_mount
async def test_a_full_disk_costs_no_result_and_no_transcript(tmp_path: Path, database_url: str) -> None:
    data = tmp_path / "data"
    with small_disk(data / "transcripts", "512k"):
        async with open_gateway(settings_for(data, database_url)) as gateway:
            sessions = gateway.sessions
            session = (await sessions.create("shop", "test", "agent")).id
            filler = fill(data / "transcripts")
            code = "print('-' * 9000); x = 7; x"  # more than the last page of a file may have room for
            run = await sessions.run_cell(session, code, cell_id="full")
            assert (run.result.status, "value:  7" in run.envelope) == ("ok", True)
            with pytest.raises(NotSaved) as refused:
                await sessions.run_cell(session, "x")
            problem = problem_of(refused.value)
            assert (problem.status, problem.code, bool(problem.hint)) == (507, "not_saved", True)
            with pytest.raises(OSError, match="No space left") as full:
                await sessions.create("shop", "test", "agent")
            problem = problem_of(full.value)
            assert (problem.status, problem.code, bool(problem.hint)) == (507, "disk_full", True)
            assert gateway.pool.status().leased == 1
            filler.unlink()
            for _ in range(200):  # saved by itself
                if [cell.id for cell in notebook_of(data, session).cells] == ["full"]:
                    break
                await asyncio.sleep(0.1)
            assert [cell.id for cell in notebook_of(data, session).cells] == ["full"]
            assert "value:  7" in (await sessions.run_cell(session, "x")).envelope
            fill(data / "transcripts")
            await sessions.run_cell(session, "y = 8")
            await sessions.end(session)
            assert (await sessions.get(session)).state == "ended"
            (data / "transcripts" / "filler").unlink()
        assert [cell.source for cell in notebook_of(data, session).cells] == [code, "x", "y = 8"]
        assert notebook_of(data, session).metadata.omniops.state == "ended"


@needs_mount
async def test_a_full_runtime_folder_refuses_kernels_until_there_is_room(
    tmp_path: Path, database_url: str, folder: Path
) -> None:
    with small_disk(folder / "run", "1m"):
        async with open_gateway(settings_for(tmp_path / "data", database_url, runtime_dir=folder / "run")) as gateway:
            session = (await gateway.sessions.create("shop", "test", "agent")).id
            filler = fill(folder / "run")
            with pytest.raises(KernelPoolError) as refused:
                await gateway.sessions.create("shop", "test", "agent")
            assert problem_of(refused.value).status == 503
            assert (await gateway.sessions.run_cell(session, "1")).result.status == "ok"
            filler.unlink()
            again = await gateway.sessions.create("shop", "test", "agent")
            assert (await gateway.sessions.run_cell(again.id, "1")).result.status == "ok"


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(PostgresConfig(folder / "pg", folder / "run"))
    yield postgres
    await postgres.stop()


async def test_a_database_that_goes_away_is_said_and_the_gateway_heals(
    tmp_path: Path, server: EmbeddedPostgres
) -> None:
    settings = settings_for(tmp_path / "data", await server.start(), database={"connect_timeout_s": 2})
    async with open_gateway(settings) as gateway:
        sessions = gateway.sessions
        session = (await sessions.create("shop", "test", "agent")).id
        running = asyncio.create_task(sessions.run_cell(session, "import time; time.sleep(2); x = 7; x", cell_id="a"))
        await asyncio.sleep(1)
        await server.stop()
        run = await running
        assert (run.result.status, "value:  7" in run.envelope) == ("ok", True)
        with pytest.raises((NotSaved, psycopg.OperationalError, PoolTimeout)) as away:
            await sessions.run_cell(session, "x")
        problem = problem_of(away.value)
        assert (problem.status, problem.code in ("not_saved", "no_database"), bool(problem.hint)) == (503, True, True)
        await server.start()
        seen: set[int] = set()
        for _ in range(30):
            try:
                run = await sessions.run_cell(session, "x")
                break
            except (NotSaved, psycopg.OperationalError, PoolTimeout) as error:
                seen.add(problem_of(error).status)
                await asyncio.sleep(0.2)
        assert seen <= {503}
        assert "value:  7" in run.envelope
        row, node = await sessions.cell(session, "a")
        assert (row.status, node is not None) == ("ok", True)
