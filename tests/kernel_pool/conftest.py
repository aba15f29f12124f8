"""Real pools in short folders, since unix sockets' paths are."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from attack import LIMITS, SECRET_NAME, Arena

from kernel_pool.container_config import DockerConfig
from kernel_pool.docker import DockerPlace
from kernel_pool.local import LocalPlace
from kernel_pool.place import Place
from kernel_pool.pool import Pool
from kernel_pool.types import PoolConfig

#: Where the attacks are made, comma-separated: local, runc, runsc.
PLACES = os.environ.get("KERNEL_TEST_PLACES", "local").split(",")


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A path for a pool's runtime folder; removed at the end if the pool did not."""
    parent = Path(tempfile.mkdtemp(prefix="okp-"))
    yield parent / "run"
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture
def config(runtime_dir: Path) -> PoolConfig:
    """A pool that is up in a moment: nothing preloaded, nothing in stock."""
    return PoolConfig(runtime_dir, limits=LIMITS, warm=0, preload=(), start_timeout_s=60, lease_timeout_s=60)


@pytest_asyncio.fixture
async def pool(config: PoolConfig) -> AsyncIterator[Pool]:
    pool = Pool(config)
    await pool.start()
    yield pool
    await pool.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PLACES)
async def arena(request: pytest.FixtureRequest) -> AsyncIterator[Arena]:
    """One pool per module for attacks, with a sibling kernel that every attack must leave alone."""
    parent = Path(tempfile.mkdtemp(prefix="okp-"))
    config = PoolConfig(parent / "run", limits=LIMITS, warm=1, maximum=4, preload=(), start_timeout_s=60)
    pool = Pool(config, _place(request, config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET_NAME, secrets.token_hex(16))
        await pool.start()
        arena = Arena(pool, await pool.lease(), request.param)
        await arena.prepare()
        yield arena
        await pool.close()
    assert list(parent.iterdir()) == []
    parent.rmdir()


def _place(request: pytest.FixtureRequest, config: PoolConfig) -> Place:
    if request.param == "local":
        return LocalPlace(config)
    host, image = request.getfixturevalue("docker_host"), request.getfixturevalue("sandbox_image")
    return DockerPlace(config, DockerConfig(image=image, runtime=request.param, host=host))
