"""The embedded Postgres: starts, is private, ends with its gateway, recovers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from gateway.postgres import EmbeddedPostgres, PostgresConfig, PostgresError

GATEWAY = """
import asyncio, sys
from pathlib import Path
from gateway.postgres import EmbeddedPostgres, PostgresConfig

async def main():
    url = await EmbeddedPostgres(PostgresConfig(Path(sys.argv[1]), Path(sys.argv[1]) / "run")).start()
    print(url, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="omniops-pg-") as name:
        yield Path(name)


def server(folder: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(PostgresConfig(folder, folder / "run"))


def postmaster(folder: Path) -> int:
    return int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def write(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")


def read(url: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT answer FROM kept").fetchone()
    return row and row[0]


async def test_data_outlives_a_restart(folder: Path) -> None:
    first = server(folder)
    write(await first.start())
    await first.stop()
    second = server(folder)
    assert read(await second.start()) == 42
    await second.stop()


async def test_stop_leaves_no_process_and_no_socket(folder: Path) -> None:
    running = server(folder)
    await running.start()
    pid = postmaster(folder)
    await running.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert list((folder / "run").iterdir()) == []


async def test_only_a_private_socket_leads_to_it(folder: Path) -> None:
    running = server(folder)
    await running.start()
    pid = postmaster(folder)
    inodes = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    tcp = Path(f"/proc/{pid}/net/tcp").read_text() + Path(f"/proc/{pid}/net/tcp6").read_text()
    listening = {f"socket:[{line.split()[9]}]" for line in tcp.splitlines() if " 0A " in line}
    assert not inodes & listening
    assert stat.S_IMODE((folder / "run").stat().st_mode) == 0o700
    await running.stop()


async def test_runs_as_an_unprivileged_user_without_widening_any_permission(folder: Path) -> None:
    folder.chmod(0o700)
    running = server(folder)
    await running.start()
    assert os.stat(f"/proc/{postmaster(folder)}").st_uid != 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await running.stop()


async def test_a_killed_gateway_takes_its_server_along_and_the_next_one_finds_the_data(folder: Path) -> None:
    gateway = subprocess.Popen([sys.executable, "-c", GATEWAY, str(folder)], stdout=subprocess.PIPE, text=True)
    assert gateway.stdout is not None
    write(gateway.stdout.readline().strip())
    gateway.send_signal(signal.SIGKILL)
    gateway.wait()
    gateway.stdout.close()
    following = server(folder)
    assert read(await following.start()) == 42
    await following.stop()


async def test_a_left_over_server_is_stopped_before_a_new_one_starts(folder: Path) -> None:
    left = server(folder)
    write(await left.start())
    pid = postmaster(folder)
    os.close(left._lock or -1)  # what the kernel does for a process that dies; the server itself stays
    left._lock = None
    following = server(folder)
    assert read(await following.start()) == 42
    assert following.owned
    assert postmaster(folder) != pid
    assert not left._serves_here(pid)
    await following.stop()
    await left.stop()


async def test_a_killed_server_recovers(folder: Path) -> None:
    first = server(folder)
    write(await first.start())
    os.kill(postmaster(folder), signal.SIGQUIT)
    await first.stop()
    following = server(folder)
    assert read(await following.start()) == 42
    await following.stop()


async def test_the_pid_file_of_a_dead_server_whose_number_went_to_another_process_is_no_obstacle(folder: Path) -> None:
    first = server(folder)
    write(await first.start())
    await first.stop()
    (folder / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n/elsewhere\n1\n5432\n\n\n\nready\n")
    following = server(folder)
    assert read(await following.start()) == 42
    await following.stop()


async def test_a_second_process_is_a_guest_and_does_not_stop_the_server(folder: Path) -> None:
    owner, guest = server(folder), server(folder)
    write(await owner.start())
    assert read(await guest.start()) == 42
    assert not guest.owned
    await guest.stop()
    assert read(owner.url) == 42
    await owner.stop()


async def test_an_initialisation_that_was_cut_short_is_begun_anew(folder: Path) -> None:
    (folder / "postgres.new").mkdir()
    (folder / "postgres.new" / "PG_VERSION").write_text("18")
    running = server(folder)
    write(await running.start())
    await running.stop()


async def test_cancelled_start_leaves_no_process(folder: Path) -> None:
    starting = asyncio.create_task(server(folder).start())
    await asyncio.sleep(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    following = server(folder)
    await following.start()
    await following.stop()


async def test_a_broken_data_folder_is_reported_with_postgres_own_words(folder: Path) -> None:
    first = server(folder)
    await first.start()
    await first.stop()
    (folder / "postgres" / "PG_VERSION").write_text("9.6")
    with pytest.raises(PostgresError, match="version"):
        await server(folder).start()


async def test_a_socket_path_that_is_too_long_is_named(folder: Path) -> None:
    config = PostgresConfig(folder, folder / ("x" * 100))
    with pytest.raises(PostgresError, match="too long for a unix socket: set runtime_dir"):
        await EmbeddedPostgres(config).start()


def test_sockets_of_the_kernel_have_the_length_that_is_checked() -> None:
    from gateway.postgres import SOCKET_PATH_MAX

    with TemporaryDirectory(prefix="s") as folder, socket.socket(socket.AF_UNIX) as probe:
        padded = folder + "/" + "x" * (SOCKET_PATH_MAX - len(folder) - 1)
        probe.bind(padded)
        with socket.socket(socket.AF_UNIX) as other, pytest.raises(OSError, match="too long"):
            other.bind(padded + "x")
