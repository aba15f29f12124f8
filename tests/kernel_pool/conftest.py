"""Real pools in short folders, since unix sockets' paths are."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from attack import LIMITS, SECRET_NAME, SHARED, Arena
from groups import available
from places import CONTAINERS, PLACES, place_factory
from pools import pool_config

from kernel_pool.pool import Pool
from kernel_pool.types import PoolConfig

collect_ignore = [] if CONTAINERS else ["test_survive_docker.py"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "cgroup(what): only where this process can have that cgroup, see groups.available"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs cgroups that this process cannot have: no installation brings those to an ordinary user.

    And, of tests for both kinds of kernels, what a stock ipykernel does less of: docs/kernel-features.md says where.
    """
    left_out = [
        item
        for item in items
        if not all(available(m.args[0]) for m in item.iter_markers("cgroup"))
        or (item.get_closest_marker("forked_only") and "[stock" in item.name)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A path for a pool's runtime folder; removed at the end if the pool did not."""
    parent = Path(tempfile.mkdtemp(prefix="okp-"))
    yield parent / "run"
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture
def config(runtime_dir: Path) -> PoolConfig:
    """A pool that is up in a moment: nothing preloaded, nothing in stock."""
    return pool_config(runtime_dir, limits=LIMITS)


@pytest_asyncio.fixture
async def pool(config: PoolConfig) -> AsyncIterator[Pool]:
    pool = Pool(config)
    await pool.start()
    yield pool
    await pool.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=PLACES)
async def arena(request: pytest.FixtureRequest) -> AsyncIterator[Arena]:
    """One pool per place for all attacks, with a sibling kernel that every one of them must leave alone."""
    parent = Path(tempfile.mkdtemp(prefix="okp-"))
    files = {SHARED: b"as the gateway wrote it"}
    config = pool_config(parent / "run", limits=LIMITS, minimum=1, maximum=4, files=files)
    pool = Pool(config, place_factory(request, request.param))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET_NAME, secrets.token_hex(16))
        await pool.start()
        arena = Arena(pool, await pool.lease(), request.param)
        await arena.prepare()
        yield arena
        await pool.close()
    assert list(parent.iterdir()) == []
    parent.rmdir()
