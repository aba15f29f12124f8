"""Where tests run their kernels: everywhere, unless `KERNEL_TEST_PLACES` names some of local, runc, runsc (commas)."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from pools import in_containers

from kernel_pool.container_config import DockerConfig
from kernel_pool.local import LocalPlace
from kernel_pool.place import Place
from kernel_pool.types import PlaceConfig

_NAMED = os.environ.get("KERNEL_TEST_PLACES")
PLACES = (_NAMED or "local,runc,runsc").split(",")
#: For what kernels and their clients do: both of Docker's runtimes are driven by the same code, so the stricter one is
#: tried, unless others are named. What holds a kernel in is tried in each.
PLACES_OF_USE = PLACES if _NAMED else ["local", "runsc"]
CONTAINERS = [place for place in PLACES if place != "local"]

#: Places and kinds of kernels for what both kinds can do. Stock ones, of which nothing is ours, on this machine only.
KINDS = [pytest.param((place, "forked"), id=place) for place in PLACES_OF_USE]
KINDS += [pytest.param(("local", "stock"), id="stock")] if "local" in PLACES else []


def place_factory(request: pytest.FixtureRequest, place: str) -> Callable[[PlaceConfig], Place]:
    """For a pool in `place`."""
    if place == "local":
        return LocalPlace
    host, image = request.getfixturevalue("docker_host"), request.getfixturevalue("sandbox_image")
    return in_containers(DockerConfig(image=image, runtime=place, host=host))
