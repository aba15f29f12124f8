"""Configurations of pools for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from kernel_pool.container_config import DockerConfig
from kernel_pool.docker import DockerPlace
from kernel_pool.types import PlaceConfig, PoolConfig, Profile

_PROFILE = {field.name for field in fields(Profile)} - {"maximum"}


def pool_config(runtime_dir: Path, **changes: Any) -> PoolConfig:
    """A pool that is up in a moment: one profile, nothing preloaded, nothing in stock."""
    config = PoolConfig(runtime_dir, profiles=(Profile(preload=(), minimum=0),), start_timeout_s=60, lease_timeout_s=60)
    return adapted(config, **changes)


def adapted(config: PoolConfig, **changes: Any) -> PoolConfig:
    """`config` with other values for itself and, by the same call, for its first profile."""
    profile = {name: changes.pop(name) for name in tuple(changes) if name in _PROFILE}
    first, *others = config.profiles
    return replace(config, profiles=(replace(first, **profile), *others), **changes)


def place_config(config: PoolConfig) -> PlaceConfig:
    """For a place of the first profile that has the runtime folder for itself, without a pool."""
    return replace(config.place(config.profiles[0]), runtime_dir=config.runtime_dir)


def in_containers(docker: DockerConfig) -> Callable[[PlaceConfig], DockerPlace]:
    """For a pool whose kernels are containers."""
    return partial(DockerPlace, docker=docker)
