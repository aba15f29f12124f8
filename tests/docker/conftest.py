"""Pools of containers in short folders, since unix sockets' paths are."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiodocker
import pytest
import pytest_asyncio
from places import CONTAINERS
from pools import in_containers, pool_config

from kernel_pool.container_config import DockerConfig
from kernel_pool.pool import Kernel, Pool
from kernel_pool.types import Limits, PoolConfig

collect_ignore_glob = [] if CONTAINERS else ["test_*.py"]


@pytest.fixture
def config() -> Iterator[PoolConfig]:
    with _config() as made:
        yield made


@contextmanager
def _config() -> Iterator[PoolConfig]:
    """One whose folder is empty when it is no longer used."""
    parent = Path(tempfile.mkdtemp(prefix="okp-"))
    limits = Limits(memory_mb=192, disk_mb=16, processes=32, open_files=256)
    yield pool_config(parent / "run", limits=limits, files={"note.txt": b"for every kernel"})
    left = list(parent.iterdir())
    shutil.rmtree(parent)
    assert left == []


@pytest.fixture(scope="module", params=CONTAINERS)
def docker_config(request: pytest.FixtureRequest, docker_host: str, sandbox_image: str) -> DockerConfig:
    return DockerConfig(image=sandbox_image, runtime=request.param, host=docker_host)


@pytest_asyncio.fixture(loop_scope="module")
async def client(docker_host: str) -> AsyncIterator[aiodocker.Docker]:
    """The daemon, without a detour over our code."""
    async with aiodocker.Docker(url=docker_host) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(docker_config: DockerConfig) -> AsyncIterator[Pool]:
    """For all tests of kernels; a container more for the pool of each takes seconds."""
    with _config() as config:
        pool = Pool(config, in_containers(docker_config))
        await pool.start()
        yield pool
        await pool.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kernel(pool: Pool) -> Kernel:
    """For tests after which it lives on."""
    return await pool.lease()
