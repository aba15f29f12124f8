"""Kernels in containers, against a real daemon: what a session gets, how containers end, what is left."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import aiodocker
import pytest
from pools import adapted, in_containers, place_config

from kernel_pool.container_config import DockerConfig
from kernel_pool.docker import DockerPlace
from kernel_pool.pool import Kernel, Pool
from kernel_pool.types import CellResult, Exit, ExitReason, PoolConfig, StartFailed

PROJECT = Path(__file__).parent.parent.parent

#: The first test may have to wait for the image.
pytestmark = [pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]


def output(result: CellResult) -> str:
    texts = (item.get("text") or item.get("data", {}).get("text/plain") or "" for item in result.outputs)
    return "".join(texts).strip()


async def containers(client: aiodocker.Docker, config: PoolConfig) -> list[str]:
    """Those that see a folder of this pool's; others run beside them."""
    found = await client.containers.list(all=True, filters={"label": ["omniops.kernel"]})
    seen = {container.id: [mount.get("Source", "") for mount in container["Mounts"]] for container in found}
    return [id for id, sources in seen.items() if any(path.startswith(str(config.runtime_dir)) for path in sources)]


async def test_a_cell_runs_with_what_the_image_has(config: PoolConfig, docker_config: DockerConfig) -> None:
    config = adapted(config, preload=("numpy", "pandas", "pyarrow"))
    pool = Pool(config, in_containers(docker_config))
    await pool.start()
    try:
        kernel = await pool.lease()
        code = "import pandas as pd\nint(pd.DataFrame({'a': [1, 1, 2], 'b': [1, 2, 3]}).groupby('a').b.sum()[1])"
        assert output(await kernel.execute(code, deadline_s=30)) == "3"
        assert output(await kernel.execute("!python3 -c 'import numpy; print(6 * 7)'", deadline_s=30)) == "42"
    finally:
        await pool.close()


async def test_files_are_there_to_read(kernel: Kernel) -> None:
    code = "print(open('/opt/omniops/files/note.txt').read())"
    assert output(await kernel.execute(code, deadline_s=30)) == "for every kernel"


async def test_a_kernel_reaches_its_broker_that_is_made_later(kernel: Kernel) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"heard " + await reader.readline())
        writer.close()

    broker = await asyncio.start_unix_server(answer, kernel.broker_path)
    folder = kernel.directory.stat()
    os.chown(kernel.broker_path, folder.st_uid, folder.st_gid)
    kernel.broker_path.chmod(0o660)
    code = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/ipc/broker.sock'); s.send(b'it\\n'); s.recv(99)"
    )
    assert output(await kernel.execute(code, deadline_s=30)) == "b'heard it\\n'"
    broker.close()


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "while True: pass"], ids=["waiting", "computing"])
async def test_a_cell_past_its_deadline_is_interrupted_and_the_kernel_lives(kernel: Kernel, code: str) -> None:
    assert (await kernel.execute(code, deadline_s=1)).status == "interrupted"
    assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"


async def test_a_signal_from_the_door_interrupts(kernel: Kernel) -> None:
    """How a kernel is stopped that does not answer on its control channel."""
    running = asyncio.create_task(kernel.execute("print('on', flush=True)\nwhile True: pass", deadline_s=30))
    await asyncio.sleep(0.5)
    kernel.process.interrupt()
    result = await running
    assert result.error is not None
    assert result.error.name == "KeyboardInterrupt"


async def ended_by(pool: Pool, kernel: Kernel, code: str) -> Exit:
    result = await kernel.execute(code, deadline_s=30)
    assert result.status == "dead"
    assert result.exit is not None
    await pool.release(kernel)
    return result.exit


async def test_a_session_hears_why_its_kernel_ended(pool: Pool) -> None:
    crashed = await ended_by(pool, await pool.lease(), "import ctypes; ctypes.string_at(0)")
    assert crashed == Exit(ExitReason.CRASH, "the kernel's process crashed with SIGSEGV in native code")
    left = await ended_by(pool, await pool.lease(), "import os; os._exit(3)")
    assert left == Exit(ExitReason.CRASH, "the kernel's process ended by itself with exit status 3")


async def test_a_container_that_somebody_kills_is_told_to_its_session(pool: Pool, client: aiodocker.Docker) -> None:
    kernel = await pool.lease()
    running = asyncio.create_task(ended_by(pool, kernel, "import time; time.sleep(60)"))
    await asyncio.sleep(0.5)
    (container,) = await client.containers.list(filters={"label": [f"omniops.kernel={kernel.id}"]})
    await container.kill()
    exit = await running
    assert exit == Exit(ExitReason.KILLED, "the kernel's container was ended from outside (exit status 137)")


class Line:
    """The way to the daemon, which can be cut."""

    def __init__(self, path: Path, host: str) -> None:
        self.address = f"unix://{path}"
        self._path, self._daemon = path, host.removeprefix("unix://")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        self._path.unlink()
        for writer in tuple(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        daemon_reader, daemon_writer = await asyncio.open_unix_connection(self._daemon)
        await asyncio.gather(self._pass(reader, daemon_writer), self._pass(daemon_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def test_sessions_go_on_without_the_daemon_and_the_pool_heals_with_it(
    config: PoolConfig, docker_config: DockerConfig, docker_host: str, client: aiodocker.Docker, tmp_path: Path
) -> None:
    line = Line(tmp_path / "docker.sock", docker_host)
    await line.open()
    pool = Pool(config, in_containers(replace(docker_config, host=line.address)))
    await pool.start()
    try:
        kernel = await pool.lease()
        (container,) = await client.containers.list(filters={"label": [f"omniops.kernel={kernel.id}"]})
        await line.cut()
        assert output(await kernel.execute("1 + 1", deadline_s=30)) == "2"
        await pool.release(kernel)
        assert (await asyncio.wait_for(container.wait(), 30))["StatusCode"] == 0
        await container.delete(force=True, v=True)
        await line.open()
        again = await pool.lease()
        assert output(await again.execute("1 + 1", deadline_s=30)) == "2"
    finally:
        await pool.close()
        await line.cut()


async def test_nothing_is_left_of_a_pool(
    config: PoolConfig, docker_config: DockerConfig, client: aiodocker.Docker
) -> None:
    pool = Pool(adapted(config, minimum=2), in_containers(docker_config))
    await pool.start()
    kernel = await pool.lease()
    await kernel.execute("open('file', 'w').write('x')", deadline_s=30)
    assert await containers(client, config) != []
    await pool.close()
    assert await containers(client, config) == []
    assert not config.runtime_dir.exists()


async def test_a_place_that_did_not_come_up_leaves_nothing(
    config: PoolConfig, docker_config: DockerConfig, client: aiodocker.Docker
) -> None:
    place = DockerPlace(place_config(adapted(config, preload=("no_such_module",))), docker_config)
    with pytest.raises(StartFailed, match="No module named 'no_such_module'"):
        await place.start()
    assert await containers(client, config) == []
    assert not config.runtime_dir.exists()


_CRASH = """
import asyncio, os, sys
from pathlib import Path
from kernel_pool.container_config import DockerConfig
from kernel_pool.docker import DockerPlace
from kernel_pool.types import PlaceConfig, Profile

async def main():
    grace, folder, image, runtime, host = sys.argv[1:]
    config = PlaceConfig(Path(folder), Profile(preload=()), start_timeout_s=60, orphan_grace_s=float(grace))
    place = DockerPlace(config, DockerConfig(image=image, runtime=runtime, host=host))
    await place.start()
    await place.spawn()
    os._exit(0)

asyncio.run(main())
"""


async def crash(config: PoolConfig, docker: DockerConfig, grace_s: float) -> None:
    """Start a kernel in a process that then ends without a word."""
    assert docker.host is not None
    arguments = [str(grace_s), str(place_config(config).runtime_dir), docker.image, docker.runtime, docker.host]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _CRASH, *arguments, cwd=PROJECT)
    assert await process.wait() == 0


async def test_containers_of_a_crashed_gateway_are_removed_at_the_next_start(
    config: PoolConfig, docker_config: DockerConfig, client: aiodocker.Docker
) -> None:
    await crash(config, docker_config, grace_s=3600)
    assert len(await containers(client, config)) == 1
    place = DockerPlace(place_config(config), docker_config)
    await place.start()
    assert await containers(client, config) == []
    await place.close()


async def test_a_container_ends_by_itself_when_no_gateway_comes_back(
    config: PoolConfig, docker_config: DockerConfig, client: aiodocker.Docker
) -> None:
    await crash(config, docker_config, grace_s=1)
    (orphan,) = await containers(client, config)
    container = await client.containers.get(orphan)
    assert (await asyncio.wait_for(container.wait(), 30))["StatusCode"] == 1
    place = DockerPlace(place_config(config), docker_config)
    await place.start()
    await place.close()
